"""The work that both sides are given: the same texts, patterns and paces, so that a row compares engines alone."""

from dataclasses import asdict, dataclass
from typing import Any

LONG = "begin " + "private " * 300 + "end"  # longer than any window that a stream may look through
FILLER = [f"word{i}" for i in range(250)]


@dataclass(frozen=True, slots=True)
class Work:
    """What is asked, what the instant model answers, and what rails look for."""

    question: str = "tell me something nice"
    answer: str = "Here is a helpful answer about the topic."
    patterns: tuple[str, ...] = (r"\b\d{3}-\d{2}-\d{4}\b", "secret")
    forbidden: str = "forbidden"  # what the rails in Python look for
    long_pattern: str = r"\bbegin( private)+ end\b"
    greeting: str = "hello friend"  # near an example of an intent, and none itself
    crowd: int = 50  # turns at once
    wait: float = 0.05  # seconds that a slow judge takes
    pace: float = 0.002  # seconds between the tokens of a streamed answer
    hold_back: int = 24  # tokens
    streamed: str = " ".join(FILLER)
    # Answers with a stretch that may not leave: one word, and one that only its last word makes a match.
    leaky: tuple[tuple[str, str], ...] = (
        (" ".join([*FILLER, "forbidden", *FILLER]), "forbidden"),
        (" ".join([*FILLER, LONG, *FILLER]), LONG),
    )
    rails: int = 30  # of the policy whose loading is timed

    def as_json(self) -> dict[str, Any]:  # Any: a JSON value
        """The work for the rival's process."""
        return asdict(self)


def leaked(released: str, answer: str, forbidden: str) -> int:
    """How many characters of the stretch that may not leave did so, where `released` is how the answer began."""
    start = answer.index(forbidden)
    shown = next((i for i, (a, b) in enumerate(zip(released, answer, strict=False)) if a != b), None)
    shown = min(len(released), len(answer)) if shown is None else shown
    return max(0, min(shown - start, len(forbidden)))
