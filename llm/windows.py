"""Texts as windows of tokens, and those that an encoder reads, of a BERT's vocabulary. This file knows no weights."""

from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from trackbed.llm.errors import ModelLoadError

OVERLAP = 4  # a window shares the fourth part of its room with the next
BEFORE = 3  # what a text answers gets the third part of a window, for its beginning


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of a text between its marks."""

    ids: list[int]
    kinds: list[int]  # 0 for what came before, 1 for the text; all 0 where nothing came before


def starts(tokens: int, room: int) -> range:
    """Where windows with so much room begin in a text of so many tokens."""
    step = room - room // OVERLAP
    return range(0, tokens - room + step, step) if tokens > room else range(1)


def read_tokenizer(base: Path) -> tuple[Tokenizer, tuple[int, int]]:
    """A BERT's tokenizer, and the tokens at both ends of a text. Raises ModelLoadError where it cannot be read."""
    file = base / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:
        raise ModelLoadError(f"{file} is not a tokenizer that can be read: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    start, end = (tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]"))
    if start is None or end is None:
        raise ModelLoadError(f"{file} has no [CLS] and [SEP], as a BERT's has")
    return tokenizer, (int(start), int(end))


class Reader:
    """Cuts texts into windows. Raises ModelLoadError for a folder whose tokenizer cannot be read."""

    def __init__(self, base: Path, tokens: int) -> None:
        self.tokenizer, (self.start, self.end) = read_tokenizer(base)
        self.tokens = tokens

    def windows(self, text: str, before: str = "") -> list[Window]:
        """All of a text: at least one window, and each at most `tokens` long; each begins with what came before."""
        first = self._ids(before)[: self.tokens // BEFORE] if before else []
        ids, room = self._ids(text), self.tokens - 2 - (len(first) + 1 if first else 0)
        return [self._window(first, ids[at : at + room]) for at in starts(len(ids), room)]

    def _window(self, first: list[int], ids: list[int]) -> Window:
        if not first:
            return Window([self.start, *ids, self.end], [0] * (len(ids) + 2))
        return Window([self.start, *first, self.end, *ids, self.end], [0] * (len(first) + 2) + [1] * (len(ids) + 1))

    def _ids(self, text: str) -> list[int]:
        """Its tokens. Lone surrogates, which no tokenizer takes, count as unknown letters, and nothing is a mark."""
        readable = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        readable = readable.replace("[", "[ ")  # a bracket is a token by itself, unless it begins a written [SEP]
        ids: list[int] = self.tokenizer.encode(readable, add_special_tokens=False).ids
        return ids
