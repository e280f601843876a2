"""A typed value that a conversation carries: what fits it, and how an answer in words becomes one.

This file knows types and patterns. It knows nothing of where values come from or who reads them.
"""

import re
from dataclasses import dataclass
from typing import Literal

import re2

from trackbed.rails.types import Value

MAX_TEXT = 1000  # characters of a value that a conversation keeps

INTEGER = re.compile(r"[-+]?[0-9]{1,15}")
NUMBER = re.compile(r"[-+]?[0-9]{1,15}(\.[0-9]{1,15})?")
BOOLEAN = {"yes": True, "y": True, "true": True, "no": False, "n": False, "false": False}


@dataclass(frozen=True, slots=True)
class Variable:
    """A value that a turn may carry, for conditions and templates to read."""

    type: Literal["string", "number", "integer", "boolean"]
    pattern: str | None = None  # RE2; the whole of a string matches it
    default: str | float | bool | None = None  # None: there is no default

    def mistake(self, value: object) -> str:
        """Why a value does not fit; empty when it does."""
        kinds = {"string": str, "number": int | float, "integer": int, "boolean": bool}
        if not isinstance(value, kinds[self.type]) or (isinstance(value, bool) and self.type != "boolean"):
            return f"its value is not of type {self.type}"
        if self.pattern is not None and not _matches(self.pattern, str(value)):
            return f"its value does not match {self.pattern!r}"
        return ""

    @property
    def open(self) -> bool:
        """Whether any words fit, so that fitting says nothing about what they are meant for."""
        return self.type == "string" and self.pattern is None

    def read(self, words: str) -> Value | None:
        """The value that an answer in words gives; None where it does not fit.

        >>> Variable("number").read(" 12.50 ")
        12.5
        """
        words = words.strip()
        if not words or len(words) > MAX_TEXT:
            return None
        if self.type == "boolean":
            return BOOLEAN.get(words.rstrip(".!").lower())
        if self.type == "integer":
            return int(words) if INTEGER.fullmatch(words) else None
        if self.type == "number":
            return float(words) if NUMBER.fullmatch(words) else None
        return None if self.mistake(words) else words


def _matches(pattern: str, text: str) -> bool:
    try:
        return re2.fullmatch(pattern, text) is not None
    except UnicodeEncodeError:  # half a character: nothing that a pattern speaks of
        return False
