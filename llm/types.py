"""The nouns of text generation, and the protocol that everything which generates text satisfies.

Nothing here knows how text is made: no tensors, files or threads.
"""

from collections import abc
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation."""

    role: Role
    content: str


class Part(NamedTuple):
    """A stretch of a prompt that is written out in full."""

    text: str
    markup: bool = False  # True: special tokens written in it are tokens; False: they are letters


@dataclass(frozen=True, slots=True)
class RawPrompt:
    """A prompt written out in full, for a model that is not asked through its chat template.

    Only parts that are `markup` can hold special tokens, so what a user wrote goes in a part that is not.
    """

    parts: tuple[Part, ...]


Prompt = abc.Sequence[Message] | RawPrompt


@dataclass(frozen=True, slots=True)
class Choices:
    """The answers that are wanted: an opening, then one or more of the texts, none twice, with a separator between.

    Without a separator it is one of them. An engine that reads the logits itself writes nothing else. An endpoint
    cannot be held to it, and who asks one reads its answer as any other's.
    """

    texts: tuple[str, ...]
    opening: str = ""
    separator: str = ""

    def __post_init__(self) -> None:
        if not self.texts or "" in self.texts:
            raise ValueError("choices need a text each, and one text at least")
        if len(set(self.texts)) < len(self.texts):
            raise ValueError("a text stands twice among the choices")


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the next token is chosen, and when to stop."""

    temperature: float = 0.0  # 0 is greedy
    top_p: float = 1.0
    max_tokens: int = 256
    stop: tuple[str, ...] = ()  # the text ends before the first of these
    seed: int | None = None
    choices: Choices | None = None  # the answers that are wanted; any where there are none

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"temperature is {self.temperature}; it must be 0 (greedy) or more")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}; it must be above 0 and at most 1")
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens is {self.max_tokens}; it must be at least 1")
        if "" in self.stop:
            raise ValueError("stop holds an empty string, which would end every text at once")


class Usage(NamedTuple):
    """Tokens read and written."""

    prompt_tokens: int
    completion_tokens: int


FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Completion:
    """A finished text: it stopped by itself (or at a stop string), or ran into its length."""

    text: str
    finish_reason: FinishReason
    usage: Usage


class Delta(NamedTuple):
    """A piece of a streamed text; the last one, whose text may be empty, carries the whole completion."""

    text: str
    completion: Completion | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A model that another process serves over OpenAI's protocol."""

    url: str  # without the last part: http://localhost:8000/v1
    model: str  # as the endpoint calls it
    key_env: str = ""  # the environment variable that holds the key, where there is one

    def __str__(self) -> str:
        return f"{self.model} at {self.url}"


@dataclass(eq=False, slots=True)
class Sequence:
    """The tokens of one request in the engine, and how far it has got with them."""

    tokens: list[int]  # those that were given, and then what was sampled
    prompt_len: int  # tokens of the prompt
    max_len: int  # tokens at most, the prompt included
    ends: frozenset[int] = frozenset()  # tokens after which nothing is sampled
    scored: bool = False  # it is read for the logits of each token after the prompt; nothing is sampled
    done: int = 0  # tokens whose keys and values are in the cache
    blocks: list[int] = field(default_factory=list)  # of the cache, in order
    admitted: bool = False

    @property
    def pending(self) -> int:
        """Tokens that have yet to run."""
        return len(self.tokens) - self.done

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        if self.scored:
            return self.pending == 0
        return len(self.tokens) > self.prompt_len and (self.tokens[-1] in self.ends or len(self.tokens) >= self.max_len)


class Generator(Protocol):
    """Turns a prompt into text. Cancelling the awaiting task, or closing the stream, stops the work."""

    async def generate(self, prompt: Prompt, params: SamplingParams) -> Completion:
        """Answer the prompt. Raises PromptTooLong, EngineStopped."""
        ...

    def stream(self, prompt: Prompt, params: SamplingParams) -> abc.AsyncGenerator[Delta, None]:
        """Answer the prompt piece by piece; the pieces joined are the completion's text."""
        ...

    async def score(self, prompt: Prompt, continuations: abc.Sequence[str]) -> tuple[float, ...]:
        """The log-probability (natural, summed over its tokens) of each continuation after the prompt."""
        ...
