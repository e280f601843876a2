"""A checkpoint's chat template: messages in, the text that its model was trained on out.

The template knows messages and strings. It knows nothing of tokens. It comes with the model's files, so
it runs in Jinja2's sandbox, and what it may write and multiply is bounded.
"""

import json
from collections.abc import Mapping
from collections.abc import Sequence as Seq
from datetime import datetime

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from trackbed.llm.errors import LLMError, ModelLoadError
from trackbed.llm.types import Message

MAX_SOURCE = 131_072  # characters of a template; the longest in use are about 20,000
MAX_WRITTEN = 65_536  # characters it may write beside the messages
MAX_COPIES = 4  # how often it may write them
# What a template's code can raise beside Jinja2's own errors, a runaway one included.
FAILURES = (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError, MemoryError)


class ChatTemplate:
    """The text of a conversation as its model knows it. Raises ModelLoadError where the source cannot be read."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        """`special_tokens` are those that templates name: `bos_token`, `eos_token`."""
        self.source = source
        if len(source) > MAX_SOURCE:
            raise ModelLoadError(f"the chat template has {len(source)} characters; the limit is {MAX_SOURCE}")
        try:
            self._compiled = ENVIRONMENT.from_string(source, globals=dict(special_tokens))
        except (jinja2.TemplateSyntaxError, RecursionError) as error:
            raise ModelLoadError(f"the chat template cannot be read: {error}") from error

    def render(self, messages: Seq[Message]) -> str:
        """The conversation, up to where the assistant's next words begin. Raises LLMError."""
        limit = MAX_WRITTEN + MAX_COPIES * sum(len(message.content) for message in messages)
        listed = [{"role": message.role, "content": message.content} for message in messages]
        pieces, written = [], 0
        try:
            for piece in self._compiled.generate(
                messages=listed, tools=None, documents=None, add_generation_prompt=True
            ):
                pieces.append(piece)
                written += len(piece)
                if written > limit:
                    raise LLMError(f"the chat template writes more than {limit} characters")
        except jinja2.TemplateError as error:
            raise LLMError(f"the chat template does not take these messages: {error.message}") from error
        except FAILURES as error:
            # Its message could hold what a user wrote.
            raise LLMError(f"the chat template failed on these messages: {type(error).__name__}") from error
        return "".join(pieces)


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja2's sandbox, in which numbers are multiplied and nothing else is."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: jinja2.runtime.Context, operator: str, left: object, right: object) -> object:
        """What an intercepted operator gives."""
        if operator == "*" and isinstance(left, int | float) and isinstance(right, int | float):
            return left * right
        raise jinja2.TemplateRuntimeError(f"{operator!r} is for two numbers, and not for powers")


def _to_json(value: object, ensure_ascii: bool = False, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


# The options and helpers that transformers gives to chat templates, which are written for them.
ENVIRONMENT = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
ENVIRONMENT.filters["tojson"] = _to_json
ENVIRONMENT.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
