r"""Where in a text that is still being written a match may have begun that is not complete, or may yet grow.

From a pattern another one is made that matches every beginning of what the pattern matches: of `ab+c` that is
`(?:a(?:b*(?:c)?)?)?`. Anchored to the end of the text and searched from the left, it finds the first place from which
the text could still become a match. What stands before is settled. Patterns are RE2's
(https://github.com/google/re2/wiki/Syntax), and so is the time: linear.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import re2

LONGEST = 20_000  # characters of a pattern of beginnings
ZERO_WIDTH = ("\\b", "\\B", "\\A", "\\z", "^", "$")


class Beginnings:
    """The beginnings of what any of the patterns matches."""

    def __init__(self, patterns: Sequence[str], *, ignore_case: bool = False) -> None:
        """Raises ValueError where the beginnings of a pattern cannot be told, such as those of single bytes."""
        options = re2.Options()
        options.case_sensitive = not ignore_case
        options.log_errors = False
        beginnings = "|".join(_Reader(pattern).read().beginnings() for pattern in patterns)
        if len(beginnings) > LONGEST:
            raise ValueError(f"the beginnings of these patterns take {len(beginnings)} characters")
        try:
            self.pattern = re2.compile(rf"(?:{beginnings})\z", options)
        except re2.error as error:
            raise ValueError(str(error)) from None

    def start(self, text: str) -> int:
        """From where on what follows the text can still make or change a match; the text's length where it cannot."""
        return int(self.pattern.search(text).start())


@dataclass(frozen=True, slots=True)
class _Atom:
    """One character, of a kind that `source` says; or none, where it only looks at what stands around."""

    source: str
    width: int = 1

    def whole(self) -> str:
        return self.source

    def beginnings(self) -> str:
        return f"{self.source}?" if self.width else ""


@dataclass(frozen=True, slots=True)
class _Sequence:
    """One after the other."""

    parts: tuple[Any, ...]  # Any: these classes have no common name

    def whole(self) -> str:
        return "".join(part.whole() for part in self.parts)

    def beginnings(self) -> str:
        found = ""
        for part in reversed(self.parts):
            # Either it ends inside this part, or this part is whole and it ends in what follows.
            if isinstance(part, _Atom):
                found = f"(?:{part.whole()}{found})?"
            else:
                found = f"(?:{part.beginnings()}|{part.whole()}{found})"
        return found


@dataclass(frozen=True, slots=True)
class _Choice:
    """One or the other."""

    options: tuple[_Sequence, ...]

    def whole(self) -> str:
        return f"(?:{'|'.join(option.whole() for option in self.options)})"

    def beginnings(self) -> str:
        return f"(?:{'|'.join(option.beginnings() for option in self.options)})"


@dataclass(frozen=True, slots=True)
class _Repeated:
    """So many times; without `most` without end."""

    part: Any  # Any: as above
    least: int
    most: int | None

    def whole(self) -> str:
        most = "" if self.most is None else str(self.most)
        return f"(?:{self.part.whole()}){{{self.least},{most}}}"

    def beginnings(self) -> str:
        if self.most == 0:
            return ""
        before = "*" if self.most is None else f"{{0,{self.most - 1}}}"
        return f"(?:(?:{self.part.whole()}){before}(?:{self.part.beginnings()}))"


