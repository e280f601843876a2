"""Urls: object to links that lead where they should not, however they are written.

A link is a URL, the target of a Markdown link, or a domain that stands alone. Its host is judged as browsers read it,
with `urllib.parse`: what stands before an @ is no host, a backslash is a slash, and Punycode is what it shows. This
file knows where links stand in a text; what hosts are, and which look alike, is in `domains.py`. Nothing is fetched.
"""

import re
from collections.abc import Iterator
from typing import ClassVar, Literal, NamedTuple
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from trackbed.rails.config import RailConfig
from trackbed.rails.library.domains import DOTS, imitates, is_address, is_domain, likeness, name_of, parents
from trackbed.rails.library.spans import disjoint, fold
from trackbed.rails.types import Models, Stage, Streams, Then, Turn, Verdict

Kind = Literal["scheme", "user_info", "address", "denied", "lookalike", "not_allowed", "malformed"]
WORDS: dict[Kind, str] = {
    "scheme": "a link that is not one of the web",
    "user_info": "a link that hides its host behind a name",
    "address": "a link to an IP address",
    "denied": "a link to a denied domain",
    "lookalike": "a link to a domain that looks like an allowed one",
    "not_allowed": "a link to a domain that is not allowed",
    "malformed": "a link that cannot be read",
}
LABEL = "URL"
LONGEST_HOST = 2048  # characters of a URL in which its host has to be found

# What holds no white space and no sign that ends a URL, unless an @ follows it: then it is in a name before the host.
TOKEN = re.compile(r"(?:[^\s<>\"`{}|']|'(?=[\w@%/-])|[\"`{}|](?=[^\s<>,;:/?#]{0,64}@))+")
# Where a URL begins: before `//`, in a Markdown link, or with a scheme that needs no slashes.
SCHEME = re.compile(
    r"(?i)(?<=\]\()(?:[a-z][a-z0-9+.-]{0,30}:(?=[^\s:])|(?=[/\\]{2}))|(?<=[\"'=])(?=//[\w-])"
    r"|(?<![a-z0-9+.-])[a-z][a-z0-9+.-]{0,30}:(?=[/\\]{2})|https?:(?=[/\\]|[\w-]+\.[\w-])"
    r"|(?<![a-z0-9])(?:(?:javascript|vbscript|view-source):(?=[^\s:])|data:(?=[\w.+-]*/[\w.+-]*[;,])"
    r"|(?:file|intent|filesystem|blob):(?=[/\\h])|mailto:(?=[^\s:]+@)|(?:tel|sms):(?=[+(]?[0-9]))"
)
GLUED = re.compile(r"(?<=[a-z0-9+.-])https?\Z")
SLASHES = re.compile(r"[/\\]*")
BARE = re.compile(r"(?<![\w@.\-/])[^\W_](?:[\w-]{0,61}[^\W_])?(?:\.[^\W_](?:[\w-]{0,61}[^\W_])?)+(?![\w@-])")
AFTER_HOST = re.compile(r"(?::[0-9]{1,5})?(?:[/?#]\S*)?")
OPEN, CLOSE = "([", ")]"
TRAILING = ".,;:!?'*_~’”»"
# Top-level domains that tell a host which stands alone from `node.js` and from a missing space; and words that are
# some too, which only a path tells.
ENDINGS = frozenset(
    """com org net edu gov mil int biz xyz io ai co tv uk de fr nl eu ru cn jp br au ca ch dk fi pt gr cz hu ro ua tr kr
    tw hk sg nz za mx ar cl su tk ga cf gq icu example""".split()  # noqa: SIM905
)
WORDY = frozenset(
    """info name pro app dev cloud online site shop store tech top club live blog news website space link click page
    email support help world today agency digital global finance bank money test it es se be at me ly gl to""".split()  # noqa: SIM905
)


