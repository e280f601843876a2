"""The nouns of the rail engine, and the protocol of a rail.

Nothing here runs a rail, reads a policy or asks a model.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

from trackbed.llm.types import Generator, Message, Usage
from trackbed.retrieval.types import Embedder, Passage

Stage = Literal["input", "retrieval", "tools", "output"]
Judge = Literal["input", "dialog", "retrieval", "tools", "output"]  # who comes to a verdict: a stage, or the dialog
Action = Literal["allow", "rewrite", "block"]
Reason = Literal["policy", "timeout", "error"]
Then = Literal["block", "mask", "drop", "regenerate", "quote"]
# Whether sentences have citations: those that passages support, all that are said, or none.
Cite = Literal["required", "when_possible", "none"]
# How a rail judges a text that is still being written. `spans`: it says from where on findings can still change.
# `prefix`: it judges any beginning of a text, and what it blocks it blocks however the text goes on. `whole`: it has to
# see all of it.
Streams = Literal["spans", "sentences", "prefix", "whole"]
Value = str | int | float | bool  # of a variable

DIGEST_BYTES = 16
MAX_ARGUMENTS = 65_536  # characters of a call's arguments as JSON
MAX_NESTED = 32  # how deep they nest
NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a flow waits for an answer."""

    flow: str
    ask: str  # the question: its variable, with a number where the flow asks for it more than once
    asked: int = 1  # how often


@dataclass(frozen=True, slots=True)
class State:
    """What a conversation remembers beside its messages. It does not grow with them.

    `digest` chains over the messages that were judged, so that a state proves which ones they are.
    """

    vars: Mapping[str, Value] = field(default_factory=dict)  # those that flows have set
    flows: tuple[Cursor, ...] = ()  # that wait; the last is the one that is resumed
    judged: int = 0  # how many messages, from the first
    digest: str = ""  # of those; empty when there are none

    def __post_init__(self) -> None:
        if isinstance(self.vars, dict):  # whoever sees a state cannot change it
            object.__setattr__(self, "vars", MappingProxyType(dict(self.vars)) if self.vars else NOTHING)

    def after(self, messages: Iterable[Message]) -> "State":
        """The state when these messages are judged too."""
        digest, judged = self.digest, self.judged
        for message in messages:
            chained = f"{digest}\n{message.role}\n{message.content}".encode("utf-8", "surrogatepass")
            digest, judged = hashlib.blake2b(chained, digest_size=DIGEST_BYTES).hexdigest(), judged + 1
        return State(self.vars, self.flows, judged, digest)

    def turn(self, question: str, messages: Iterable[Message] = ()) -> "Turn":
        """The turn that asks `question` after these messages; those that the state does not prove are judged anew."""
        history = tuple(messages)
        nothing = replace(self, judged=0, digest="")
        proven = nothing.after(history[: self.judged]) == self
        return Turn(question, history, judged=self.judged if proven else 0, state=self if proven else nothing)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool that a model wants called. Raises ValueError for a name that is no text and arguments that are no JSON, or
    too large.

    The arguments cannot be changed: they are copied, with lists as tuples and mappings that are read-only.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=lambda: NOTHING)  # JSON values
    id: str = ""  # the caller's own, to tell calls of the same tool apart

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise ValueError("the name of a call is no text")
        arguments = _frozen(self.arguments, 0)
        if not isinstance(arguments, Mapping):
            raise ValueError("the arguments of a call are no mapping")
        object.__setattr__(self, "arguments", arguments)
        if len(self.text) > MAX_ARGUMENTS:
            raise ValueError(f"the arguments of a call have {len(self.text)} characters; the limit is {MAX_ARGUMENTS}")

    @classmethod
    def read(cls, name: str, text: str, id: str = "") -> "ToolCall":
        """The call whose arguments are this JSON object, as models write them. Raises ValueError."""
        if len(text) > 2 * MAX_ARGUMENTS:
            raise ValueError(f"the arguments of a call have {len(text)} characters; the limit is {MAX_ARGUMENTS}")
        try:
            return cls(name, json.loads(text or "{}", object_pairs_hook=_once), id)
        except RecursionError:
            raise ValueError(f"the arguments of a call nest deeper than {MAX_NESTED}") from None

    @property
    def text(self) -> str:
        """The arguments as JSON, in the one way that it is written for these values."""
        return json.dumps(self.plain(), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)

    @property
    def digest(self) -> str:
        """Names this very call: its tool and its arguments, whatever its id."""
        named = json.dumps([self.name, self.text])
        return hashlib.blake2b(named.encode(), digest_size=DIGEST_BYTES).hexdigest()

    def plain(self) -> dict[str, Any]:
        """A copy of the arguments that its holder may change."""
        found: dict[str, Any] = _thawed(self.arguments)
        return found


