"""Language: let texts pass that are written in one of the languages that a policy allows.

py3langid tells languages apart by the bytes they are written with; its model comes with the package. What it cannot
tell from a short text, a number or a link is no language's, and the policy says what is made of that. A long text is
judged piece by piece, since the guess about a whole one grows flat; a foreign sentence in a piece goes by.
"""

import asyncio
import threading
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from trackbed.rails.config import RailConfig
from trackbed.rails.library.spans import fold
from trackbed.rails.types import Models, Stage, Streams, Then, Turn, Verdict

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

# ISO 639-1 codes of what is told apart. The model knows more; small neighbours of a large language would only take
# probability from it.
LANGUAGES = frozenset(
    """af am ar az be bg bn bs ca cs cy da de el en eo es et eu fa fi fr ga gl gu he hi hr ht hu hy id is it ja ka kk
    km kn ko ku ky la lb lo lt lv mg mk ml mn mr ms mt my ne nl nn no pa pl ps pt ro ru se si sk sl so sq sr sv sw
    ta te tg th tk tl tr ug uk ur uz vi xh yo zh zu""".split()  # noqa: SIM905
)
RARE = frozenset("eo la lb mg nn se tg tk".split())  # told apart only where the policy allows them  # noqa: SIM905
NO_LANGUAGE = "zxx"  # ISO 639-2: no linguistic content
SURE = 0.3  # a flatter guess than this is none
MAIN = 0.5  # the share of the allowed languages that settles it
PIECE = 2000  # characters that are judged together
LOCK = threading.Lock()


def _known(code: str) -> str:
    if code not in LANGUAGES:
        raise ValueError(f"{code!r} is no language that can be told; there are: {', '.join(sorted(LANGUAGES))}")
    return code


class Language:
    """Tells the language of a text."""

    stages: ClassVar[frozenset[Stage]] = frozenset({"input", "retrieval", "output"})
    streams: ClassVar[Streams] = "whole"
    actions: ClassVar[frozenset[Then]] = frozenset({"block", "drop", "regenerate"})

    class Config(RailConfig):
        """Which languages may be written, and how sure the guess has to be."""

        allow: Annotated[list[Annotated[str, AfterValidator(_known)]], Field(min_length=1)] = Field(
            description="Languages, by their ISO 639-1 codes: en, de."
        )
        threshold: float = Field(
            0.95,
            gt=0.5,
            le=1,
            description="The probability of all other languages together from which a text is blocked; lower blocks "
            "more.",
        )
        undecided: Literal["allow", "block"] = Field(
            "allow", description="What becomes of a text whose language cannot be told, such as `ok` or `12345`."
        )

    def __init__(self, config: Config, models: Models) -> None:
        self.config = config
        self.allowed = frozenset(config.allow)
        self.told = (LANGUAGES - RARE) | self.allowed | {NO_LANGUAGE}

    async def check(self, turn: Turn) -> Verdict:
        """Block what is surely in another language; the category is the likeliest one."""
        return await asyncio.get_running_loop().run_in_executor(None, self._judge, turn.text)

    def _judge(self, text: str) -> Verdict:
        plain = " ".join(word for word in fold(text).text.split() if _is_written(word))
        verdicts = [self._piece(plain[at : at + PIECE]) for at in range(0, len(plain), PIECE)]
        # The first block decides; one piece that can be told tells for those that cannot.
        told = [verdict for verdict in verdicts if verdict is not None]
        blocks = (verdict for verdict in told if verdict.action == "block")
        return next(blocks, max(told, key=_score) if told else self._undecided())

    def _piece(self, plain: str) -> Verdict | None:
        """What becomes of a piece by itself; None where its language cannot be told."""
        found = {code: float(p) for code, p in _identifier().rank(plain) if code in self.told}
        every = sum(found.values())
        best = max(found, key=found.__getitem__)
        other = round(1 - sum(found[code] for code in self.allowed) / every, 4)
        if other <= 1 - MAIN:
            return Verdict.allow(score=other)
        if best == NO_LANGUAGE or not found[best] / every >= SURE:
            return None
        if other >= self.config.threshold:
            return Verdict.block(detail=f"language {best}", categories=(best,), score=other)
        return Verdict.allow(score=other)

    def _undecided(self) -> Verdict:
        if self.config.undecided == "block":
            return Verdict.block(detail="language unknown", categories=("undecided",))
        return Verdict.allow(categories=("undecided",))


def _is_written(word: str) -> bool:
    """Whether a word is in some language: numbers, links and mail addresses are not.

    Links in other alphabets count as words, or a text without spaces would be gone with one sign at its beginning.
    """
    link = word.isascii() and ("://" in word or "." in word.partition("@")[2])
    return not link and any(c.isalpha() for c in word)


def _score(verdict: Verdict) -> float:
    return verdict.score or 0.0


def _identifier() -> "LanguageIdentifier":
    with LOCK:  # or two threads that begin at once would both read the model
        return _load()


@lru_cache(maxsize=1)
def _load() -> "LanguageIdentifier":
    """The model, which takes most of a second to read."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
