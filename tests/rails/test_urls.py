"""Links: where they lead is judged as browsers read them, and what is no link passes."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from trackbed.rails.library.domains import likeness, name_of
from trackbed.rails.library.urls import Urls
from trackbed.rails.types import Models, Turn, Verdict

ALLOW = {"allow": ["bank.com", "example.org"]}
DENY = {"deny": ["evil.example", "tracker.net"]}


def rail(**config: Any) -> Urls:  # Any: whatever a policy says
    return Urls(Urls.Config.model_validate(config), Models())


def judge(text: str, **config: Any) -> Verdict:  # Any: as above
    return asyncio.run(rail(**config).check(Turn("", text=text)))


@pytest.mark.parametrize(
    ("text", "found", "kind"),
    [
        ("see https://evil.com/login.", "https://evil.com/login", "not_allowed"),
        ("see (https://evil.com/a_(b)) now", "https://evil.com/a_(b)", "not_allowed"),
        ("[your bank](https://evil.com/x) is", "https://evil.com/x", "not_allowed"),
        ("[a](https://bank.com)[b](http://evil.com)", "http://evil.com", "not_allowed"),
        ("visit evil.com/promo today", "evil.com/promo", "not_allowed"),
        ("visit WWW.EVIL.COM!", "WWW.EVIL.COM", "not_allowed"),
        ("https://bank.com@evil.example/x", "https://bank.com@evil.example/x", "user_info"),
        ("https://bank.com{@evil.example", "https://bank.com{@evil.example", "user_info"),
        ("https://evil.com\\@bank.com", "https://evil.com\\@bank.com", "not_allowed"),
        ("https:\\\\evil.com", "https:\\\\evil.com", "not_allowed"),
        ("https:///evil.com", "https:///evil.com", "not_allowed"),
        ("https:evil.com", "https:evil.com", "not_allowed"),
        ("http://192.168.0.1/admin", "http://192.168.0.1/admin", "address"),
        ("http://2130706433/", "http://2130706433/", "address"),
        ("http://0x7f.1/", "http://0x7f.1/", "address"),
        ("http://[::1]:8080/", "http://[::1]:8080/", "address"),
        ("go to https://bаnk.com now", "https://bаnk.com", "lookalike"),
        ("go to bаnk.com now", "bаnk.com", "lookalike"),
        ("https://xn--bnk-6cd.com/", "https://xn--bnk-6cd.com/", "lookalike"),
        ("https://examp1e.org", "https://examp1e.org", "lookalike"),
        ("https://bank.com.evil.example/", "https://bank.com.evil.example/", "lookalike"),
        ("https://b\u200band.com", "https://b\u200band.com", "not_allowed"),
        ("https://ｅｖｉｌ。com/", "https://ｅｖｉｌ。com/", "not_allowed"),
        ("https://%65vil.com/", "https://%65vil.com/", "not_allowed"),
        ("[x](javascript:alert(1))", "javascript:alert(1)", "scheme"),
        ("[x](//evil.com/a)", "//evil.com/a", "not_allowed"),
        ("ftp://bank.com/file", "ftp://bank.com/file", "scheme"),
        ("data:text/html;base64,PHNjcmlwdD4=", "data:text/html;base64,PHNjcmlwdD4=", "scheme"),
        ("mailto:help@bank.com", "mailto:help@bank.com", "scheme"),
        ("seehttps://evil.com", "https://evil.com", "not_allowed"),
        ('{"url":"https://evil.com","to":"a@b.org"}', "https://evil.com", "not_allowed"),
        ("https://bank.com/?u=https://evil.com/x", "https://evil.com/x", "not_allowed"),
    ],
)
def test_a_link_that_leads_elsewhere_is_found_as_it_is_written(text: str, found: str, kind: str) -> None:
    verdict = judge(text, **ALLOW)
    assert (verdict.action, verdict.categories) == ("block", (kind,))
    assert [text[f.start : f.end] for f in verdict.findings] == [found]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "see https://bank.com.",
        "see https://www.bank.com/a?b=c#d, or EXAMPLE.org",
        "[help](https://help.bank.com/a_(b)) and <https://bank.com>",
        "https://BANK.com:443/",
        "https://bank.com/wiki/Moore's_law",
        "https://bank.com/@user/posts",
        "{'url': 'https://bank.com', 'mail': 'a@b.org'}",
        '{"url":"https://bank.com","to":"a@evil.com"}',
        "write to john.smith@evil.com",
        "run main.py, then node.js or README.md; e.g. v1.2.3",
        "It ends.Then it begins. Metadata:foo, note: this; std::vector",
        "at 10.0.0.1, 3.14 or 1/2, and/or C:/Windows",
        "a URL begins with https:// or http://",
        "os.name, config.app, self.info",
        "// a comment",
    ],
)
def test_a_link_to_an_allowed_domain_and_what_is_none_pass(text: str) -> None:
    assert judge(text, **ALLOW).action == "allow"


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("https://evil.example", "block"),
        ("https://a.b.evil.example/x", "block"),
        ("EVIL.EXAMPLE", "block"),
        ("https://еvil.example", "allow"),
        ("https://notevil.example", "allow"),
        ("https://evil.example.org", "allow"),
        ("https://python.org/docs", "allow"),
        ("http://localhost:3000/", "allow"),
        ("tracker.network", "allow"),
    ],
)
def test_a_denied_domain_is_refused_with_all_under_it_and_no_other(text: str, action: str) -> None:
    assert judge(text, **DENY).action == action


def test_deny_goes_before_allow() -> None:
    assert judge("https://ads.bank.com", **ALLOW, deny=["ads.bank.com"]).categories == ("denied",)


def test_domains_on_neither_list_may_be_let_through_while_look_alikes_are_not() -> None:
    assert judge("https://python.org", **ALLOW, others="allow").action == "allow"
    assert judge("https://bаnk.com", **ALLOW, others="allow").categories == ("lookalike",)
    assert judge("https://bаnk.com", **ALLOW, others="allow", lookalikes="allow").action == "allow"


def test_a_domain_that_is_allowed_is_no_look_alike_of_another() -> None:
    assert judge("https://bank.com https://bаnk.com", allow=["bank.com", "bаnk.com"]).action == "allow"


def test_more_schemes_may_be_allowed() -> None:
    assert judge("mailto:a@b.org", schemes=["https", "mailto"]).action == "allow"
    assert judge("http://b.org", schemes=["https", "mailto"]).action == "block"


@pytest.mark.parametrize(
    "config",
    [
        {"allow": ["https://bank.com"]},
        {"allow": ["*.bank.com"]},
        {"allow": ["a b"]},
        {"deny": [""]},
        {"deny": ["10.0.0.1"]},
        {"schemes": []},
        {"schemes": ["https:"]},
    ],
)
def test_what_is_no_domain_or_scheme_is_refused(config: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Urls.Config.model_validate(config)


@pytest.mark.parametrize(
    "text",
    [
        "http://" * 20_000,
        "a." * 50_000,
        "a@" * 50_000,
        "a.com," * 20_000,
        "http:" + "a." * 40_000,
        "https://" + "com." * 30_000,
        "https://" + "a" * 100_000,
        "javascript:" * 9_000,
        "[](" * 40_000,
        "{@" * 50_000,
        "💥.com" * 9_000,
        "\ud800https://evil.com",
        "https://[",
        "https://a:b:c",
        "https://xn--" + "9" * 200 + ".com",
    ],
)
def test_hostile_texts_are_judged(text: str) -> None:
    assert judge(text, **ALLOW, **DENY).action in ("allow", "block")


LINKS = ["https://", "http:", "evil.com", "bank.com", "javascript:", "www.", "//", "[a](", "x", "。", "\u200b"]
PIECES = st.sampled_from([*LINKS, "/", "@", " ", " ", "\n", "(", ")", "[", "]", ".", ",", '"', "'", "{"])


@given(st.lists(PIECES, max_size=14).map("".join), st.data())
def test_what_is_held_can_still_become_a_link_and_nothing_before_it(text: str, data: st.DataObject) -> None:
    urls, begun = rail(**ALLOW), text[: data.draw(st.integers(0, len(text)))]
    held = urls.held(Turn("", text=begun))
    assert 0 <= held <= len(begun)
    early = [f for f in judge(begun, **ALLOW).findings if f.start < held]
    assert early == [f for f in judge(text, **ALLOW).findings if f.start < held]


@given(st.text(max_size=60))
def test_any_text_is_judged(text: str) -> None:
    assert judge(text, **ALLOW).action in ("allow", "block")
    assert name_of(name_of(text)) is not None
    assert isinstance(likeness(text), str)