def _frozen(value: object, depth: int) -> object:
    """A JSON value that nobody can change. Raises ValueError for any other."""
    if depth > MAX_NESTED:
        raise ValueError(f"the arguments of a call nest deeper than {MAX_NESTED}")
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise ValueError("the arguments of a call have a key that is no text")
        return MappingProxyType({str(key): _frozen(child, depth + 1) for key, child in value.items()})
    if isinstance(value, list | tuple):
        return tuple(_frozen(child, depth + 1) for child in value)
    if value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise ValueError(f"the arguments of a call hold {type(value).__name__}, which is no JSON value")


def _thawed(value: Any) -> Any:  # Any: JSON
    if isinstance(value, Mapping):
        return {key: _thawed(child) for key, child in value.items()}
    return [_thawed(child) for child in value] if isinstance(value, tuple) else value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, where each key stands once: of two, nobody knows which one a tool would read."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("the arguments of a call give a key twice")
    return found


@dataclass(frozen=True, slots=True)
class Turn:
    """One question, its history, and what was gathered to answer it. Each step makes the next with `replace`."""

    question: str
    history: tuple[Message, ...] = ()
    passages: tuple[Passage, ...] = ()
    draft: str | None = None
    vars: Mapping[str, Any] = field(default_factory=lambda: NOTHING)  # any JSON value: what `when` and templates read
    # The groups of whoever asks, as the application knows them: what only others may read is not found.
    principals: frozenset[str] = frozenset()
    judged: int = 0  # how many messages of the history passed the input rails in earlier turns
    state: State = field(default_factory=State)  # of the conversation, as the turn before left it
    said: str = ""  # a flow's words, which stand before an answer, or are the whole reply
    step: str = ""  # the step of a flow that has the model answer, and may bring its own prompt
    stage: Stage = "input"
    text: str = ""  # what is judged now: the question, one passage, a call, or the draft; run_stage sets it
    call: ToolCall | None = None  # of a tool, on the stage that judges those
    result: str | None = None  # what the tool returned; None while the call itself is judged
    confirmed: frozenset[str] = frozenset()  # the digests of the calls that the user has confirmed
    # What stands for personal data in the turn's texts, such as <EMAIL_ADDRESS_1>, and the data. No log shows it.
    pseudonyms: Mapping[str, str] = field(default_factory=lambda: NOTHING, repr=False)

    def remembers(self, messages: tuple[Message, ...]) -> State:
        """The state after this turn, when these messages, which begin with the judged history, are judged."""
        if self.state.judged == self.judged:
            return self.state.after(messages[self.judged :])
        return replace(self.state, judged=0, digest="").after(messages)

    @property
    def dialogue(self) -> tuple[Message, ...]:
        """The conversation up to and including the message that is judged."""
        asked = (*self.history, Message("user", self.question))
        if self.stage == "tools":
            return (*asked, Message("assistant" if self.result is None else "tool", self.text))
        return asked if self.draft is None else (*asked, Message("assistant", self.draft))

    def having(self, **changes: Any) -> "Turn":  # Any: whatever the parts are
        """The same turn with these parts changed: `replace` in a third of its time, for what every turn does."""
        turn = object.__new__(Turn)
        for name in PARTS:
            object.__setattr__(turn, name, changes[name] if name in changes else getattr(self, name))
        return turn


PARTS = tuple(field.name for field in fields(Turn))


