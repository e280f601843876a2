"""What models and the index answer while a turn runs, noted word for word, so that the turn can be run again.

Wrap the models and the index that a pipeline is given, and run the turn inside `noted`. As with the meter of a turn,
a context variable says which turn an answer belongs to: the models are shared by all of them.
"""

import hashlib
import json
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from trackbed.llm.types import Completion, Delta, FinishReason, Generator, Prompt, RawPrompt, SamplingParams, Usage
from trackbed.rails.types import Models
from trackbed.retrieval.found import Found, find
from trackbed.retrieval.types import Passage, Query, Retriever


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model answered to a prompt."""

    model: str  # its source, since names are a policy's own
    prompt: str  # `prompt_digest`
    text: str | None = None
    finish_reason: FinishReason | Literal["cut"] | None = None  # cut: given up before its end
    usage: Usage | None = None
    scores: tuple[float, ...] | None = None  # of the continuations that were asked about
    error: str = ""  # the kind of exception, where it could not answer


@dataclass(frozen=True, slots=True)
class Search:
    """What an index found."""

    index: str
    query: str
    k: int  # how many passages were asked for
    passages: tuple[Passage, ...]
    among: str = ""  # `among_digest`


@dataclass(slots=True)
class Notes:
    """What was answered in one turn."""

    answers: list[Answer] = field(default_factory=list)
    searches: list[Search] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The notes as JSON values."""
        answers = [asdict(a) | {"usage": a.usage and a.usage._asdict()} for a in self.answers]
        return {"answers": answers, "searches": [asdict(search) for search in self.searches]}


NOTES: ContextVar[Notes | None] = ContextVar("notes", default=None)


@contextmanager
def noted() -> Iterator[Notes]:
    """Note what recorded models and indexes answer inside."""
    notes = Notes()
    token = NOTES.set(notes)
    try:
        yield notes
    finally:
        NOTES.reset(token)


def recorded(models: Models, sources: Mapping[str, str], drafts: str = "") -> Models:
    """The models, whose answers are noted; `sources` are a policy's `models`, `drafts` is what answers."""
    generators = {name: Recorded(model, sources.get(name, name)) for name, model in models.generators.items()}
    return replace(models, generators=generators, answering=models.answering and Recorded(models.answering, drafts))


def prompt_digest(prompt: Prompt, asked: SamplingParams | Sequence[str]) -> str:
    """Names a prompt, and how it is to be continued: the same only where a model could not tell the difference."""
    if isinstance(prompt, RawPrompt):
        written: list[tuple[str, object]] = [(part.text, part.markup) for part in prompt.parts]
    else:
        written = [(message.role, message.content) for message in prompt]
    how = _how(asked) if isinstance(asked, SamplingParams) else list(asked)
    whole = json.dumps([isinstance(prompt, RawPrompt), written, how], sort_keys=True)
    return hashlib.sha256(whole.encode()).hexdigest()[:32]


def _how(params: SamplingParams) -> dict[str, object]:
    """The parameters by name; choices only where there are some, so that what was noted without them still counts."""
    how = asdict(params)
    return how if params.choices else {name: value for name, value in how.items() if name != "choices"}


def among_digest(query: Query) -> str:
    """Names what a query looks among, and its other words; empty where that is all that everybody may read."""
    if not (query.principals or query.filter or query.also):
        return ""
    conditions = {key: [type(condition).__name__, *condition] for key, condition in query.filter.items()}
    whole = json.dumps([sorted(query.principals), conditions, query.also], sort_keys=True)
    return hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class Recorded:
    """A generator whose answers are noted for the turn that asks."""

    def __init__(self, generator: Generator, source: str) -> None:
        self.generator = generator
        self.source = source

    async def generate(self, prompt: Prompt, params: SamplingParams) -> Completion:
        """As the generator does."""
        with self._failure(prompt_digest(prompt, params)) as answer:
            completion = await self.generator.generate(prompt, params)
        _note(_completed(answer, completion))
        return completion

    async def stream(self, prompt: Prompt, params: SamplingParams) -> AsyncGenerator[Delta, None]:
        """As the generator does."""
        pieces: list[str] = []
        completion = None
        with self._failure(prompt_digest(prompt, params)) as answer:
            try:
                async with aclosing(self.generator.stream(prompt, params)) as deltas:
                    async for delta in deltas:
                        pieces.append(delta.text)
                        completion = delta.completion or completion
                        if delta.completion:
                            _note(_completed(answer, delta.completion))
                        yield delta
            except GeneratorExit:
                if completion is None:
                    _note(replace(answer, text="".join(pieces), finish_reason="cut"))
                raise

    async def score(self, prompt: Prompt, continuations: Sequence[str]) -> tuple[float, ...]:
        """As the generator does."""
        with self._failure(prompt_digest(prompt, continuations)) as answer:
            scores = await self.generator.score(prompt, continuations)
        _note(replace(answer, scores=scores))
        return scores

    @contextmanager
    def _failure(self, prompt: str) -> Iterator[Answer]:
        """The answer without its words; a failure is noted too."""
        answer = Answer(self.source, prompt)
        try:
            yield answer
        except Exception as error:
            _note(replace(answer, error=type(error).__name__))
            raise


class RecordedRetriever:
    """A retriever whose findings are noted for the turn that asks."""

    def __init__(self, retriever: Retriever, index: str) -> None:
        self.retriever = retriever
        self.index = index

    async def search(self, query: Query, k: int) -> tuple[Passage, ...]:
        """As the retriever does."""
        return (await self.find(query, k)).passages

    async def find(self, query: Query, k: int) -> Found:
        """As the retriever does."""
        found = await find(self.retriever, query, k)
        if notes := NOTES.get():
            notes.searches.append(Search(self.index, query.text, k, found.passages, among_digest(query)))
        return found


def _completed(answer: Answer, completion: Completion) -> Answer:
    return replace(answer, text=completion.text, finish_reason=completion.finish_reason, usage=completion.usage)


def _note(answer: Answer) -> None:
    if notes := NOTES.get():
        notes.answers.append(answer)
