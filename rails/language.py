"""What may stand in a policy's file: keys, types and bounds, for the loader and for editors alike.

The classes mirror the file key by key. What is wrong with a value, and where, `problems.py` tells; what the names in a
policy lead to is `policy.py`'s business.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from trackbed.llm.types import Role
from trackbed.rails.template import nearest
from trackbed.rails.types import Action, Cite, Judge, Reason, Then
from trackbed.retrieval import RETRIEVERS

BOUNDS = ("least", "most")  # of a range in a filter
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0}
IMPORT_PATH = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*"
MAX_RAILS = 100  # in a stage
MAX_SAID = 1_000_000  # characters of a test's last text, with its repetitions
MAX_INTENTS = 100
MAX_EXAMPLES = 200  # of an intent
MAX_STEPS = 200  # of a flow
MAX_TOOLS = 200
MAX_WANTED = 100  # values in a list of a filter
LEFT_OUT = "I left out what nothing I have read supports."


def _seconds(value: object) -> float:
    """A duration in seconds, from its words: 800ms, 2s, 1m."""
    words = value if isinstance(value, str) else ""
    unit = next((unit for unit in UNITS if words.removesuffix(unit).isdecimal() and words.endswith(unit)), None)
    if unit is None or len(words) > 8:
        raise ValueError(f"{value!r} is not a duration; write 800ms, 2s or 1m")
    seconds = int(words.removesuffix(unit)) * UNITS[unit]
    if not 0 < seconds <= 600:
        raise ValueError(f"{value!r} is not between 1ms and 10m")
    return seconds


def _retriever(value: str) -> str:
    if value not in RETRIEVERS and ":" not in value:
        raise ValueError(f"{value!r} is not a retriever{nearest(value, (*RETRIEVERS, 'package.module:Class'))}")
    return value


def _different(value: list[str]) -> list[str]:
    if twice := [name for name in value if value.count(name) > 1]:
        raise ValueError(f"{twice[0]!r} is named twice")
    return value


def _wanted(value: object) -> object:
    """What a filter says of a key, if it is something that metadata can be compared with."""
    if isinstance(value, dict):
        if unknown := sorted(set(value) - set(BOUNDS)):
            raise ValueError(f"{unknown[0]!r} is not a key of a range{nearest(unknown[0], BOUNDS)}")
        if not value:
            raise ValueError("a range without bounds; give it least, most or both")
    if isinstance(value, list) and not 0 < len(value) <= MAX_WANTED:
        raise ValueError(f"a list of {len(value)} values; it takes 1 to {MAX_WANTED}")
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
    if not all(isinstance(part, str | bool | int | float) for part in parts):
        raise ValueError(
            "metadata are compared with texts, numbers, true and false, a list of these, or {least:, most:}"
        )
    if isinstance(value, dict) and any(isinstance(part, bool) for part in parts):
        raise ValueError("true and false bound no range; give it numbers, or texts such as dates")
    return value


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _one_role(value: dict[Role, str]) -> dict[Role, str]:
    if len(value) != 1:
        raise ValueError("a message has one role and its text, such as {user: hello}")
    return value


def _with_keys(value: object) -> object:
    return {"user": value} if isinstance(value, str) else value


def _mode_alone(value: object) -> object:
    return {"mode": value} if isinstance(value, str) else value


def _rails_in_list(value: object) -> object:
    return {"rails": value} if isinstance(value, list) else value


Duration = Annotated[
    float,
    BeforeValidator(_seconds, json_schema_input_type=Annotated[str, Field(pattern=r"^[0-9]+(ms|s|m)$")]),
]
Texts = Annotated[list[str], BeforeValidator(_listed, json_schema_input_type=str | list[str]), Field(min_length=1)]
Word = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]
Spoken = Annotated[
    dict[Role, str], AfterValidator(_one_role), Field(json_schema_extra={"minProperties": 1, "maxProperties": 1})
]
# What each rail may say is its own schema's business.
Rails = Annotated[list[dict[str, Any]], Field(min_length=1, max_length=MAX_RAILS)]
ToolName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_./-]*$", max_length=100)]
Indexes = Annotated[
    list[Annotated[str, Field(min_length=1)]],
    BeforeValidator(_listed, json_schema_input_type=str | list[str]),
    Field(min_length=1, max_length=8),
    AfterValidator(_different),
]
Scalar = str | bool | int | float
# What metadata must say: a text is a template, and one that is a single {{ expression }} keeps its type.
Wanted = Annotated[
    Any,  # told apart by hand, so that a mistake is reported once and in our words
    BeforeValidator(
        _wanted,
        json_schema_input_type=Scalar
        | Annotated[list[Scalar], Field(min_length=1, max_length=MAX_WANTED)]
        | Annotated[
            dict[Literal["least", "most"], str | int | float],
            Field(min_length=1, json_schema_extra={"additionalProperties": False}),
        ],
    ),
]
Steps = Annotated[list[Any], Field(min_length=1, max_length=MAX_STEPS)]  # each step has its own schema too
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$", max_length=60)]
OnError = Literal["block", "allow"]
Failure = Literal["timeout", "error", "nonsense"]


def _required(quantity: Literal["anyOf", "oneOf"], *keys: str) -> dict[str, Any]:
    """What a schema says of keys of which one must be given, and with `oneOf` one alone."""
    return {quantity: [{"required": [key]} for key in keys]}


class Keys(BaseModel):
    """The keys of one part of the file. Unknown ones are errors, and so are values of another type."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)
    called: ClassVar[str]  # what a message calls this part

    @field_validator("*", mode="before")
    @classmethod
    def _given(cls, value: object) -> object:
        # A key without a value says nothing; it is no other way of leaving the key out.
        if value is None:
            raise ValueError("has no value")
        return value


