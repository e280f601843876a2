"""A recorded turn, run again under another policy without any model: does its verdict change?

What models and the index answered is taken from the record where they are asked the same, word for word. Where they
would be asked something else, nobody knows what they would say, and what depends on it is unknown: it is never
guessed. A policy's dialog is not run, since its intents need a model and its actions may do things.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar, Literal

from trackbed.llm.types import Completion, Delta, Prompt, SamplingParams, Usage
from trackbed.rails.budget import Metered
from trackbed.rails.errors import RailFailed, StateRefused
from trackbed.rails.pipeline import Pipeline
from trackbed.rails.policy import Policy, RailUse
from trackbed.rails.record import Asked, Record, VerdictTold
from trackbed.rails.recording import Answer, among_digest, prompt_digest
from trackbed.rails.state import load_state
from trackbed.rails.types import Models, Rail, Stage, Then, Turn, Verdict
from trackbed.rails.use import named_models
from trackbed.retrieval.types import Passage, Query

Doubt = Callable[[str], None]  # takes note of what is not known


class NotRecorded(RailFailed):
    """What a model or an index would have answered is not in the record."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What came of a turn, run again."""

    line: int
    outcome: Literal["same", "changed", "unknown"]
    before: str  # the verdict in words: "block by input/pii (policy)"
    after: str  # empty where it is unknown
    unknown: tuple[str, ...] = ()  # what was not recorded

    def as_json(self) -> dict[str, Any]:
        """The same as JSON values."""
        return asdict(self)


@dataclass(slots=True)
class _Run:
    """What is learnt while a turn runs again."""

    unknown: list[str] = field(default_factory=list)
    rewriters: set[str] = field(default_factory=set)  # unknown rails that may have changed what comes after them

    def doubt(self, what: str) -> None:
        if what not in self.unknown:
            self.unknown.append(what)


async def replayed(policy: Policy, record: Record, line: int = 0) -> Replayed:
    """Run a full record's turn under the policy."""
    assert record.asked is not None
    before, run = _words(record.verdict, record.error), _Run()
    verdict: Verdict | None = None
    try:
        verdict = await _judged(policy, record, _turn(policy, record.asked), run)
    except NotRecorded as missing:
        run.doubt(str(missing))
    except Exception as error:  # noqa: BLE001 - whatever a turn raises, its verdict is not known
        run.doubt(f"{type(error).__name__}: {error}")
    # A rail that judges for itself and blocks does so whatever the unknown ones would say, unless one of them may have
    # changed the text before. Only who blocks first is not known then.
    blocked = record.verdict is not None and record.verdict.action == "block"
    certain = verdict is not None and verdict.action == "block" and not run.rewriters and not blocked
    if verdict is None or (run.unknown and not certain):
        return Replayed(line, "unknown", before, "", tuple(run.unknown))
    after = _words(verdict)
    return Replayed(line, "same" if after == before else "changed", before, after, tuple(run.unknown))


async def _judged(policy: Policy, record: Record, turn: Turn, run: _Run) -> Verdict:
    """The verdict, as far as it is known. Raises NotRecorded, and what the pipeline raises."""
    rails = {stage: tuple(_scripted(use, policy, record, run) for use in uses) for stage, uses in policy.rails.items()}
    pipeline = Pipeline(
        replace(policy, rails=rails, dialog=None, generation=replace(policy.generation, ahead=False)),
        Models(
            {name: _Recalled(record.answers, str(source), name, run.doubt) for name, source in policy.models.items()},
            answering=_Recalled(record.answers, policy.drafts, policy.generation.model, run.doubt),
        ),
        _Found(policy.knowledge.index, record, run.doubt) if policy.knowledge else None,
    )
    if record.stage is not None:
        return (await pipeline.judge(record.stage, turn))[1]
    if policy.dialog:
        verdict = (await pipeline.judge("input", turn))[1]
        if verdict.action != "block":
            run.doubt("the dialog, which is not run again")
        return verdict
    return (await pipeline.respond(turn)).verdict


def _turn(policy: Policy, asked: Asked) -> Turn:
    """The turn as it was asked, with the variables that this policy knows."""
    try:
        state = load_state(asked.state)
    except StateRefused as error:
        raise NotRecorded(f"the conversation's state: {error}") from None
    turn = Turn(
        asked.question,
        tuple(asked.history),
        passages=tuple(asked.passages),
        draft=asked.draft,
        judged=min(asked.judged, len(asked.history)),
        state=state,
        vars={name: value for name, value in asked.vars.items() if name in policy.vars},
        principals=frozenset(asked.principals),
    )
    bound = policy.bind(turn)
    return replace(bound, vars={name: value for name, value in bound.vars.items() if name in policy.vars})