class _Reader:
    """Reads a pattern that RE2 has accepted."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.at = 0

    def read(self) -> _Choice:
        choice = self._choice("")
        if self.at < len(self.pattern):
            raise ValueError(f"unexpected {self.pattern[self.at]!r}")
        return choice

    def _choice(self, flags: str) -> _Choice:
        options: list[_Sequence] = []
        parts: list[Any] = []  # Any: as above
        while self.at < len(self.pattern) and self.pattern[self.at] != ")":
            if self.pattern[self.at] == "|":
                self.at += 1
                options.append(_Sequence(tuple(parts)))
                parts = []
            elif self.pattern.startswith("(?", self.at) and self._flags_end() is not None:
                flags = self._flags(flags)
            elif self.pattern.startswith("\\Q", self.at):
                end = self.pattern.find("\\E", self.at)
                end = len(self.pattern) if end < 0 else end
                letters = [_Atom(_scoped(re2.escape(c), flags)) for c in self.pattern[self.at + 2 : end]]
                self.at = end + 2
                parts += [*letters[:-1], *(self._repeated(last) for last in letters[-1:])]
            else:
                parts.append(self._repeated(self._part(flags)))
        return _Choice((*options, _Sequence(tuple(parts))))

    def _part(self, flags: str) -> Any:  # Any: as above
        sign = self.pattern[self.at]
        if sign == "(":
            return self._group(flags)
        start = self.at
        if sign == "[":
            self.at = self._class_end()
        elif sign == "\\":
            self.at = self._escape_end(self.at)
        else:
            self.at += 1
        source = self.pattern[start : self.at]
        if source == "\\C":
            raise ValueError("a single byte has no beginnings that are text")
        return _Atom(_scoped(source, flags), 0 if source in ZERO_WIDTH else 1)

    def _group(self, flags: str) -> _Choice:
        """A group in brackets, named or not, with flags of its own or not."""
        self.at += 1
        if self.pattern.startswith("?", self.at):
            mark = self.pattern[self.at + 1]
            if mark in "P<":
                self.at = self.pattern.index(">", self.at) + 1
            else:
                end = self.pattern.index(":", self.at)
                flags += self.pattern[self.at + 1 : end] and f",{self.pattern[self.at + 1 : end]}"
                self.at = end + 1
        inside = self._choice(flags)
        self.at += 1  # the closing bracket
        return inside

    def _flags_end(self) -> int | None:
        """Where `(?i)` ends, which holds for the rest of its group; None where this is something else."""
        end = self.at + 2
        while end < len(self.pattern) and self.pattern[end] in "imsU-":
            end += 1
        return end if self.pattern[end : end + 1] == ")" else None

    def _flags(self, flags: str) -> str:
        end = self._flags_end()
        assert end is not None
        flags += f",{self.pattern[self.at + 2 : end]}"
        self.at = end + 1
        return flags

    def _repeated(self, part: Any) -> Any:  # Any: as above
        while self.at < len(self.pattern):
            sign = self.pattern[self.at]
            counts = {"*": (0, None), "+": (1, None), "?": (0, 1)}.get(sign)
            end = self.at + 1
            if sign == "{" and (match := COUNTS.match(self.pattern, self.at)):
                least, comma, most = match.groups()
                counts = int(least), int(most) if most else (None if comma else int(least))
                end = match.end()
            if counts is None:
                return part
            self.at = end + (self.pattern[end : end + 1] == "?")
            part = _Repeated(part, *counts)
        return part

    def _class_end(self) -> int:
        """Where the class of characters ends that begins here."""
        at = self.at + 1 + self.pattern.startswith("^", self.at + 1)
        at += self.pattern.startswith("]", at)
        while self.pattern[at] != "]":
            if self.pattern.startswith("[:", at) and (end := self.pattern.find(":]", at)) > 0:
                at = end + 2
            else:
                at = self._escape_end(at) if self.pattern[at] == "\\" else at + 1
        return at + 1

    def _escape_end(self, at: int) -> int:
        """Where the escape ends that begins at `at`."""
        match = ESCAPE.match(self.pattern, at)
        return int(match.end()) if match else at + 2


COUNTS = re2.compile(r"\{(\d+)(,?)(\d*)\}")
ESCAPE = re2.compile(r"\\(?:[pP](?:\{[^}]*\}|.)|x(?:\{[^}]*\}|..)|[0-7]{1,3})")


def _scoped(source: str, flags: str) -> str:
    """The source with the flags that hold where it stands."""
    for flag in reversed([flag for flag in flags.split(",") if flag]):
        source = f"(?{flag}:{source})"
    return source
