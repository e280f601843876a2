"""Topics: keep to the subjects that a policy gives examples of, or away from them.

A text is as near to a topic as to the nearest of its examples, in the vectors of the embedder. Long texts are read in
pieces, since an embedder does not read the end of a text that is too long; each piece has to pass.
"""

import asyncio
import math
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints, model_validator

from trackbed.rails.config import RailConfig
from trackbed.rails.errors import PolicyError, RailFailed
from trackbed.rails.types import Models, Stage, Streams, Then, Turn, Verdict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

OFF_TOPIC = "off_topic"
SMALLTALK = (
    "hello",
    "good morning",
    "how are you?",
    "who are you?",
    "what can you do?",
    "can you help me?",
    "thank you, that helps",
    "ok",
    "yes please",
    "no, thanks",
    "goodbye",
)
PIECE = 600  # characters, which is well below what the usual embedders read
OVERLAP = 100  # characters that two pieces share, so that nothing is lost at a cut

Example = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=PIECE)]
Examples = dict[str, Annotated[list[Example], Field(min_length=1)]]


class Topics:
    """Tells by likeness to examples what a text is about."""

    stages: ClassVar[frozenset[Stage]] = frozenset({"input", "retrieval", "output"})
    streams: ClassVar[Streams] = "whole"
    actions: ClassVar[frozenset[Then]] = frozenset({"block", "drop", "regenerate"})

    class Config(RailConfig):
        """What a text may be about, and what it may not."""

        allow: Examples = Field({}, description="Topics with examples of each; what is near none of them is blocked.")
        block: Examples = Field({}, description="Topics with examples of each; what is near one of them is blocked.")
        threshold: float = Field(
            0.3,
            gt=0,
            lt=1,
            description="The cosine from which a text is about a topic; it depends on the embedder.",
        )
        smalltalk: Literal["allow", "block"] = Field(
            "allow", description="Whether English greetings and thanks pass where `allow` names other topics."
        )

        @model_validator(mode="after")
        def _of_something(self) -> "Topics.Config":
            if not self.allow and not self.block:
                raise ValueError("topics needs 'allow' or 'block', a topic with examples in it")
            if both := self.allow.keys() & self.block.keys():
                raise ValueError(f"{min(both)!r} is both allowed and blocked")
            return self

    def __init__(self, config: Config, models: Models) -> None:
        if models.embedder is None:
            raise PolicyError("the rail 'topics' compares meanings; give the pipeline an embedder")
        self.config = config
        self.embedder = models.embedder
        allowed = config.allow
        if allowed and config.smalltalk == "allow" and "smalltalk" not in config.block:
            allowed = allowed | {"smalltalk": [*SMALLTALK, *allowed.get("smalltalk", ())]}
        topics = [*allowed.items(), *config.block.items()]
        self.examples = [example for _, given in topics for example in given]
        self.names = [name for name, given in topics for _ in given]
        self.allowed = sum(map(len, allowed.values()))  # examples; those of blocked topics come after them
        self.lock = threading.Lock()
        self.vectors: NDArray[np.float32] | None = None  # of the examples: [examples, dimension]

    async def check(self, turn: Turn) -> Verdict:
        """Block what is about a blocked topic, or about none that is allowed. Raises what the embedder raises.

        Of an allowed and a blocked topic the nearer one decides, and of two that are as near the blocked one.
        """
        if not turn.text.strip():
            return Verdict.allow()
        return await asyncio.get_running_loop().run_in_executor(None, self._judge, turn.text)

    def _judge(self, text: str) -> Verdict:
        with self.lock:  # turns may run on several event loops; the first embeds the examples for all
            if self.vectors is None:
                self.vectors = self.embedder.embed(self.examples)
        scores = self.embedder.embed(_pieces(text)) @ self.vectors.T  # [pieces, examples]
        verdicts = [self._about(row) for row in scores]
        return max(verdicts, key=lambda verdict: (verdict.action == "block", verdict.score or 0.0))

    def _about(self, scores: "NDArray[np.float32]") -> Verdict:
        """What one piece is about; the score of a block is how near it is to what is blocked, or far from the rest."""
        if not math.isfinite(float(scores.sum())):
            raise RailFailed("the embedder gives no finite likeness")
        near = float(scores[: self.allowed].max()) if self.allowed else 0.0
        bad = float(scores[self.allowed :].max()) if self.allowed < len(scores) else 0.0
        if bad >= self.config.threshold and bad >= near:
            topic = self.names[self.allowed + int(scores[self.allowed :].argmax())]
            return Verdict.block(detail=topic, categories=(topic,), score=_share(bad))
        if not self.allowed:
            return Verdict.allow(score=_share(bad))
        if near < self.config.threshold:
            return Verdict.block(detail="off topic", categories=(OFF_TOPIC,), score=_share(1 - near))
        topic = self.names[int(scores[: self.allowed].argmax())]
        return Verdict.allow(categories=(topic,), score=_share(1 - near))


def _pieces(text: str) -> Sequence[str]:
    """The text, or, where it is long, pieces of it that overlap and end between words where they can."""
    pieces, at = [], 0
    while len(text) - at > PIECE:
        space = text.rfind(" ", at + PIECE // 2, at + PIECE)
        end = space if space > 0 else at + PIECE
        pieces.append(text[at:end])
        at = end - OVERLAP
    return [*pieces, text[at:]]


def _share(score: float) -> float:
    """A cosine as a score from 0 to 1."""
    return round(min(max(score, 0.0), 1.0), 4)
