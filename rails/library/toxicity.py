"""Toxicity: ask a judge of tone whether a message insults, threatens or abuses somebody.

The model is one that answers `safe` or `toxic`, with the kinds in a second line: the embedded `minilm-toxicity`. What
is asked for is not judged here, only how it is said: a polite request for something harmful is for `hazards`.
"""

from typing import ClassVar

from pydantic import Field

from trackbed.llm.types import Message, SamplingParams
from trackbed.rails.config import ModelName, RailConfig
from trackbed.rails.errors import RailFailed
from trackbed.rails.library.opinion import SAFE, share
from trackbed.rails.types import Models, Stage, Streams, Then, Turn, Verdict

TOXIC = "toxic"
ANSWER = SamplingParams(temperature=0.0, max_tokens=32)
WORDS = {"insult": "an insult", "threat": "a threat", "identity_attack": "an attack on a group of people"}
RUDE = "toxic language"


class Toxicity:
    """Blocks what a judge of tone calls toxic."""

    stages: ClassVar[frozenset[Stage]] = frozenset({"input", "retrieval", "tools", "output"})
    streams: ClassVar[Streams] = "prefix"
    calls: ClassVar[int] = 2  # about one text: its score, and which kinds it is of
    actions: ClassVar[frozenset[Then]] = frozenset({"block", "drop", "regenerate"})

    class Config(RailConfig):
        """Which model is asked, and when to believe it."""

        model: ModelName = Field("toxicity", description="The policy's name of a judge of tone: minilm-toxicity.")
        threshold: float = Field(
            0.5, gt=0, le=1, description="The probability of `toxic` from which a text is; lower blocks more."
        )

    def __init__(self, config: Config, models: Models) -> None:
        self.threshold = config.threshold
        self.judge = models.generators[config.model]

    async def check(self, turn: Turn) -> Verdict:
        """Judge the text by itself. Raises RailFailed where an answer cannot be read, and what the model raises."""
        if not turn.text.strip():
            return Verdict.allow()
        prompt = (Message("user", turn.text),)
        score = await share(self.judge, prompt, TOXIC)
        if score < self.threshold:
            return Verdict.allow(score=score)
        kinds = _kinds((await self.judge.generate(prompt, ANSWER)).text)
        detail = ", ".join(WORDS[kind] for kind in kinds if kind in WORDS) or RUDE
        return Verdict.block(detail=detail, categories=kinds or (TOXIC,), score=score)


def _kinds(answer: str) -> tuple[str, ...]:
    """The kinds that an answer names; none where it names none. Raises RailFailed where it is no answer.

    >>> _kinds("toxic\\ninsult, threat"), _kinds("toxic"), _kinds("safe")
    (('insult', 'threat'), (), ())
    """
    match answer.replace(",", " ").split():
        case [word, *kinds] if word in (TOXIC, SAFE):
            return tuple(dict.fromkeys(kinds)) if word == TOXIC else ()
    raise RailFailed("the judge answered neither 'safe' nor 'toxic'")
