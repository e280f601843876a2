"""Markup: object to what a text would do where it is shown, rather than say.

HTML, scripts, links that run code, and images, which send whatever their address holds to its host. A mask is the
text with these taken out, by nh3 (https://nh3.readthedocs.io), judged once more. What Markdown shows as code passes.
This file knows what HTML and Markdown carry out. It knows nothing of where ordinary links lead.
"""

import html
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import ClassVar, Literal, NamedTuple, TypeVar
from urllib.parse import urlsplit

import nh3
import re2
from pydantic import Field, ValidationInfo, field_validator

from trackbed.rails.config import RailConfig
from trackbed.rails.library.code_spans import code_spans
from trackbed.rails.library.domains import is_domain, name_of, parents
from trackbed.rails.library.spans import disjoint
from trackbed.rails.types import Finding, Models, Stage, Streams, Then, Turn, Verdict

Kind = Literal["script", "html", "link", "image"]
WORDS: dict[Kind, str] = {
    "script": "HTML that runs code or loads something",
    "html": "HTML",
    "link": "a link that runs code",
    "image": "an image of another host",
}
# None is the name of an element, so that a label is no tag.
LABELS: dict[Kind, str] = {"script": "HTML_SCRIPT", "html": "HTML_TAG", "link": "UNSAFE_LINK", "image": "REMOTE_IMAGE"}
SCHEMES = frozenset({"http", "https", "mailto", "tel", "sms"})  # of links that only lead somewhere
ROUNDS = 4  # of cleaning: taking one tag out can leave another
LONGEST_LABEL = 1000  # characters of a link's words

SAFE = frozenset(nh3.ALLOWED_TAGS)
ELEMENTS = SAFE | frozenset(
    """script style iframe object embed applet form input button textarea select option optgroup datalist output label
    fieldset legend progress meter link meta base svg math video audio source track canvas frame frameset noframes
    noscript noembed template slot html head body title xmp plaintext listing portal marquee isindex keygen param image
    dialog main section address hgroup menu menuitem bgsound basefont font big blink layer picture search tfoot dir
    animate set foreignobject use desc annotation-xml maction mtext mglyph""".split()  # noqa: SIM905
)
# Attributes that run code or load something, beside those that begin with "on".
LOADING = frozenset({"style", "srcset", "background", "poster", "ping", "action", "formaction", "data", "srcdoc"})
# A whole tag, which every parser reads alike; else whatever begins like one, up to where it may end.
TAG = re2.compile(
    r"<(?P<close>/?)(?P<name>[A-Za-z][\w:.-]*)"
    r"(?P<attributes>(?:\s+[A-Za-z_:][\w:.-]*(?:\s*=\s*(?:\"[^\"]*\"|'[^']*'|[^\s\"'=<>`]+))?)*)\s*/?>"
    r"|<(?P<auto>[A-Za-z][A-Za-z0-9+.-]{1,31}:[^\s<>]*|[\w.+-]+@[\w.-]+)>"
    r"|<(?:/?(?P<broken>[A-Za-z][\w:.-]*)|[!?])[^<>]*>?"
)
ATTRIBUTE = re2.compile(r"([A-Za-z_:][\w:.-]*)(?:\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s\"'=<>`]+)))?")
HANDLER = re.compile(r"(?i)[\s/\"']on[a-z]+\s*=")
# Markdown: the target of a link or image, an image by reference, and what a reference stands for.
TARGET = re2.compile(r"\]\(\s*(<[^<>\n]*>|(?:[^\s()<>]|\([^\s()]*\))*)[^()\n]*\)?")
REFERRED = re2.compile(r"!\[([^\[\]]{0,500})\](?:\[([^\[\]]{0,500})\])?")
DEFINED = re2.compile(r"(?m)^[ >]*\[([^\[\]]{1,500})\]:\s*(<[^<>\n]*>|[^\s<>]+)")
ESCAPED = re.compile(r"\\([!-/:-@\[-`{-~])")
UNSEEN = re.compile(r"[\x00-\x20\x7f\u200b-\u200f\u2060\ufeff]+")
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")