class Urls:
    """Finds links by where they lead."""

    stages: ClassVar[frozenset[Stage]] = frozenset({"input", "retrieval", "tools", "output"})
    actions: ClassVar[frozenset[Then]] = frozenset({"block", "mask", "drop", "regenerate"})
    streams: ClassVar[Streams] = "spans"

    class Config(RailConfig):
        """Where links may lead."""

        allow: list[str] = Field(
            default_factory=list, max_length=10_000, description="Domains that links may lead to, with all under them."
        )
        deny: list[str] = Field(
            default_factory=list,
            max_length=10_000,
            description="Domains that no link may lead to, with all under them; it goes before allow.",
        )
        others: Literal["block", "allow"] = Field(
            "block", description="What becomes of domains on neither list, where there is a list of allowed ones."
        )
        lookalikes: Literal["block", "allow"] = Field(
            "block", description="What becomes of domains that look like an allowed one, and are not listed themselves."
        )
        schemes: list[str] = Field(
            default_factory=lambda: ["http", "https"],
            min_length=1,
            description="The schemes that links may have, such as mailto beside http and https.",
        )

        @field_validator("allow", "deny")
        @classmethod
        def _of_domains(cls, listed: list[str]) -> list[str]:
            for written in listed:
                if not is_domain(name_of(written)):
                    raise ValueError(f"{written!r} is no domain; write 'example.org', which those under it belong to")
            return [name_of(written) for written in listed]

        @field_validator("schemes")
        @classmethod
        def _of_schemes(cls, listed: list[str]) -> list[str]:
            for written in listed:
                if not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]{0,30}", written):
                    raise ValueError(f"{written!r} is no scheme of URLs; write 'https', without a colon")
            return [written.lower() for written in listed]

    def __init__(self, config: Config, models: Models) -> None:
        self.config = config
        self.allow, self.deny = frozenset(config.allow), frozenset(config.deny)
        self.listed = self.allow | self.deny
        self.looks = frozenset(likeness(domain) for domain in config.allow)
        self.endings = ENDINGS | {domain.rpartition(".")[2] for domain in (*config.allow, *config.deny)}

    async def check(self, turn: Turn) -> Verdict:
        """Block on any link that may not be there; the categories say why, the findings where."""
        folded = fold(turn.text)
        text = folded.text.translate(DOTS)
        found = list(self._found(text))
        if not found:
            return Verdict.allow()
        kinds: dict[Kind, None] = dict.fromkeys(kind for kind, _, _ in found)
        findings = disjoint(folded.finding(LABEL, start, end) for _, start, end in found)
        detail = ", ".join(WORDS[kind] for kind in kinds)
        return Verdict.block(detail=detail, categories=tuple(kinds), findings=findings)

    def held(self, turn: Turn) -> int:
        """Where the last piece without white space begins: only there can a link still begin, or grow."""
        folded = fold(turn.text)
        at = len(folded.text)
        while at and not folded.text[at - 1].isspace():
            at -= 1
        return folded.origin(at)

    def _found(self, text: str) -> Iterator[tuple[Kind, int, int]]:
        """Why a link is objected to, and where it stands. What is part of one that is found is not judged again."""
        for token in TOKEN.finditer(text):
            reached = token.start()
            for link in self._links(text, token.start(), token.end()):
                if link.start >= reached and (kind := self._judge(link)):
                    reached = _closed(text, link.start, token.end())
                    yield kind, link.start, _trimmed(text, link.start, reached)

    def _links(self, text: str, start: int, end: int) -> Iterator["_Link"]:
        """The links of a piece of text without white space, from left to right."""
        begins = [match.span() for match in SCHEME.finditer(text, start, end)]
        yield from self._bare(text, start, begins[0][0] if begins else end)
        for (at, colon), (following, _) in zip(begins, [*begins[1:], (end, end)], strict=False):
            scheme = text[at : max(colon - 1, at)].lower()
            if glued := GLUED.search(scheme):  # `seehttps://` is a word and a link
                at, scheme = at + glued.start(), glued.group()
            until = _closed(text, at, following)
            yield _Link(scheme, text[at:until], at)
            yield from self._bare(text, until, following)

    def _bare(self, text: str, start: int, end: int) -> Iterator["_Link"]:
        """Domains that stand without a scheme, with what follows of a path."""
        at = start
        while match := BARE.search(text, at, end):
            rest = AFTER_HOST.match(text, match.end(), end)
            at = max(_closed(text, match.start(), rest.end() if rest else match.end()), match.end())
            if self._is_host(match.group(), text[match.end() : at]):
                yield _Link("", text[match.start() : at], match.start())

    def _is_host(self, written: str, rest: str) -> bool:
        """Whether words with dots between them are a domain's."""
        name = name_of(written)
        if (name.startswith("www.") and name.count(".") > 1) or parents(name) & self.listed:
            return True
        ending = name.rpartition(".")[2]
        cased = written.rpartition(".")[2]
        return (cased.islower() or written.isupper()) and (
            ending in self.endings or (ending in WORDY and rest.startswith("/"))
        )

    def _judge(self, link: "_Link") -> Kind | None:
        """Why the link may not be there; None where it may."""
        if link.scheme and link.scheme not in self.config.schemes:
            return "scheme"
        if link.scheme not in ("", "http", "https"):
            return None
        scheme_end = len(link.scheme) + 1 if link.scheme else 0
        slashes = SLASHES.match(link.text, scheme_end)
        assert slashes
        # Browsers take a backslash for a slash, and any number of slashes before a host for two.
        rest = link.text[slashes.end() : slashes.end() + LONGEST_HOST].replace("\\", "/")
        try:
            parts = urlsplit("https://" + rest)
            host, named = parts.hostname or "", "@" in parts.netloc
            _ = parts.port
        except ValueError:
            return "malformed"
        name = name_of(host)
        if named:
            return "user_info"
        if "[" in parts.netloc or is_address(name):
            return "address"
        return self._judge_name(name) if name else None

    def _judge_name(self, name: str) -> Kind | None:
        domains = parents(name)
        if domains & self.deny:
            return "denied"
        if not self.allow or domains & self.allow:
            return None
        if self.config.lookalikes == "block" and imitates(name, self.allow, self.looks):
            return "lookalike"
        if not is_domain(name):
            return "malformed"
        return "not_allowed" if self.config.others == "block" else None


class _Link(NamedTuple):
    """A link in a text, whose host is in `text`."""

    scheme: str  # in small letters; empty for a link without one
    text: str  # up to where another begins
    start: int


def _closed(text: str, start: int, end: int) -> int:
    """Where a link ends at the latest: before a bracket that closes what was opened before it."""
    depth = 0
    for at in range(start, end):
        if text[at] in OPEN:
            depth += 1
        elif text[at] in CLOSE:
            depth -= 1
            if depth < 0:
                return at
    return end


def _trimmed(text: str, start: int, end: int) -> int:
    """Where a link ends, without the punctuation of the sentence that it stands in."""
    while end > start + 1 and text[end - 1] in TRAILING:
        end -= 1
    return end