def _scripted(use: RailUse, policy: Policy, record: Record, run: _Run) -> RailUse:
    """The rail over the record's answers; where one is missing it passes, and that is taken note of."""

    missing: list[str] = []

    def note(what: str) -> None:
        missing.append(what)
        if use.mode == "enforce":  # what is only observed changes no verdict
            run.doubt(f"{use.name}: {what}")
            if use.then != "block":
                run.rewriters.add(use.name)

    class Replaying:
        """The rail, asked what it was asked before."""

        Config: ClassVar[type[Any]] = use.rail_class.Config
        stages: ClassVar[frozenset[Stage]] = use.rail_class.stages
        actions: ClassVar[frozenset[Then]] = use.rail_class.actions

        def __init__(self, config: Any, models: Models) -> None:  # Any: each rail takes its own Config
            generators = {
                name: Metered(_Recalled(record.answers, str(source), name, note))
                for name, source in policy.models.items()
            }
            self.rail: Rail = use.rail_class(config, Models(generators, _NoEmbedder(note)))

        async def check(self, turn: Turn) -> Verdict:
            try:
                verdict = await self.rail.check(turn)
            except Exception:
                if not missing:
                    raise
                return Verdict.allow()
            return Verdict.allow() if missing else verdict  # whatever it makes of an answer that is not there

    if not any(named_models(use.config)):
        return use
    return replace(use, rail_class=Replaying)


class _Recalled:
    """A generator that answers what the record says, to the same prompts alone."""

    def __init__(self, answers: Sequence[Answer], source: str, name: str, doubt: Doubt) -> None:
        self.answers = [answer for answer in answers if answer.model == source]
        self.name = name
        self.doubt = doubt
        self.used: dict[str, int] = {}  # how often a prompt was asked

    async def generate(self, prompt: Prompt, params: SamplingParams) -> Completion:
        """What was answered. Raises NotRecorded."""
        answer = self._answer(prompt_digest(prompt, params))
        if answer.text is None or answer.finish_reason is None or answer.finish_reason == "cut":
            raise self._missing("the model's answer was given up before its end")
        return Completion(answer.text, answer.finish_reason, answer.usage or Usage(0, 0))

    async def stream(self, prompt: Prompt, params: SamplingParams) -> AsyncGenerator[Delta, None]:
        """What was answered, in one piece. Raises NotRecorded."""
        completion = await self.generate(prompt, params)
        yield Delta(completion.text, completion)

    async def score(self, prompt: Prompt, continuations: Sequence[str]) -> tuple[float, ...]:
        """What was answered. Raises NotRecorded."""
        answer = self._answer(prompt_digest(prompt, continuations))
        if answer.scores is None:
            raise self._missing("the model's answer has no scores")
        return tuple(answer.scores)

    def _answer(self, digest: str) -> Answer:
        known = [answer for answer in self.answers if answer.prompt == digest]
        n = self.used.get(digest, 0)
        self.used[digest] = n + 1
        # A prompt that is asked more often has the same answer again only where it always had the same.
        if n >= len(known) and len({(a.text, a.scores, a.error) for a in known}) != 1:
            raise self._missing(f"the model {self.name!r} was not asked this")
        answer = known[min(n, len(known) - 1)]
        if answer.error:
            raise RailFailed(f"the model {self.name!r} failed: {answer.error}")
        return answer

    def _missing(self, what: str) -> NotRecorded:
        self.doubt(what)
        return NotRecorded(what)


class _NoEmbedder:
    """Stands for the embedder, whose vectors are not recorded."""

    name = "none"
    sha256 = ""
    dimension = 0

    def __init__(self, doubt: Doubt) -> None:
        self.doubt = doubt

    def embed(self, texts: Sequence[str]) -> Any:  # Any: it never returns
        """Nothing. Raises NotRecorded."""
        self.doubt("meanings are not recorded")
        raise NotRecorded("meanings are not recorded")


class _Found:
    """Finds again what was found, where the same is sought."""

    def __init__(self, index: str, record: Record, doubt: Doubt) -> None:
        self.index = index
        self.record = record
        self.doubt = doubt

    async def search(self, query: Query, k: int) -> tuple[Passage, ...]:
        """The passages. Raises NotRecorded."""
        for search in self.record.searches:
            enough = k <= search.k or len(search.passages) < search.k
            same = search.query == query.text and search.among == among_digest(query)
            if search.index == self.index and same and enough:
                return tuple(search.passages[:k])
        self.doubt("this was not sought in the index")
        raise NotRecorded("this was not sought in the index")


def _words(verdict: Verdict | VerdictTold | None, error: str = "") -> str:
    """A verdict in words."""
    if verdict is None:
        return f"failed with {error}"
    by = f" by {verdict.by}" if verdict.by else ""
    return f"{verdict.action}{by}{f' ({verdict.reason})' if verdict.reason else ''}"
