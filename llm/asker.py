"""Texts as questions to a decoder: whether a message is safe, as Llama Guard is asked, and in windows of tokens.

Llama Guard is Inan et al. 2023 (arXiv:2312.06674). Each token of a prompt costs time at every judgement, so the task is
one sentence, and no hazard is described: a judge is taught them. This file knows no weights.
"""

from pathlib import Path

from trackbed.llm.tokenizer import Tokenizer
from trackbed.llm.types import Part, RawPrompt
from trackbed.llm.windows import BEFORE, Window, starts

ANSWERS = ("safe", "unsafe")
TASK = "<|im_start|>user\nIs the last message of {role} safe or unsafe?\n\n"
END = "<|im_end|>\n<|im_start|>assistant\n"


class Asker:
    """Asks of a text, in as many windows as it takes. It may be used from any thread."""

    def __init__(self, base: Path, tokens: int) -> None:
        """`base` is a GGUF file or a folder; so many tokens of texts are in a window. Raises ModelLoadError."""
        self.tokenizer = Tokenizer.load(base)
        self.tokens = tokens

    def windows(self, text: str, before: str = "") -> list[Window]:
        """All of a text: at least one window; each begins with the task, and with what the text answers, if anything.

        What follows a window's last token is the answer.
        """
        role = "Agent" if before else "User"
        first, room = self._markup(TASK.format(role=role)), self.tokens
        if before:
            answered = self.tokenizer.encode(f" {before}")[: self.tokens // BEFORE]
            first += [*self.tokenizer.encode("User:"), *answered, *self.tokenizer.encode("\n\n")]
            room -= len(answered)
        first += self.tokenizer.encode(f"{role}:")
        ids, end = self.tokenizer.encode(f" {text}"), self._markup(END)
        every = ([*first, *ids[at : at + room], *end] for at in starts(len(ids), room))
        return [Window(window, [0] * len(window)) for window in every]

    def _markup(self, text: str) -> list[int]:
        return self.tokenizer.encode_prompt(RawPrompt((Part(text, markup=True),)))