@dataclass(frozen=True, slots=True)
class Finding:
    """A span of the judged text that a rail objects to: `text[start:end]`, of the kind `label`."""

    label: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a rail, a stage or a turn came to.

    A rail says `allow`, or `block` with what it found; the policy's `then` decides what is made of a block.
    """

    action: Action
    reason: Reason | None = None  # why, unless allowed: the policy's word, or a failure to judge
    detail: str = ""  # the reason in words that may be shown: "Violent Crimes"; never the judged text
    categories: tuple[str, ...] = ()
    score: float | None = None  # the probability, 0 to 1, that the text breaks the rail, where the rail has one
    findings: tuple[Finding, ...] = ()
    text: str | None = None  # what a rewrite, or the mask of a block, puts in place of the judged text
    stage: Judge | None = None  # filled in by run_stage, with `rail`
    rail: str = ""  # the rail's id

    @classmethod
    def allow(cls, *, categories: tuple[str, ...] = (), score: float | None = None, detail: str = "") -> "Verdict":
        """The text may pass; categories may still be reported."""
        if not categories and score is None and not detail:
            return _ALLOWED
        return cls("allow", categories=categories, score=score, detail=detail)

    @classmethod
    def block(
        cls,
        *,
        detail: str = "",
        categories: tuple[str, ...] = (),
        score: float | None = None,
        findings: tuple[Finding, ...] = (),
        reason: Reason = "policy",
        text: str | None = None,
    ) -> "Verdict":
        """The text breaks the rail; `findings` say where, so that a policy may mask instead.

        `text` is what a mask puts in place of the whole text, where labels in place of the findings would not do.
        """
        return cls("block", reason, detail, categories, score, findings, text)

    @classmethod
    def rewrite(
        cls,
        text: str,
        *,
        detail: str = "",
        categories: tuple[str, ...] = (),
        score: float | None = None,
        findings: tuple[Finding, ...] = (),
    ) -> "Verdict":
        """The text may pass as `text`."""
        return cls("rewrite", "policy", detail, categories, score, findings, text)

    @property
    def by(self) -> str:
        """The rail that decided, `stage/id`; empty when none objected."""
        return f"{self.stage}/{self.rail}" if self.stage else ""

    def named(self, stage: Judge, rail: str) -> "Verdict":
        """The same verdict with the rail that gave it."""
        return replace(self, stage=stage, rail=rail)


_ALLOWED = Verdict("allow")  # most verdicts are this one


@dataclass(frozen=True, slots=True)
class Scripted:
    """What the policy's dialog makes of a turn."""

    turn: Turn  # with what its flows said, and the variables and the state as they leave them
    then: Literal["answer", "reply", "refuse"]  # a model is to answer, all is said, or the turn is refused
    verdict: Verdict = _ALLOWED


@dataclass(frozen=True, slots=True)
class Citation:
    """A mark `[n]` of the reply, and the span of the source behind it: `quote` is source text start to end.

    Where an output rail masks something of it, the quote is masked; where one blocks it, there is none. The same holds
    for the heading, about which rails that mask passages are asked too.
    """

    n: int
    source: str
    start: int
    end: int
    quote: str
    page: int | None = None  # where the quote begins, counted from 1, for paged formats
    heading: str = ""  # the headings above it, "Policies > Rails"
    score: float = 0.0  # how far the quote supports what it was first cited for, 0 to 1


@dataclass(frozen=True, slots=True)
class Claim:
    """A sentence of the reply, its text from `start` to `end`, and what stands behind it."""

    start: int
    end: int
    citations: tuple[int, ...]  # their numbers; empty where no passage supports it
    score: float  # how far they support it, 0 to 1


class Span(NamedTuple):
    """One timed step of a turn: a rail's judgement, a search, or a model's answer. A turn has many; it is cheap."""

    stage: Literal["input", "dialog", "retrieval", "tools", "generation", "output"]
    name: str  # a rail's id, or what was done: search, generate, cite
    milliseconds: float
    verdict: Verdict | None = None
    enforced: bool = True  # False: judged and traced only (`mode: observe`)
    error: str = ""  # the kind of exception, when the step failed; never its text
    usage: Usage | None = None
    calls: int = 0  # how often it asked a model
    subject: str = ""  # a digest of the text that was judged
    notes: Mapping[str, Any] = NOTHING  # any JSON values: how many passages, which model
    ended: float = 0.0  # when, in seconds of perf_counter


@dataclass(slots=True)
class Trace:
    """The spans of a turn, in the order of its story, not of the clock."""

    spans: list[Span] = field(default_factory=list)

    def add(self, span: Span) -> None:
        """Record a step that is over."""
        self.spans.append(span)

    @property
    def usage(self) -> Usage:
        """Tokens of all model answers of the turn."""
        spent = [span.usage for span in self.spans if span.usage]
        return Usage(sum(u.prompt_tokens for u in spent), sum(u.completion_tokens for u in spent))


