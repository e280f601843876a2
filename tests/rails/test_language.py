"""The language of a text: which pass, which do not, and what becomes of what cannot be told."""

import pytest
from pydantic import ValidationError

from trackbed.rails.library.language import LANGUAGES, NO_LANGUAGE, Language, _identifier
from trackbed.rails.types import Models, Turn, Verdict


async def judge(text: str, *allow: str, **config: object) -> Verdict:
    rail = Language(Language.Config.model_validate({"allow": list(allow), **config}), Models())
    return await rail.check(Turn("", text=text))


@pytest.mark.parametrize(
    ("text", "allow"),
    [
        ("Where is my order?", ["en"]),
        ("I WANT MY MONEY BACK", ["en"]),
        ("where is my order", ["en", "de"]),
        ("Wo ist meine Bestellung?", ["en", "de"]),
        ("WO IST MEINE BESTELLUNG", ["de"]),
        ("où est ma commande", ["fr"]),
        ("¿cómo cambio la contraseña?", ["es"]),
        ("где мой заказ", ["ru"]),
        ("де моє замовлення", ["uk"]),
        ("我的订单在哪里", ["zh"]),
        ("注文はどこですか", ["ja"]),
        ("أين طلبي", ["ar"]),
        ("Can you translate 'guten Morgen' to English?", ["en"]),
        ("Mir ass kal, wou ass meng Bestellung?", ["lb"]),
    ],
)
async def test_a_text_in_an_allowed_language_passes(text: str, allow: list[str]) -> None:
    assert (await judge(text, *allow, undecided="block")).action == "allow"


@pytest.mark.parametrize(
    ("text", "allow", "category"),
    [
        ("Wo ist meine Bestellung?", ["en"], "de"),
        ("Where is my order?", ["de", "fr"], "en"),
        ("ｗｏ ｉｓｔ ｍｅｉｎｅ Ｂｅｓｔｅｌｌｕｎｇ", ["en"], "de"),
        ("w\u200bo i\u200bst me\u200bine Beste\u200bllung", ["en"], "de"),
        ("où est ma commande", ["en"], "fr"),
        ("quiero que me devuelvan el dinero", ["en"], "es"),
        ("gdzie jest moje zamówienie", ["en"], "pl"),
        ("Где мой заказ? Я жду уже две недели, а вы не отвечаете.", ["en", "uk"], "ru"),
        ("我的订单在哪里", ["en"], "zh"),
        ("注文はどこですか", ["zh"], "ja"),
        ("내 주문은 어디에 있나요", ["en"], "ko"),
        ("πού είναι η παραγγελία μου", ["en"], "el"),
        ("siparişim nerede https://example.com/where/is/my/order", ["en"], "tr"),
        ("hvor er min ordre, hilsen anna@the-english-order.com", ["en"], "da"),
    ],
)
async def test_a_text_in_another_language_is_blocked(text: str, allow: list[str], category: str) -> None:
    verdict = await judge(text, *allow)
    assert (verdict.action, verdict.categories) == ("block", (category,))
    assert verdict.score is not None
    assert 0.95 <= verdict.score <= 1


@pytest.mark.parametrize("text", ["", "12345", "?!", "👍", "ok", "https://example.com", "anna@example.org", "x = 3"])
async def test_what_is_in_no_language_is_the_policys_choice(text: str) -> None:
    assert (await judge(text, "en")).action == "allow"
    assert (await judge(text, "en", undecided="block")).categories == ("undecided",)
    assert (await judge(text, "en", undecided="block")).action == "block"


async def test_a_lower_threshold_blocks_what_is_half_in_another_language() -> None:
    mixed = "I would like to order a café au lait et un croissant"
    assert (await judge(mixed, "en")).action == "allow"
    assert (await judge(mixed, "en", threshold=0.55)).action == "block"


@pytest.mark.parametrize("allow", [[], ["english"], ["EN"], [NO_LANGUAGE], ["xx"]])
def test_what_is_no_language_cannot_be_allowed(allow: list[str]) -> None:
    with pytest.raises(ValidationError):
        Language.Config.model_validate({"allow": allow})


def test_every_language_that_can_be_named_can_be_told() -> None:
    assert LANGUAGES | {NO_LANGUAGE} <= set(_identifier().labels)


@pytest.mark.parametrize(
    "text", ["@我的订单在哪里", "a://我的订单在哪里", "wo@ ist@ meine@ Bestellung@", "@где @мой @заказ"]
)
async def test_what_only_begins_like_an_address_is_judged(text: str) -> None:
    assert (await judge(text, "en")).action == "block"


@pytest.mark.parametrize("before", ["", "1234 " * 2000])
@pytest.mark.parametrize("times", [1, 100, 5000])
async def test_a_text_is_in_its_language_however_long_it_is(before: str, times: int) -> None:
    text = before + "Wo ist meine Bestellung? " * times
    assert (await judge(text, "de", undecided="block")).action == "allow"
    assert (await judge(text, "en")).categories == ("de",)


async def test_a_long_text_without_a_space_is_read_in_pieces() -> None:
    assert (await judge("我的订单在哪里" * 2000, "en")).categories == ("zh",)
