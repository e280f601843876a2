"""A text and a claim as a decoder reads them, to say whether the text supports the claim; in windows of tokens.

Whatever is written in a text, each part stands on one line, and what the model is asked comes last. A window of the
text comes first, so that claims about the same text share what is computed of it. This file knows no weights.
"""

from pathlib import Path

from trackbed.llm.tokenizer import Tokenizer
from trackbed.llm.windows import Window, starts

DOCUMENT, QUESTION, ANSWER, ASK = "Document:", "Question:", "Answer:", "\nSupported? "
MOST_ASKED = 48  # tokens of a question
MOST_CLAIMED = 120  # tokens of a claim that are judged at once

ENDS = (".", "!", "?", "…")  # of a sentence
QUOTES = "\"'”’»)] "


def is_sentence(claim: str) -> bool:
    """Whether a claim can be judged by itself, without the question that it answers.

    >>> is_sentence("It opened in 1923."), is_sentence("in 1923")
    (True, False)
    """
    return claim.rstrip(QUOTES).endswith(ENDS)


class Claims:
    """Writes questions about claims. It may be used from any thread."""

    def __init__(self, base: Path, tokens: int) -> None:
        """`base` is a GGUF file or a folder; so many tokens of texts are in a window. Raises ModelLoadError."""
        self.tokenizer = Tokenizer.load(base)
        self.tokens = tokens

    def windows(self, text: str, claim: str, question: str = "") -> list[list[Window]]:
        """For each part of the claim, which is one unless it is long: it beside each window of the text."""
        ids = self.line(text)
        claimed = self.line(claim)
        texts = [self.document(ids[at : at + self.tokens]) for at in starts(len(ids), self.tokens)]
        parts = [claimed[at : at + MOST_CLAIMED] for at in starts(len(claimed), MOST_CLAIMED)]
        return [[_window([*text, *self.asked(part, self.line(question))]) for text in texts] for part in parts]

    def line(self, text: str) -> list[int]:
        """The tokens of a text on one line; there are none where nothing is said."""
        said = " ".join(text.split())
        return self.tokenizer.encode(f" {said}") if said else []

    def document(self, ids: list[int]) -> list[int]:
        """The beginning of a window, which has these tokens of a text."""
        return [*self.tokenizer.encode(DOCUMENT), *ids, *self.tokenizer.encode("\n")]

    def asked(self, claimed: list[int], question: list[int]) -> list[int]:
        """The rest of a window: a question if there is one, what is claimed, and what is to be said of it."""
        encode = self.tokenizer.encode
        before = [*encode(QUESTION), *question[:MOST_ASKED], *encode("\n")] if question else []
        return [*before, *encode(ANSWER), *claimed, *encode(ASK)]


def _window(ids: list[int]) -> Window:
    return Window(ids, [0] * len(ids))
