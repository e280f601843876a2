"""Regular expressions that a policy writes: RE2's, so that a match takes linear time, and of bounded size.

A short pattern can be a large program, as in `(\\pL\\pN){300}`, so a policy's are bounded one by one and together.
"""

from dataclasses import dataclass
from typing import Any

import re2

MAX_MEMORY = 1_048_576  # bytes of one pattern
MAX_SIZE = 400_000  # instructions of all patterns of a policy; \pL has about 1,200, and a letter has 1


@dataclass(slots=True)
class PatternBudget:
    """How large the patterns of one policy may be together; kept while it is read."""

    size: int = 0  # instructions so far

    def compile(self, pattern: str, ignore_case: bool = False) -> Any:  # Any: re2 has no types
        """An RE2 pattern. Raises ValueError, as `compile_pattern` does and where all are too large together."""
        # The one that is too much is compiled, and none after it.
        found = compile_pattern(pattern, ignore_case) if self.size <= MAX_SIZE else None
        self.size += found.programsize if found else 0
        if self.size > MAX_SIZE:
            raise ValueError(f"pattern {pattern!r}: with it, the patterns of this policy are too large together")
        return found


def compile_pattern(pattern: str, ignore_case: bool = False) -> Any:  # Any: re2 has no types
    """An RE2 pattern. Raises ValueError that names the pattern and RE2's reason."""
    options = re2.Options()
    options.case_sensitive = not ignore_case
    options.max_mem = MAX_MEMORY
    options.log_errors = False  # the error says it all
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else error
        raise ValueError(
            f"pattern {pattern!r}: {reason}. Patterns are RE2's, which matches in linear time and so has "
            "no look-around and no back-references: https://github.com/google/re2/wiki/Syntax"
        ) from None