class Markup:
    """Finds HTML, links that run code, and images of hosts that are not listed."""

    stages: ClassVar[frozenset[Stage]] = frozenset({"input", "retrieval", "tools", "output"})
    actions: ClassVar[frozenset[Then]] = frozenset({"block", "mask", "drop", "regenerate"})
    streams: ClassVar[Streams] = "whole"  # a tag that comes late can make code of what stood before

    class Config(RailConfig):
        """What may be shown."""

        html: Literal["allow", "strip", "block"] = Field(
            "strip",
            description="'allow' finds only what runs code or loads something, 'strip' finds all HTML, and 'block' "
            "blocks all HTML even where the policy says then: mask.",
        )
        images: Literal["allow", "block"] = Field(
            "block", description="What becomes of images, in Markdown or HTML, of hosts that are not listed."
        )
        hosts: list[str] = Field(
            default_factory=list,
            max_length=10_000,
            description="Domains that images may come from, with all under them, where others are blocked.",
        )

        @field_validator("hosts")
        @classmethod
        def _of_domains(cls, hosts: list[str], info: ValidationInfo) -> list[str]:
            for written in hosts:
                if not is_domain(name_of(written)):
                    raise ValueError(f"{written!r} is no domain; write 'example.org', which those under it belong to")
            if hosts and info.data.get("images") == "allow":
                raise ValueError("hosts are listed, and all images are allowed; leave out one of the two")
            return [name_of(written) for written in hosts]

    def __init__(self, config: Config, models: Models) -> None:
        self.config = config
        self.hosts = frozenset(config.hosts)

    async def check(self, turn: Turn) -> Verdict:
        """Block on anything active; the categories say what it is, the verdict's text what is left without it."""
        text = turn.text.encode("utf-8", "replace").decode()  # half of a surrogate pair has no UTF-8
        found = self._found(text)
        if not found:
            return Verdict.allow()
        kinds = tuple(dict.fromkeys(part.kind for part in found))
        detail = ", ".join(WORDS[kind] for kind in kinds)
        if self.config.html == "block" and {"html", "script"} & set(kinds):
            return Verdict.block(detail=detail, categories=kinds)
        findings = disjoint(Finding(LABELS[part.kind], part.start, part.end) for part in found)
        return Verdict.block(detail=detail, categories=kinds, findings=findings, text=self._clean(text, found))

    def _found(self, text: str) -> list["_Part"]:
        """What is active in the text, from left to right."""
        code = code_spans(text)
        tags = list(_tags(text))
        # Where HTML may stay, it decides what is code and what is not; then none passes for being code.
        if self.config.html == "allow" and _outside(tags, code):
            code = []
        parts = [_Part(kind, tag.start, tag.end) for tag in _outside(tags, code) if (kind := self._judge(tag))]
        parts += _outside(self._linked(text), code)
        return sorted(parts, key=lambda part: (part.start, -part.end))

    def _judge(self, tag: "_Tag") -> Kind | None:
        """What a tag does that it must not."""
        if tag.auto:
            return None if _leads(tag.auto) and not HANDLER.search(tag.auto) else "link"
        if tag.name not in ELEMENTS and tag.whole and not tag.attributes:
            return None  # such as <your-name>: no element, and nothing that one could do
        if tag.name not in ELEMENTS and not tag.whole and tag.name and not HANDLER.search(tag.source):
            return None  # such as x <y: less than
        if tag.name not in SAFE or not tag.whole or HANDLER.search(tag.source):
            return "script" if tag.name or self.config.html == "allow" else "html"
        for name, value in tag.attributes:
            if tag.name == "img" and name == "src" and not self._is_ours(value):
                return "image"
            if name in ("href", "src", "cite") and not _leads(value):
                return "script"
            if name.startswith("on") or name in LOADING:
                return "script"
        return None if self.config.html == "allow" else "html"

    def _is_ours(self, address: str) -> bool:
        """Whether an image may be shown."""
        address = _plain(address)
        if self.config.images == "allow":
            return _leads(address)
        scheme, slashes, rest = address.replace("\\", "/").partition("//")
        if not slashes or scheme.lower() not in ("", "http:", "https:"):
            return False
        try:
            parts = urlsplit("https://" + rest.lstrip("/"))
            host = parts.hostname or ""
        except ValueError:
            return False
        return "@" not in parts.netloc and bool(parents(name_of(host)) & self.hosts)

    def _linked(self, text: str) -> Iterator["_Part"]:
        """What Markdown's links and images lead to."""
        for match in TARGET.finditer(text):
            opened = _opening(text, match.start())
            image = opened is None or text[opened - 1 : opened] == "!"
            start = match.start() if opened is None else opened - image
            words = "" if opened is None else text[opened + 1 : match.start()]
            if not _leads(match.group(1)):
                yield _Part("link", start, match.end(), words)
            elif image and not self._is_ours(match.group(1)):
                yield _Part("image", start, match.end(), words)
        definitions: dict[str, str] = {}
        for match in DEFINED.finditer(text):
            if not _leads(match.group(2)):
                yield _Part("link", match.start(), match.end())
            definitions.setdefault(_folded(match.group(1)), match.group(2))
        for match in REFERRED.finditer(text) if definitions else ():
            address = definitions.get(_folded(match.group(2) or match.group(1)))
            if address is not None and not self._is_ours(address):
                yield _Part("image", match.start(), match.end(), match.group(1))

    def _clean(self, text: str, found: list["_Part"]) -> str | None:
        """The text with nothing active left; None where that does not come about."""
        for _ in range(ROUNDS):
            edits = [part for part in found if part.kind in ("link", "image") and part.words is not None]
            if edits:
                pieces, at = [], 0
                for part in edits:
                    if part.start >= at:
                        pieces += [text[at : part.start], part.words or ""]
                        at = part.end
                text = "".join([*pieces, text[at:]])
            else:
                text = self._sanitised(text)
            found = self._found(text)
            if not found:
                return text
        return None

    def _sanitised(self, text: str) -> str:
        """The text without HTML that must not be there; what is no tag stays as it is written."""
        code = [] if self.config.html == "allow" and _outside(list(_tags(text)), code_spans(text)) else code_spans(text)
        signs = [chr(c) for c in range(0xE000, 0xF8FF) if chr(c) not in text][:3]
        if len(signs) < 3:
            return text
        hide, show = str.maketrans("<>&", "".join(signs)), str.maketrans("".join(signs), "<>&")
        pieces, at = list[str](), 0
        for start, end in [*code, (len(text), len(text))]:
            prose, inside, reached = text[at:start], list[str](), 0
            for tag in _tags(prose):
                if (tag.auto or tag.name not in ELEMENTS) and self._judge(tag) is None:
                    continue
                inside += [prose[reached : tag.start].translate(hide), tag.source]
                reached = tag.end
            cleaned = prose
            if inside:
                inside.append(prose[reached:].translate(hide))
                cleaned = nh3.clean(
                    "".join(inside),
                    tags=set(SAFE) if self.config.html == "allow" else set(),
                    url_schemes=set(SCHEMES),
                    attribute_filter=self._kept,
                ).translate(show)
            pieces += [cleaned, text[start:end]]
            at = end
        return "".join(pieces)

    def _kept(self, tag: str, attribute: str, value: str) -> str | None:
        return None if tag == "img" and attribute == "src" and not self._is_ours(value) else value


