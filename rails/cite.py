"""Tie the sentences of an answer to the passages behind them, claim by claim.

`[n]` in a draft means passage n of the prompt. In the reply it means citation n, and stands only where a passage
supports the sentence. This file decides where marks stand, which numbers they have, and what is left out where each
sentence needs one. What supports a sentence is `evidence.py`'s business.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from trackbed.rails.evidence import evidence, spoken
from trackbed.rails.marks import CODE, MARK, code_begins, decided, unmarked
from trackbed.rails.outline import PARAGRAPH, Part, claims_nothing, kept, outline
from trackbed.rails.sentences import Sentence, sentences
from trackbed.rails.support import Support
from trackbed.rails.types import Citation, Cite, Claim
from trackbed.retrieval.types import Passage

__all__ = ["CODE", "MARK", "Cited", "cite", "cited_beginning"]


class Cited(NamedTuple):
    """An answer with its marks, and what stands behind them."""

    text: str
    citations: tuple[Citation, ...] = ()
    claims: tuple[Claim, ...] = ()
    left_out: int = 0  # sentences, or whole quotations, that nothing supports
    whole: bool = True  # nothing is left out, nor of what claims nothing


def cite(draft: str, passages: Sequence[Passage], how: Cite = "when_possible") -> Cited:
    """The draft with its marks checked, missing ones added and wrong ones corrected, and a citation for each number.

    Numbers follow the order of appearance; the same span keeps its number. A passage that was masked is cited
    whole, since its offsets no longer hold. With `required`, what no passage supports is left out, and what claims
    nothing stays only beside something that is supported; with `none`, the draft only loses its marks.
    """
    text, marks = unmarked(draft)
    if how == "none":
        return Cited(text.strip())
    parts = outline(text)
    return _Writer(text, marks, passages, how).written(parts, whole=True)


def cited_beginning(draft: str, passages: Sequence[Passage], how: Cite = "when_possible") -> Cited:
    """As much of what `cite` gives as is settled, however the draft goes on: a beginning, and its citations.

    A sentence is settled when the next one has begun, and those of one quotation are together; with `required`,
    what claims nothing is settled when it is known whether what it stands with is supported.
    """
    text, marks = unmarked(decided(draft))
    said = sentences(text)
    if not said:
        return Cited("")
    parts, reach = outline(text), code_begins(text)
    last = next(i for i, part in enumerate(parts) if part.end >= said[-1].end)
    settled = next((i for i in range(last) if parts[i].end > reach), last)
    if how == "none":
        return Cited(text[: parts[settled - 1].end].lstrip() if settled else "")
    return _Writer(text, marks, passages, how).written(parts[:settled], whole=False)


@dataclass(slots=True)
class _Writer:
    """Puts an answer together, part by part."""

    text: str
    marks: Sequence[tuple[int, int]]
    passages: Sequence[Passage]
    how: Cite
    spoken: frozenset[str] = field(init=False)  # the stems of all that the passages speak of
    pieces: list[str] = field(default_factory=list)
    length: int = 0
    citations: dict[tuple[str, int, int], Citation] = field(default_factory=dict)
    claims: list[Claim] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.spoken = frozenset().union(*(spoken(p.text, p.heading) for p in self.passages))

    def written(self, parts: Sequence[Part], whole: bool) -> Cited:
        """The answer as far as it is made of these parts; the text's end too, where it is `whole`."""
        found = [[self._behind(sentence) for sentence in part.said] for part in parts]
        stands = [_stands(behind) for behind in found]
        stays = kept(parts, stands, whole) if self.how == "required" else [True] * len(parts)
        left_out, gaps = 0, list[str]()
        for i, (part, behind) in enumerate(zip(parts, found, strict=True)):
            gaps.append(self.text[parts[i - 1].end if i else 0 : part.start])
            if stays[i] is None:
                break
            if stays[i]:
                self._add(_between(gaps) if self.length else _first(gaps))
                self._write(part, behind)
                gaps = []
            else:
                left_out += stands[i] is False
        else:
            if whole and (stays[-1] if parts else self.how != "required"):
                self._add(self.text[parts[-1].end if parts else 0 :])
        text, complete = "".join(self.pieces).strip(), all(stays) and bool(parts or self.how != "required")
        return Cited(text, tuple(self.citations.values()), tuple(self.claims), left_out, complete)

    def _behind(self, sentence: Sentence) -> tuple[Support, ...] | None:
        """What supports a sentence; empty where nothing does, None where it claims nothing."""
        if claims_nothing(sentence.text, self.spoken):
            return None
        rest = self.text[sentence.end :]
        reach = sentence.end + len(rest) - len(rest.lstrip())  # a mark behind the white space belongs to it still
        named = [n for at, n in self.marks if sentence.start < at <= reach]
        return evidence(sentence.text, named, self.passages)

    def _write(self, part: Part, behind: Sequence[tuple[Support, ...] | None]) -> None:
        """A part with the marks of its sentences behind it; in a row of a table, in its last cell."""
        row = self.text.startswith("|", part.start) and self.text.endswith("|", part.start + 1, part.end)
        end = part.start + len(self.text[part.start : part.end - 1].rstrip()) if row else part.end
        moved = self.length - part.start
        numbers = self._numbers([support for supports in behind for support in supports or ()])
        self._add(self.text[part.start : end])
        if numbers:
            self._add(" " + "".join(f"[{n}]" for n in sorted(set(numbers.values()))))
        self._add(self.text[end : part.end])
        for sentence, supports in zip(part.said, behind, strict=True):
            if supports is not None:
                cited = tuple(sorted({numbers[support] for support in supports}))
                score = min((support.score for support in supports), default=0.0)
                stop = self.length if row else moved + sentence.end
                self.claims.append(Claim(moved + sentence.start, stop, cited, round(score, 4)))

    def _numbers(self, supports: Sequence[Support]) -> dict[Support, int]:
        """The number of the citation for each support; neighbours in a passage have one together."""
        joined: dict[Support, list[Support]] = {}
        for support in dict.fromkeys(sorted(supports, key=lambda s: (s.passage, s.start, s.end))):
            last = next(reversed(joined.values()), [])
            if last and self._touch(last, support):
                last.append(support)
            joined[support] = last if support in last else [support]
        return {support: self._cited(joined[support]) for support in supports}

    def _touch(self, last: Sequence[Support], following: Support) -> bool:
        """Whether one stretch of a passage goes on where others end."""
        reach = max(support.end for support in last)
        text = self.passages[following.passage].text
        return last[0].passage == following.passage and not text[reach : following.start].strip()

    def _cited(self, supports: Sequence[Support]) -> int:
        """The number of the citation of one stretch of a passage."""
        passage = self.passages[supports[0].passage]
        begins, ends = min(s.start for s in supports), max(s.end for s in supports)
        start, end, quote = passage.start + begins, passage.start + ends, passage.text[begins:ends]
        page = passage.page
        if len(passage.text) != passage.end - passage.start:
            start, end, quote = passage.start, passage.end, passage.text
        elif page is not None:
            page += bisect_right(passage.pages, start)
        score = round(min(support.score for support in supports), 4)
        cited = Citation(len(self.citations) + 1, passage.source, start, end, quote, page, passage.heading, score)
        return self.citations.setdefault((passage.source, start, end), cited).n

    def _add(self, piece: str) -> None:
        self.pieces.append(piece)
        self.length += len(piece)


def _stands(behind: Sequence[tuple[Support, ...] | None]) -> bool | None:
    """Whether all that a part claims is supported; None where it claims nothing."""
    claimed = [supports for supports in behind if supports is not None]
    return all(claimed) if claimed else None


def _between(gaps: Sequence[str]) -> str:
    """What stands before a part, of all that stood between it and the last one that stays: the widest break, and the
    sign of its item of a list.
    """
    if len(gaps) == 1:
        return gaps[0]
    if not any("\n" in gap for gap in gaps):
        return " "
    return ("\n\n" if any(PARAGRAPH.search(gap) for gap in gaps) else "\n") + _sign(gaps)


def _first(gaps: Sequence[str]) -> str:
    """What stands before the first part that stays."""
    return (gaps[0] if len(gaps) == 1 else _sign(gaps)).lstrip()


def _sign(gaps: Sequence[str]) -> str:
    """What the line of the last part begins with: the sign of an item of a list, or nothing."""
    begins = next((gap for gap in reversed(gaps) if "\n" in gap), gaps[0])
    return begins.rpartition("\n")[2]
