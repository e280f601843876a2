"""Sampled tokens to the text that may leave: whole characters, and nothing that could begin a stop string.

This file knows tokens and text. It knows nothing of how tokens are made, or of who reads the text.
"""

from trackbed.llm.tokenizer import Tokenizer, TokenReader


class Output:
    """The text of one answer as it grows."""

    def __init__(self, tokenizer: Tokenizer, stop: tuple[str, ...]) -> None:
        self.stopped = False  # a stop string was found; the text ended before it
        self._reader = TokenReader(tokenizer)
        self._stop = stop
        self._longest = max(map(len, stop), default=0)
        self._released: list[str] = []
        self._held = ""

    @property
    def text(self) -> str:
        """What has been released, joined."""
        return "".join(self._released)

    def add(self, token: int) -> str:
        """The text that a token releases, which is often that of tokens before it."""
        return self._take(self._reader.read(token))

    def finish(self) -> str:
        """The text that was held back until now: no stop string can follow any more."""
        if self.stopped:
            return ""
        released = self._take(self._reader.finish())
        rest, self._held = self._held, ""
        self._released.append(rest)
        return released + rest

    def _take(self, text: str) -> str:
        grown = self._held + text
        # The one that is complete first; of two that end together, the longer.
        found = min(((at + len(s), at) for s in self._stop if (at := grown.find(s)) >= 0), default=None)
        if found:
            self.stopped, self._held = True, ""
            grown = grown[: found[1]]
        else:
            starts = range(max(len(grown) - self._longest, 0), len(grown))
            begun = next((at for at in starts if self._begins(grown[at:])), len(grown))
            grown, self._held = grown[:begun], grown[begun:]
        self._released.append(grown)
        return grown

    def _begins(self, text: str) -> bool:
        return any(stop.startswith(text) for stop in self._stop)