class _Part(NamedTuple):
    """What is active in a text, and the words that may stay of it; none where it is HTML's."""

    kind: Kind
    start: int
    end: int
    words: str | None = None


class _Tag(NamedTuple):
    """A tag, or what may be read as one."""

    start: int
    end: int
    source: str
    name: str = ""  # in small letters; empty for comments and the like
    whole: bool = False  # every parser reads it alike
    attributes: tuple[tuple[str, str], ...] = ()
    auto: str = ""  # the address of Markdown's <https://example.org>


Found = TypeVar("Found", _Tag, _Part)


def _tags(text: str) -> Iterator[_Tag]:
    for match in TAG.finditer(text) if "<" in text else ():
        source, auto = match.group(), match.group("auto")
        if auto:
            yield _Tag(match.start(), match.end(), source, auto=auto)
            continue
        given = ATTRIBUTE.finditer(match.group("attributes") or "")
        attributes = tuple((a[1].lower(), html.unescape(a[2] or a[3] or a[4] or "")) for a in given)
        name = match.group("name") or match.group("broken") or ""
        yield _Tag(match.start(), match.end(), source, name.lower(), bool(match.group("name")), attributes)


def _outside(parts: Iterable[Found], code: list[tuple[int, int]]) -> list[Found]:
    """The parts that do not begin in code."""
    starts = [start for start, _ in code]
    kept = list[Found]()
    for part in parts:
        place = bisect_right(starts, part.start) - 1
        if place < 0 or part.start >= code[place][1]:
            kept.append(part)
    return kept


def _opening(text: str, close: int) -> int | None:
    """Where the bracket opens that is closed there; None where that is too far away."""
    depth = 0
    for at in range(close, max(close - LONGEST_LABEL, -1), -1):
        depth += (text[at] == "]") - (text[at] == "[")
        if not depth:
            return at
    return None


def _plain(address: str) -> str:
    """An address without what Markdown and browsers take off it."""
    return UNSEEN.sub("", html.unescape(ESCAPED.sub(r"\1", address.strip().strip("<>"))))


def _leads(address: str) -> bool:
    """Whether a link only leads somewhere."""
    scheme = SCHEME.match(_plain(address))
    return not scheme or scheme.group(1).lower() in SCHEMES or "." in scheme.group(1)


def _folded(label: str) -> str:
    return " ".join(label.split()).casefold()