@dataclass(frozen=True, slots=True)
class Reply:
    """What leaves: an answer with its citations, or words of refusal; and how it came about."""

    text: str
    citations: tuple[Citation, ...]
    trace: Trace
    verdict: Verdict
    messages: tuple[Message, ...] = ()  # the conversation so far as the rails left it; a refused question is not in it
    state: State = field(default_factory=State)  # of the conversation, when these messages are judged
    pseudonyms: Mapping[str, str] = field(default_factory=lambda: NOTHING, repr=False)  # that stand in the messages
    principals: frozenset[str] = frozenset()  # of the turn; the next one has them too
    claims: tuple[Claim, ...] = ()  # what the answer says, sentence by sentence, where it rests on passages

    def next(self, question: str) -> Turn:
        """The turn that asks `question` after this reply; what was judged already is not judged again."""
        return Turn(
            question,
            self.messages,
            judged=len(self.messages),
            state=self.state,
            principals=self.principals,
            pseudonyms=self.pseudonyms,
        )


@dataclass(frozen=True, slots=True)
class ToolCheck:
    """What the judgement of a tool's call, or of its result, came to.

    A call that waits for the user's confirmation is blocked with the category "confirm": the same call passes on a turn
    whose `confirmed` holds `call.digest`.
    """

    call: ToolCall  # as the rails left it; what is to be carried out
    verdict: Verdict
    trace: Trace
    result: str = ""  # as the rails left it; empty for a call, and where it is blocked
    refusal: str = ""  # what may be said instead, to the user and to the model; empty where nothing is blocked

    @property
    def passes(self) -> bool:
        """Whether the call may be made, or the result be read."""
        return self.verdict.action != "block"

    @property
    def to_confirm(self) -> bool:
        """Whether the call only waits for the user's confirmation."""
        return self.verdict.by == "tools/confirm"


@dataclass(frozen=True, slots=True)
class Progress:
    """A turn has come to this step; `tokens` of the draft are written."""

    stage: Literal["input", "retrieval", "generation", "output"]
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of the reply, judged and free to be shown; the pieces are joined."""

    text: str


@dataclass(frozen=True, slots=True)
class Replace:
    """What is shown in place of all pieces so far."""

    text: str


@dataclass(frozen=True, slots=True)
class Blocked:
    """The turn is refused; the words of refusal follow as a Text, or as a Replace where pieces have been shown."""

    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Done:
    """The turn is over; what is shown is the reply's text."""

    reply: Reply


# A Citation comes when its mark has been shown.
Event = Progress | Text | Replace | Blocked | Citation | Done


@dataclass(frozen=True, slots=True)
class Streaming:
    """How a streamed answer is held back until it is judged."""

    hold_back: int = 24  # tokens
    max_delay: float = 0.4  # seconds


@dataclass(frozen=True, slots=True)
class Models:
    """The models that a policy names, opened: what a rail may ask. Built by the application."""

    generators: Mapping[str, Generator] = field(
        default_factory=dict
    )  # by the policy's names; checked when it is loaded
    embedder: Embedder | None = None
    answering: Generator | None = None  # the model that drafts, where an adapter makes it another than `generators` has


class Rail(Protocol):
    """One check. It judges `turn.text`; it does not generate, log, time or retry."""

    Config: ClassVar[type[Any]]  # a RailConfig; Any, since only who reads policies needs Pydantic
    stages: ClassVar[frozenset[Stage]]  # where it makes sense
    actions: ClassVar[frozenset[Then]]  # what `then:` may say of it
    # A rail may also say how it judges a text that is still being written; without it, the whole text is waited for:
    # streams: ClassVar[Streams]
    # asks: ClassVar[str], the key of its config that names a model, where its check waits for that model alone
    # held(turn) -> int, where it streams spans or sentences: from where on what follows can still make or change a
    # finding; a rail of sentences is asked about what stands before that alone
    # leave(turn, findings) -> str, where a mask leaves them out, and puts no labels in their place

    def __init__(self, config: Any, models: Models) -> None:  # Any: each rail takes its own Config
        ...

    async def check(self, turn: Turn) -> Verdict:
        """Judge `turn.text`. Raises RailFailed when it cannot."""
        ...
