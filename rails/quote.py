"""Answer with the passages' own sentences, where they speak of what is asked."""

from collections.abc import Sequence

from trackbed.rails.sentences import Sentence, content, sentences
from trackbed.rails.support import coverage
from trackbed.retrieval.types import Passage

QUOTED = 320  # characters of a quotation of two sentences, at most
ANSWERABLE = 0.6  # the share of a question's content words that the passages must have for a quotation


def quote(question: str, passages: Sequence[Passage]) -> str | None:
    """An answer in the passages' own words and in quotation marks: the best sentence for the question, and the next.

    None where the passages do not speak of what is asked.
    """
    if coverage(question, (f"{p.heading}\n{p.text}" for p in passages)) < ANSWERABLE:
        return None
    asked = _words(question)
    best, best_score = "", 0.0
    for passage in passages:
        heading = _words(passage.heading.rsplit(">", 1)[-1])
        under = len(asked & heading) / max(len(asked | heading), 1)
        said = sentences(passage.text)
        for place, sentence in enumerate(said):
            met = len(asked & (_words(sentence.text) | heading)) / len(asked)
            score = met + under + passage.score - 0.001 * place
            if score > best_score:
                best, best_score = _with_next(passage.text, said, place), score
    return f"“{' '.join(best.split())}”" if best else None


def _with_next(text: str, said: Sequence[Sentence], place: int) -> str:
    """A sentence, and the next one where it goes on in the same paragraph and both are short."""
    first = said[place]
    if place + 1 < len(said):
        second = said[place + 1]
        between = text[first.end : second.start]
        if not between.strip() and "\n\n" not in between and second.end - first.start <= QUOTED:
            return text[first.start : second.end]
    return first.text


def _words(text: str) -> frozenset[str]:
    return frozenset(content(text).stems)
