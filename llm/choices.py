"""Which tokens may come next, so that an answer is one of those that were asked for.

The texts become paths of token ids, as the vocabulary writes them; what has been written so far leaves some of
them open. This file knows ids alone: no logits, and nothing of how one of the ids is chosen.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from trackbed.llm.errors import LLMError
from trackbed.llm.types import Choices

Encode = Callable[[str], list[int]]


class _Path(NamedTuple):
    """One way on: the tokens that it still has, and the texts that may follow it, by their places."""

    rest: tuple[int, ...]
    left: frozenset[int]


class OpenChoices:
    """The choices that are still open, as an answer grows token by token."""

    def __init__(self, choices: Choices, encode: Encode, ends: frozenset[int]) -> None:
        """`encode` gives the tokens of a text, and `ends` are those that end an answer. Raises LLMError without one."""
        if not ends:
            raise LLMError("this checkpoint names no token that ends an answer, so no choice can be ended")
        every = frozenset(range(len(choices.texts)))
        # Joined before they are encoded: a text may share a token with what stands before it.
        first = [tuple(encode(choices.opening + text)) for text in choices.texts]
        self._more = [tuple(encode(choices.separator + text)) for text in choices.texts]
        self._ends = ends
        left = every if choices.separator else frozenset[int]()
        self._paths = frozenset(_Path(tokens, left - {i}) for i, tokens in enumerate(first))

    @property
    def tokens(self) -> tuple[int, ...]:
        """The ids of which one comes next, in order; none once nothing can follow."""
        following = {path.rest[0] for path in self._onward()}
        ending = following and any(not path.rest for path in self._paths)
        return tuple(sorted(following | self._ends if ending else following))

    def take(self, token: int) -> None:
        """Go on with one of `tokens`."""
        self._paths = frozenset(_Path(path.rest[1:], path.left) for path in self._onward() if path.rest[0] == token)

    def _onward(self) -> Iterable[_Path]:
        """The ways that have a token left: a text that is whole may be followed by each that is not used."""
        for path in self._paths:
            if path.rest:
                yield path
            else:
                yield from (_Path(self._more[i], path.left - {i}) for i in path.left)
