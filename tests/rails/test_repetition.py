"""What goes round in circles is blocked, and what repeats itself as people do is not."""

import pytest

from trackbed.rails.library.repetition import Repetition
from trackbed.rails.types import Models, Turn, Verdict

SONG = "Row, row, row your boat, gently down the stream. Merrily, merrily, merrily, merrily, life is but a dream. "
TABLE = "| day | hours |\n|---|---|\n" + "".join(
    f"| {day} | 9 to 18 |\n" for day in ("Mon", "Tue", "Wed", "Thu", "Fri")
)
CODE = "".join(f"    self.{name} = {name}\n" for name in ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta"))


async def judge(text: str, **config: object) -> Verdict:
    return await Repetition(Repetition.Config.model_validate(config), Models()).check(Turn("", text=text))


@pytest.mark.parametrize(
    ("text", "category"),
    [
        ("I don't know what to say. " * 20, "words"),
        ("and then he went to the shop " * 12, "words"),
        ("The rail is a check. The rail is a check. " * 8, "words"),
        ("yes yes yes yes yes yes yes yes " * 8, "words"),
        ("one two three four five " * 15, "words"),
        ("Ja, das ist richtig so. " * 15, "words"),
        ("to be or not to be or not " * 10, "words"),
        ("a" * 200, "characters"),
        ("Nooooooooooooooooooooooooooooooooooooooooooooooooo!", "characters"),
        ("ha" + "哈" * 60, "characters"),
        ("!" * 100, "characters"),
        ("The same line again.\n" * 10, "lines"),
        ("start\n" + "    return None if x else y\n" * 12, "lines"),
    ],
)
async def test_what_goes_round_in_circles_is_blocked(text: str, category: str) -> None:
    verdict = await judge(text)
    assert (verdict.action, verdict.categories) == ("block", (category,))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ok",
        "no no no, not that one",
        SONG,
        SONG + "And once more. " + "Then they sang another song, which nobody knew, and went home late in the night.",
        TABLE,
        CODE,
        "-" * 200,
        "Title\n" + "=" * 80 + "\nA text under it.",
        "\n" * 500,
        " " * 5000,
        "1. Open the door.\n2. Close the door.\n3. Open the window.\n4. Close the window.\n5. Open the gate.",
        "The library opens at nine. It closes at six. On Sundays it is closed, and on Mondays it opens at ten. "
        "Whoever wants to borrow a book needs a card, which costs nothing and is made while one waits at the desk.",
        "Hmmmmm, sooooo good!",
    ],
)
async def test_what_repeats_itself_as_people_do_passes(text: str) -> None:
    assert (await judge(text)).action == "allow"


async def test_limits_are_the_policys() -> None:
    assert (await judge("aaaa", characters=3)).action == "block"
    assert (await judge("a line of text\n" * 3, lines=2)).action == "block"
    assert (await judge(SONG * 3, share=0.2)).action == "block"


async def test_a_long_text_is_judged_at_once() -> None:
    words = " ".join(f"word{n}" for n in range(200_000))
    assert (await judge(words)).action == "allow"
