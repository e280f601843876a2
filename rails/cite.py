"""Tie the sentences of an answer to the passages behind them, or answer with the passages' own sentences.

`[n]` in a draft means passage n of the prompt. In the reply it means citation n, and stands only where a
passage supports the sentence.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from trackbed.rails.sentences import FENCE, Sentence, content, sentences
from trackbed.rails.support import Support, coverage, support
from trackbed.rails.types import Citation
from trackbed.retrieval.types import Passage

_NUMBERS = r"(?:\[\s?\d{1,3}(?:\s?[,;]\s?\d{1,3}){0,9}\s?\]){1,9}(?!\()"  # not before (: that is a link
MARK = re.compile(rf"^{_NUMBERS}[ \t]{{1,3}}|[ \t]{{0,3}}{_NUMBERS}", re.MULTILINE)
# In code `[1]` is an index: a fenced block, or a stretch of a line between backticks.
CODE = re.compile(r"^ {0,3}(?:```|~~~)(?s:.*?)(?:\n {0,3}(?:```|~~~)|\Z)|`[^`\n]*`", re.MULTILINE)
CODE_OR_MARK = re.compile(rf"(?P<code>{CODE.pattern})|{MARK.pattern}", re.MULTILINE)
MARKED, UNMARKED = 0.5, 0.75  # how far a passage must support a sentence that has a mark, and one that has none
QUOTED = 320  # characters of a quotation of two sentences, at most
ANSWERABLE = 0.6  # the share of a question's content words that the passages must have for a quotation


def cite(draft: str, passages: Sequence[Passage]) -> tuple[str, tuple[Citation, ...]]:
    """The draft with its marks checked, missing ones added and wrong ones dropped, and a citation for each number.

    Neighbouring sentences that rest on one passage share the mark behind the last of them. Numbers follow
    the order of appearance. A passage that was masked is cited whole, since its offsets no longer hold.
    """
    text, marks = unmarked(draft)
    return _marked(text, _runs(text, sentences(text), marks, passages), passages)


def cited_beginning(draft: str, passages: Sequence[Passage]) -> tuple[str, tuple[Citation, ...]]:
    """As much of what `cite` gives as is settled, however the draft goes on: a beginning, and its citations.

    A sentence is settled when the next one has begun; the mark of the last one, when it is known to be the
    last that rests on its passage.
    """
    text, marks = unmarked(draft)
    said = [s for s in sentences(text)[:-1] if s.end <= _undecided(text)]
    while said and not text[said[-1].end :].lstrip()[:1].isalpha():  # what follows may yet become a mark
        said.pop()
    if not said:
        return "", ()
    runs = _runs(text, said, marks, passages)
    if runs and runs[-1].end >= said[-1].end:  # the next sentence may rest on the same passage
        runs.pop()
    return _marked(text[: said[-1].end], runs, passages)


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


class _Run(NamedTuple):
    """Neighbouring sentences of the draft that one stretch of a passage supports."""

    passage: int
    start_in: int  # in the passage's text
    end_in: int
    end: int  # in the draft


def _runs(
    text: str, said: Sequence[Sentence], marks: Sequence[tuple[int, int]], passages: Sequence[Passage]
) -> list[_Run]:
    """The sentences that passages support, neighbours on the same passage together."""
    code = [match.span() for match in CODE.finditer(text)]
    runs: list[_Run] = []
    for sentence in said:
        named = [n for at, n in marks if sentence.start < at <= _reach(text, sentence)]
        found = _best(sentence.text, named, passages)
        if found is None:
            continue
        # A sentence can end inside code, and a mark cannot stand there.
        end = next((end for begin, end in code if begin < sentence.end < end), sentence.end)
        if runs and runs[-1].passage == found.passage and not text[runs[-1].end : sentence.start].strip():
            run = runs.pop()
            found = found._replace(start=min(run.start_in, found.start), end=max(run.end_in, found.end))
        runs.append(_Run(found.passage, found.start, found.end, end))
    return runs


def _undecided(text: str) -> int:
    """Where begins what a later backtick or fence could still make code of."""
    line = text.rpartition("\n")[2]
    fences = sum(1 for row in text.splitlines() if FENCE.match(row))
    if fences % 2:
        return max((m.start() for m in re.finditer(r"^ {0,3}(?:```|~~~)", text, re.MULTILINE)), default=len(text))
    return len(text) - len(line) + line.index("`") if "`" in line else len(text)


def unmarked(draft: str) -> tuple[str, list[tuple[int, int]]]:
    """The draft without its marks, and each mark's place in what is left with its number; code stays as it is."""
    left, marks = _taken_out(draft)
    while (again := _taken_out(left))[1]:  # `[1[2]]`: a mark around a mark means nothing
        left, nested = again
        marks = [mark for mark in marks if mark[0] < nested[0][0]]
    return left, marks


def _taken_out(draft: str) -> tuple[str, list[tuple[int, int]]]:
    pieces, marks, at, length = [], [], 0, 0
    for match in CODE_OR_MARK.finditer(draft):
        if match["code"]:
            continue
        pieces.append(draft[at : match.start()])
        length += match.start() - at
        at = match.end()
        marks += [(length, int(number)) for number in re.findall(r"\d+", match.group())]
    return "".join(pieces) + draft[at:], marks


def _reach(text: str, sentence: Sentence) -> int:
    """How far behind the sentence a mark still belongs to it: to its end, and the white space after it."""
    rest = text[sentence.end :]
    return sentence.end + len(rest) - len(rest.lstrip())


def _best(claim: str, named: Sequence[int], passages: Sequence[Passage]) -> Support | None:
    """The support of a sentence: from a passage that its marks name, else from any; None where there is too little."""
    for n in dict.fromkeys(named):
        if 1 <= n <= len(passages):
            found = support(claim, [passages[n - 1]])
            if found.score >= MARKED:
                return found._replace(passage=n - 1)
    found = support(claim, passages)
    return found if found.score >= (MARKED if named else UNMARKED) else None


def _marked(text: str, runs: Sequence[_Run], passages: Sequence[Passage]) -> tuple[str, tuple[Citation, ...]]:
    """The text with a mark behind each run."""
    citations: dict[tuple[str, int, int], Citation] = {}
    pieces, at = [], 0
    for run in runs:
        passage = passages[run.passage]
        start, end, said = (
            passage.start + run.start_in,
            passage.start + run.end_in,
            passage.text[run.start_in : run.end_in],
        )
        if len(passage.text) != passage.end - passage.start:
            start, end, said = passage.start, passage.end, passage.text
        key = (passage.source, start, end)
        cited = citations.setdefault(key, Citation(len(citations) + 1, passage.source, start, end, said))
        pieces += [text[at : run.end], f" [{cited.n}]"]
        at = run.end
    return ("".join(pieces) + text[at:]).strip(), tuple(citations.values())


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
