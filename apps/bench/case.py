"""What is measured: on which file, how many tokens of what, and the ratio to llama.cpp that is asked.

A case knows numbers and names. It knows nothing of who is measured.
"""

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

Work = Literal["prefill", "decode", "batch", "prefill at", "decode at", "cold"]
MARGIN = 1024  # tokens: a cache holds a multiple of these, and at least one more than it needs


@dataclass(frozen=True, slots=True)
class Source:
    """Which file: the shipped one, one derived from it, a random one, or one that the user names."""

    name: str
    quant: str = ""
    random: str = ""  # the shape, where it is a random one
    path: Path | None = None  # where the user named it
    transformers: bool = False  # whether that is a rival here too

    @property
    def title(self) -> str:
        """What rows are called by."""
        return f"{self.name} {self.quant}".strip()


@dataclass(frozen=True, slots=True)
class Case:
    """A row for each rival: what is measured on which file, and the ratio to llama.cpp that is asked."""

    source: Source
    work: Work
    tokens: int = 0  # of the prompt that are timed; of a batch, its sequences
    count: int = 0  # tokens that are written
    depth: int = 0  # tokens that are in the cache before
    floor: float | None = None
    aim: float | None = None
    most_rounds: int = 99  # of a model that takes long
    quick: bool = False  # also where there is little time

    @property
    def name(self) -> str:
        """The row's name, with its unit."""
        words = {
            "prefill": f"prefill {self.tokens}, tokens/s",
            "decode": f"decode {self.count}, tokens/s",
            "batch": f"decode, {self.tokens} sequences at once, tokens/s",
            "prefill at": f"prefill {self.tokens} at {self.depth:,} tokens of context, tokens/s",
            "decode at": f"decode {self.count} at {self.depth:,} tokens of context, tokens/s",
            "cold": f"first token of a cold process, {self.tokens}-token prompt, s",
        }
        return f"{self.source.title}: {words[self.work]}"

    @property
    def made(self) -> int:
        """Tokens that one measurement makes."""
        return {"prefill": self.tokens, "prefill at": self.tokens, "batch": self.tokens * self.count}.get(
            self.work, self.count
        )

    @property
    def is_cold(self) -> bool:
        """Whether each measurement is a process of its own."""
        return self.work == "cold"

    def warm(self) -> "Case":
        """The same with less to do, in a cache of the same size."""
        fewer = replace(self, count=min(self.count, 4))
        return replace(fewer, tokens=64) if self.work == "prefill" else fewer

    @property
    def context(self) -> int:
        """Tokens that the cache has to hold for one sequence."""
        needed = self.depth + (0 if self.work == "batch" else self.tokens) + self.count
        return (needed // MARGIN + 1) * MARGIN


SHIPPED = Source("SmolLM2-135M", "Q4_1", transformers=True)
SMALL = Source("SmolLM2-135M", "Q4_0")


def cases(*, quick: bool = False, pattern: str = "") -> list[Case]:
    """What is compared; with a pattern, the rows in whose names it occurs. Raises ValueError where none is left."""
    one, eight = "llama-3.2-1b", "llama-3.1-8b"
    every = [
        Case(SHIPPED, "prefill", 512, floor=4.0, aim=6, quick=True),
        Case(SHIPPED, "decode", count=128, floor=1.5, aim=2, quick=True),
        Case(SHIPPED, "cold", 512, floor=1.3, aim=2, quick=True),
        Case(SMALL, "prefill", 512, floor=1.8, aim=2.5, quick=True),
        Case(SMALL, "decode", count=128, floor=1.4, aim=1.8, quick=True),
        *(Case(SMALL, "batch", sequences, 32) for sequences in (1, 4, 8, 16)),
        Case(SMALL, "prefill at", 512, depth=4096, floor=3.0, aim=5),
        Case(SMALL, "decode at", count=32, depth=4608, floor=3.0, aim=5),
    ]
    for shape, title, quant, floors, aims in (
        (one, "Llama-3.2-1B shape", "Q4_0", (2.0, 1.25), (2.5, 1.4)),
        (one, "Llama-3.2-1B shape", "Q8_0", (2.0, 1.2), (3, 1.4)),
        (one, "Llama-3.2-1B shape", "Q4_K", (2.0, 1.2), (3, 1.4)),
        (eight, "Llama-3.1-8B shape", "Q4_0", (2.0, 1.3), (2.5, 1.5)),
    ):
        source, heavy = Source(title, quant, shape), shape == eight
        rounds = 3 if heavy else 99
        every.append(Case(source, "prefill", 128, floor=floors[0], aim=aims[0], most_rounds=rounds))
        every.append(
            Case(source, "decode", count=16 if heavy else 32, floor=floors[1], aim=aims[1], most_rounds=rounds)
        )
    chosen = [case for case in every if case.quick or not quick]
    return _matching(chosen, pattern)


def cases_of(model: str, path: Path, pattern: str = "") -> list[Case]:
    """The same for a model that the user names. Raises ValueError as `cases` does."""
    source = Source(model, path=path, transformers=True)
    return _matching([Case(source, "prefill", 512), Case(source, "decode", count=128)], pattern)


def _matching(every: Sequence[Case], pattern: str) -> list[Case]:
    chosen = [case for case in every if fnmatch.fnmatch(case.name.lower(), f"*{pattern.lower()}*")]
    if not chosen:
        names = "".join(f"\n  {case.name}" for case in every)
        raise ValueError(f"no row's name has {pattern!r} in it; they are:{names}")
    return chosen