class EndpointKeys(Keys):
    """A model that another process serves over OpenAI's protocol, such as vLLM or NIM."""

    called: ClassVar[str] = "an endpoint"
    openai: str = Field(pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?$", max_length=1000)
    """Its base URL, such as http://localhost:8000/v1."""
    model: str = Field(min_length=1, max_length=200)
    """The model's name there."""
    key_env: str = Field("", pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$")
    """The environment variable that holds the key, where it asks for one."""


# Told apart before they are read, so that a mistake in a mapping is not reported as a text's.
ModelSource = Annotated[
    Annotated[str, Field(min_length=1), Tag("text")] | Annotated[EndpointKeys, Tag("endpoint")],
    Discriminator(lambda value: "endpoint" if isinstance(value, dict | EndpointKeys) else "text"),
]


class DefaultKeys(Keys):
    """What holds for every rail that does not say otherwise."""

    called: ClassVar[str] = "defaults"
    on_error: OnError = "block"
    """What is made of a rail that cannot judge."""
    timeout: Duration = Field(10.0, json_schema_extra={"default": "10s"})
    """How long a rail may take: 800ms, 2s."""


class VariableKeys(Keys):
    """A value that a turn may carry, for conditions and templates to read."""

    called: ClassVar[str] = "a variable"
    type: Literal["string", "number", "integer", "boolean"]
    """What kind of value it is."""
    pattern: str | None = Field(None, max_length=1000)
    """A regular expression (RE2) that the whole of a string matches."""
    default: str | bool | int | float | None = None
    """The value where a turn gives none."""


class KnowledgeKeys(Keys):
    """Where passages come from."""

    called: ClassVar[str] = "knowledge"
    index: Indexes
    """What `trackbed ingest` wrote: a name or a path, or a list of them; `kb` is the shipped one."""
    retriever: Annotated[str, AfterValidator(_retriever)] = Field(
        "faiss", json_schema_extra={"pattern": f"^({'|'.join(RETRIEVERS)}|{IMPORT_PATH})$"}
    )
    """How it is searched: a retriever's name, or the import path of one, package.module:name, of LangChain's too."""
    filter: dict[Annotated[str, Field(min_length=1, max_length=100)], Wanted] = Field({}, min_length=1, max_length=20)
    """What the metadata of passages must say: by key a value, a list of which one fits, or {least:, most:}."""
    passages: int = Field(4, ge=1, le=50)
    """How many passages are given to the model at most."""
    minimum_score: float = Field(0.3, ge=-1, le=1)
    """How well a passage must suit the question, as the retriever scores it; below it, it counts as not found."""
    rewrite: str = Field("none", min_length=1)
    """What is sought beside a question that leans on what was said: `none`, `rules`, or a model that words it anew."""
    rerank: str | None = Field(None, min_length=1)
    """One of the models, a cross-encoder, that puts the candidates in order by reading each beside the question."""
    candidates: int = Field(30, ge=1, le=200)
    """How many passages are found at first, where some of them are chosen by `rerank` or `diversity`."""
    diversity: float | None = Field(None, ge=0, le=1)
    """How much passages that repeat each other give way: 0 hardly, 1 as much as can be."""
    neighbours: int = Field(0, ge=0, le=10)
    """How many passages before and after each one found are joined to it."""
    section: bool = False
    """Whether the rest of its section is joined to each passage found, as far as there is room."""
    timeout: Duration = Field(2.0, json_schema_extra={"default": "2s"})
    """How long `rerank`, `diversity` and what is joined may take; what is not done then is left out."""


class SamplingKeys(Keys):
    """How the next token is chosen, and when to stop."""

    called: ClassVar[str] = "sampling"
    temperature: float = Field(0.0, ge=0, le=5)
    """0 takes the likeliest token; more varies the answer."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Only the likeliest tokens that together have this probability are drawn from."""
    max_tokens: int = Field(256, ge=1, le=65_536)
    """How long an answer may be."""
    stop: list[Annotated[str, Field(min_length=1)]] = Field([], min_length=1)
    """The answer ends before the first of these."""
    seed: int | None = None
    """Makes drawn answers repeatable."""


class CiteKeys(Keys):
    """Whether the sentences of an answer have citations, and what is made of those without one."""

    called: ClassVar[str] = "cite"
    mode: Cite
    """`required`: what no passage supports is not said; `when_possible`: it has no mark; `none`: nothing has one."""
    then: Literal["drop", "regenerate"] = "drop"
    """What `required` makes of an unsupported sentence: left out, or the model answers once more first."""
    left_out: str = Field(LEFT_OUT, min_length=1)
    """What is said behind an answer of which `required` has left something out."""

    @model_validator(mode="after")
    def _leaves_out(self) -> "CiteKeys":
        if self.mode != "required" and (unused := sorted(self.model_fields_set - {"mode"})):
            raise ValueError(f"{unused[0]!r} is for 'mode: required'; with {self.mode!r} nothing is left out")
        return self


class GenerationKeys(Keys):
    """How an answer is drafted."""

    called: ClassVar[str] = "generation"
    model: str = "chat"
    """The model that answers, by its name under `models`."""
    adapter: str | None = Field(None, min_length=1, max_length=1000)
    """A LoRA adapter of that model: a catalogue name, or the path of a folder, of peft's form too; or `none`."""
    system: str = ""
    """Who the model is told to be; a plain text."""
    prompt: str | None = Field(None, min_length=1)
    """What the model is asked: a Jinja2 template over question, history, passages and vars; or !include its file."""
    sampling: SamplingKeys = SamplingKeys()
    """How the answer is sampled."""
    unknown: str = Field("I don't know: nothing I have read says anything about that.", min_length=1)
    """The answer where retrieval finds nothing good enough; no model is asked."""
    history: int = Field(6, ge=0, le=1000)
    """How many of the conversation's last messages the model sees."""
    cite: Annotated[CiteKeys, BeforeValidator(_mode_alone, json_schema_input_type=Cite | CiteKeys)] = CiteKeys(
        mode="when_possible"
    )
    """Whether each sentence needs a passage behind it: required, when_possible or none; or with its other keys."""
    ahead: bool = False
    """Whether to search and draft beside the input rails that only judge; nothing leaves before all have passed."""


class StreamKeys(Keys):
    """How a streamed answer is held back until it is judged."""

    called: ClassVar[str] = "stream"
    hold_back: int = Field(24, ge=1, le=4096)
    """How many tokens are kept back behind what a judge has passed, and after how many more it judges again."""
    max_delay: Duration = Field(0.4, json_schema_extra={"default": "400ms"})
    """After how long what is judged leaves though fewer tokens came after it: 400ms, 1s."""


class OutputKeys(Keys):
    """The output stage in its long form."""

    called: ClassVar[str] = "output"
    stream: StreamKeys | None = None
    """Has rails judge a streamed answer while it is written; without it, those that must be asked again wait."""
    rails: Rails
    """The rails that judge the draft, from top to bottom."""


class BudgetKeys(Keys):
    """What one turn may take, and how many turns may run at once."""

    model_config = ConfigDict(json_schema_extra=_required("anyOf", "wall", "model_calls", "max_turns"))
    called: ClassVar[str] = "budget"
    wall: Duration | None = None
    """How long a turn may take: 20s."""
    model_calls: int | None = Field(None, ge=1, le=10_000)
    """How often a turn may ask models, for the answer and for its judgement."""
    max_turns: int | None = Field(None, ge=1, le=100_000)
    """How many turns may run at once; others wait."""
    max_wait: Duration = Field(5.0, json_schema_extra={"default": "5s"})
    """How long a turn waits for a place before it is turned away."""

    @model_validator(mode="after")
    def _bounds_something(self) -> "BudgetKeys":
        if self.wall is None and self.model_calls is None and self.max_turns is None:
            raise ValueError("a budget that bounds nothing; give at least one of: wall, model_calls, max_turns")
        return self


class RailKeys(BaseModel):
    """The keys that every rail has; the others are its own."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True, use_attribute_docstrings=True)
    called: ClassVar[str] = "a rail"
    rail: str = Field(min_length=1)
    """The rail's name, or the import path of a class, package.module:Class."""
    id: str | None = Field(None, pattern=r"^[A-Za-z][A-Za-z0-9_-]*$", max_length=60)
    """Its name in traces and in `refuse`; the rail's name unless given."""
    then: Then | None = None
    """What is made of an objection: block (the default), mask, drop, regenerate or quote."""
    mode: Literal["enforce", "observe"] = "enforce"
    """`observe` judges and traces, and never enforces."""
    when: str | None = Field(None, min_length=1)
    """A condition over vars, question and text; the rail judges only where it is true."""
    on_error: OnError | None = None
    """What is made of a rail that cannot judge: block or allow."""
    timeout: Duration | None = None
    """How long it may take: 800ms, 2s."""


class ExpectKeys(Keys):
    """What a test expects of the reply."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})
    called: ClassVar[str] = "expect"
    action: Action | None = None
    """allow, rewrite or block."""
    by: str | None = None
    """The rail that did it, as stage/id."""
    reason: Reason | None = None
    """policy, timeout or error."""
    text: str | None = None
    """The reply's text, or the question's as the rails left it."""
    leaked: list[str] | None = Field(None, min_length=1)
    """Texts that must not leave, nor reach the model that answers where the input rails mask them."""
    stage: Judge | None = None
    """The stage whose rail did it, or dialog."""
    citations: int | None = Field(None, ge=0)
    """How many citations the reply has."""
    model_calls: int | None = Field(None, ge=0)
    """How many answers models may have given at most."""

    @model_validator(mode="after")
    def _expects(self) -> "ExpectKeys":
        if not self.model_fields_set:
            raise ValueError("a test expects something; it can say: " + ", ".join(type(self).model_fields))
        return self


class IntentKeys(Keys):
    """Something that users come for, and how they say it."""

    called: ClassVar[str] = "an intent"
    examples: list[Annotated[str, Field(min_length=1, max_length=1000)]] = Field(min_length=1, max_length=MAX_EXAMPLES)
    """Messages that mean it; others are compared with these."""


class ClassifyKeys(Keys):
    """How it is found out which intent a message has."""

    called: ClassVar[str] = "classify"
    threshold: float = Field(0.6, gt=0, le=1)
    """How similar a message must be to an example, as a cosine."""
    model: str = "none"
    """The model, by its name under `models`, that is asked below the threshold; `none` asks none."""


class FlowKeys(Keys):
    """A scripted exchange."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["intent"]}, {"required": ["id"]}]})
    model_config = ConfigDict(json_schema_extra=_required("oneOf", "intent", "id"))
    called: ClassVar[str] = "a flow"
    intent: Name | None = None
    """The intent that begins it; it is the flow's name too."""
    id: Name | None = None
    """The name of a flow that only another flow's `goto` begins."""
    do: Steps
    """The steps, from top to bottom."""

    @model_validator(mode="after")
    def _named(self) -> "FlowKeys":
        if (self.intent is None) == (self.id is None):
            raise ValueError("a flow has either 'intent' or 'id'")
        return self


class DialogKeys(Keys):
    """The scripted part of a conversation."""

    called: ClassVar[str] = "dialog"
    intents: dict[Name, IntentKeys] = Field({}, max_length=MAX_INTENTS)
    """What users come for, by name."""
    classify: ClassifyKeys = ClassifyKeys()
    """How the intent of a message is found out."""
    flows: list[FlowKeys] = Field(min_length=1, max_length=MAX_INTENTS)
    """What is said and done."""


class ToolsKeys(Keys):
    """The tools that a model may call, and what judges the calls and what comes back."""

    called: ClassVar[str] = "tools"
    allow: list[ToolName] = Field(min_length=1, max_length=MAX_TOOLS)
    """The tools that may be called."""
    calls: Rails = []
    """The rails that judge what a tool is called with, from top to bottom."""
    results: Rails = []
    """The rails that judge what a tool returns, from top to bottom."""
    confirm: list[ToolName] = Field([], min_length=1, max_length=MAX_TOOLS)
    """The tools whose calls the user confirms, one by one."""


class CallKeys(Keys):
    """A call that a model makes in a test."""

    called: ClassVar[str] = "a call"
    name: ToolName
    """The tool."""
    args: dict[str, Any] = {}
    """Its arguments."""
    confirmed: bool = False
    """Whether the user has confirmed this very call."""


class ResultKeys(Keys):
    """What a tool returns in a test."""

    called: ClassVar[str] = "a result"
    name: ToolName
    """The tool."""
    text: str
    """What it returns."""


class SaidKeys(Keys):
    """What the user says in one of several turns, and what must come of it."""

    called: ClassVar[str] = "a turn"
    user: str
    """What the user says."""
    expect: ExpectKeys | None = None
    """What must come of it."""


Said = Annotated[SaidKeys, BeforeValidator(_with_keys, json_schema_input_type=str | SaidKeys)]


class TestKeys(Keys):
    """A conversation, what the models are made to answer, and what must come of it."""

    __test__: ClassVar[bool] = False  # pytest takes it for a class of tests otherwise
    model_config = ConfigDict(json_schema_extra=_required("oneOf", "user", "messages", "turns", "call", "result"))
    called: ClassVar[str] = "a test"
    user: str | None = None
    """What the user says."""
    messages: list[Spoken] | None = Field(None, min_length=1)
    """A conversation that no rail has judged yet; the user speaks last."""
    turns: list[Said] | None = Field(None, min_length=2, max_length=100)
    """What the user says, turn after turn, as texts or with what to expect; the test's own `expect` is of the last."""
    call: CallKeys | None = None
    """A call that a model makes; what is judged is the call alone."""
    result: ResultKeys | None = None
    """What a tool returns; what is judged is the result alone."""
    repeat: int = Field(1, ge=1, le=100_000)
    """How many times over the user says the last text, as tests of long texts need."""
    model: dict[str, Texts] = {}
    """What each model is made to answer."""
    passages: list[str] | None = None
    """What retrieval is made to find; an empty list finds nothing, and without one nothing is sought."""
    fail: dict[str, Failure] = {}
    """Rails, as stage/id, and flows, as dialog/name, whose rail or whose calls are made to fail."""
    actions: dict[str, str | bool | int | float] = {}
    """What each action, as package.module:function, is made to return; none is really called."""
    vars: dict[str, str | bool | int | float] = {}
    """The turn's variables."""
    expect: ExpectKeys
    """What must come of it."""

    @model_validator(mode="after")
    def _asks(self) -> "TestKeys":
        given = (self.user, self.messages, self.turns, self.call, self.result)
        if sum(asked is not None for asked in given) != 1:
            raise ValueError("a test has either 'user', 'messages', 'turns', 'call' or 'result'")
        if self.turns and self.turns[-1].expect:
            raise ValueError("what is expected of the last turn stands under the test's own 'expect'")
        if self.messages and "user" not in self.messages[-1]:
            raise ValueError("the last of 'messages' is the user's")
        said = self.user or (self.messages or [{"user": ""}])[-1]["user"]
        if self.repeat * len(said) > MAX_SAID:
            raise ValueError(f"{self.repeat} times {len(said)} characters; a test says {MAX_SAID} at most")
        return self


class PolicyKeys(Keys):
    """A policy: what may be asked, what an answer rests on, and what may be answered."""

    called: ClassVar[str] = "a policy"
    policy: Literal[1]
    """The version of this language."""
    name: str | None = Field(None, min_length=1, max_length=100)
    """What reports call it; the file's name unless given."""
    extends: str | None = None
    """A shipped policy or a path; its rails are merged with these by their id."""
    models: dict[Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")], ModelSource] = {}
    """Models by the names that this policy uses: a catalogue name, a path, hf:org/repo, or an endpoint."""
    defaults: DefaultKeys = DefaultKeys()
    """What holds for every rail that does not say otherwise."""
    budget: BudgetKeys | None = None
    """What one turn may take, and how many turns may run at once."""
    vars: dict[Word, VariableKeys] = {}
    """Values that a turn may carry."""
    knowledge: KnowledgeKeys | None = None
    """Where passages come from; without it, no passages are sought."""
    generation: GenerationKeys = GenerationKeys()
    """How an answer is drafted."""
    input: Rails = []
    """The rails that judge what the user says, from top to bottom."""
    dialog: DialogKeys | None = None
    """The scripted part of a conversation."""
    retrieval: Rails = []
    """The rails that judge each passage found."""
    tools: ToolsKeys | None = None
    """Which tools a model may call; without it, none."""
    output: Annotated[OutputKeys | None, BeforeValidator(_rails_in_list)] = None
    """The rails that judge the draft."""
    refuse: dict[str, str] = {}
    """Words of refusal, Jinja2 templates over verdict and vars: by rail, by reason, else `default`."""
    trace: Literal["hashed", "full"] = "hashed"
    """What traces hold of what is said: digests alone, or the texts too, which a replay needs."""
    tests: list[TestKeys] = Field([], min_length=1, max_length=1000)
    """What `trackbed policy test` checks, without loading a model."""
