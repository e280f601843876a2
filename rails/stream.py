"""Show a draft while it is written: what is shown is judged, and is what the finished turn will say.

Each group of output rails turns a growing text into a growing beginning of what it will leave of the whole. The
groups stand behind each other as they do in the stage, and the citations come last. A rail that has to see the whole
text makes all of it wait. This file knows what is settled; it knows nothing of what a rail looks for.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any, get_args

from trackbed.rails.cite import cited_beginning
from trackbed.rails.marks import unmarked
from trackbed.rails.pseudonyms import complete, restored
from trackbed.rails.sentences import END, sentences
from trackbed.rails.stage import Look, Opinion, StagedRail, beginning, groups, judge, mask, may_wait, parts
from trackbed.rails.trace import digest
from trackbed.rails.types import Citation, Cite, Event, Finding, Streaming, Streams, Text, Trace, Turn, Verdict

if TYPE_CHECKING:
    from trackbed.rails.policy import RailUse

Emit = Callable[[Event], None]
SPANS = ("spans", "sentences")  # of these a rail says from where on its findings can still change


def streams(use: "RailUse") -> Streams:
    """How a rail judges a text that is still being written: its Config says it, else its class.

    What says nothing, or nonsense, needs the whole.
    """
    said: Any = getattr(use.config, "streams", None) or getattr(use.rail_class, "streams", "whole")
    how: Streams = said if said in get_args(Streams) else "whole"  # Any: whatever somebody's class says
    if how in SPANS and not callable(getattr(use.rail_class, "held", None)):
        return "whole"
    return how


def waits_for_the_end(use: "RailUse", streaming: Streaming | None) -> str:
    """Why a stream shows nothing before this rail has judged the whole draft; empty when it need not wait."""
    how = streams(use)
    if use.mode == "observe":
        return ""
    if how == "whole":
        return "it judges only a whole text"
    if use.then == "regenerate":
        return "a draft that may be made again cannot be shown"
    if how == "prefix" and use.then != "block":
        return f"it cannot {use.then} a text that is not finished"
    if how == "prefix" and streaming is None and may_wait(use.rail_class, use.config):
        return "it is asked about the beginnings of a text only where 'output' has a 'stream'"
    if use.when is not None and "text" in use.when.reads:
        return "its condition reads the text"
    return ""


@dataclass(slots=True)
class _Group:
    """Neighbouring rails, and how far they have come with the text that reaches them."""

    rails: tuple[StagedRail, ...]
    seen: int = 0  # characters of the text at the last look
    held: int = 0  # from where on its findings can still change
    found: tuple[Finding, ...] = ()  # what is to be rewritten before that

    @property
    def asks(self) -> bool:
        """Whether a look takes time, so that it is not taken at every token."""
        return not all(staged.immediate for staged in self.rails)

    @property
    def of_spans(self) -> bool:
        """Whether each of the rails says from where on its findings can still change, and is asked of every turn."""
        return all(streams(staged.use) in SPANS and staged.use.when is None for staged in self.rails)

    @property
    def of_beginnings(self) -> bool:
        """Whether one of the rails judges beginnings, and cannot say where what it objects to begins."""
        return any(streams(staged.use) == "prefix" for staged in self.rails)


class HoldBack:
    """Shows what is settled of one draft: `feed` it, and `close` it when the draft is written or given up."""

    def __init__(
        self,
        rails: Sequence[StagedRail],
        turn: Turn,
        streaming: Streaming | None,
        emit: Emit,
        quoted: Callable[[Turn, Citation, Trace], Awaitable[Citation]],
        cite: Cite = "when_possible",
    ) -> None:
        self.groups = [_Group(group) for group in groups([s for s in rails if s.use.mode == "enforce"])]
        self.turn = replace(turn, stage="output")
        self.streaming = streaming or Streaming()
        self.emit = emit
        self.quoted = quoted  # judges the words of a citation
        self.cite: Cite = cite
        self.opinions: Sequence[Opinion] = ()  # of the look that blocked
        self.draft = self.shown = ""
        self.citations = 0  # that have been shown
        self.tokens: list[tuple[int, float]] = []  # where in the draft each ends, and when it came
        self.fed = asyncio.Event()
        self.alarm: asyncio.TimerHandle | None = None
        self.task = asyncio.ensure_future(self._watch())

    @property
    def blocked(self) -> Verdict | None:
        """The verdict of a rail that has blocked what was written so far."""
        return next((opinion.verdict for opinion in self.opinions if opinion.blocks), None)

    async def feed(self, text: str) -> None:
        """Take the next piece of the draft, and let the looks that wait for it begin."""
        self.draft += text
        self.tokens.append((len(self.draft), perf_counter()))
        self.fed.set()
        await asyncio.sleep(0)

    async def close(self) -> None:
        """Show nothing more. Raises what went wrong in showing."""
        if self.alarm:
            self.alarm.cancel()
        self.task.cancel()
        await asyncio.wait({self.task})
        if not self.task.cancelled() and (error := self.task.exception()):
            raise error

    async def _watch(self) -> None:
        while not self.blocked:
            await self.fed.wait()
            self.fed.clear()
            await self._advance(self.draft)

    async def _advance(self, text: str) -> None:
        """Take the looks that are due, and show what has become settled."""
        following = ""  # a letter that comes next, unless nothing does
        for group in self.groups:
            if len(text) > group.seen and self._is_due(group, text):
                await self._look(group, text)
            left, settled = self._left(group, text)
            if settled < len(text):
                following = text[settled] if text[settled].isalpha() else ""
            text = left
        citations: tuple[Citation, ...] = ()
        if self.turn.passages or self.cite != "when_possible":
            begun = cited_beginning(text + following, self.turn.passages, self.cite)
            text, citations = begun.text, begun.citations
        text = complete(text, self.turn.pseudonyms)
        if len(text) > len(self.shown) and text.startswith(self.shown):
            # Not the beginning of a pseudonym: what is put in its place is shown in one piece.
            self.emit(Text(restored(text[len(self.shown) :], self.turn.pseudonyms)))
            self.shown = text
            for citation in citations[self.citations :]:
                self.emit(await self.quoted(self.turn, citation, Trace()))
            self.citations = max(self.citations, len(citations))
        self._set_alarm()

    def _is_due(self, group: _Group, text: str) -> bool:
        """Whether to look again: at every token where it takes no time, else after so many, a sentence, or a while."""
        return (
            not group.asks
            or not group.of_beginnings
            or len(text) - group.seen > self._kept_back()
            or _last_end(text) > group.seen
            or self._overdue() > group.seen
        )

    async def _look(self, group: _Group, text: str) -> None:
        """Have the rails judge the text as far as it is written."""
        view = replace(self.turn, text=text, draft=text)
        if group.of_spans and all(s.rail.held(view) <= group.held for s in group.rails):  # type: ignore[attr-defined]
            group.seen = len(text)  # nothing more is settled, so nothing that a look could tell would count
            return
        views = [self._view(staged, view) for staged in group.rails]
        looks = zip(group.rails, views, strict=True)
        opinions = await judge([Look(staged, seen, digest(seen.text), parts(seen)) for staged, seen in looks], {})
        held, found, blocked = len(text), list[Finding](), False
        for opinion in opinions:
            rail, verdict, start = opinion.staged.rail, opinion.verdict, len(text)
            how = streams(opinion.staged.use)
            if how in SPANS and not opinion.span.notes:  # else it was skipped
                start = max(group.held, min(rail.held(view), len(text)))  # type: ignore[attr-defined]  # it streams spans
            if opinion.blocks and (how == "prefix" or verdict.reason != "policy"):
                blocked, start = True, group.held
            elif opinion.blocks:
                settled = [f for f in verdict.findings if f.start < start]
                if opinion.staged.rewrites:
                    found += settled
                    start = max([start, *(f.end for f in settled)])
                elif settled:
                    blocked, start = True, min(f.start for f in settled)
                if not verdict.findings:  # it objects to what is written so far as a whole, which can still change
                    start = group.held
            held = min(held, start)
        if blocked:
            self.opinions = opinions
            group.held = max(group.held, held)  # what was seen before stays seen: nothing more is shown than this
        else:
            group.seen, group.held, group.found = len(text), held, tuple(found)

    def _view(self, staged: StagedRail, view: Turn) -> Turn:
        """What a rail is asked about: of sentences, those that are finished."""
        if streams(staged.use) != "sentences":
            return view
        return replace(view, text=view.text[: staged.rail.held(view)])  # type: ignore[attr-defined]

    def _left(self, group: _Group, text: str) -> tuple[str, int]:
        """What the group leaves of the text as far as that is settled, and how far that is."""
        settled = group.held
        if group.of_beginnings:
            settled = min(settled, self._behind(group, text))
        view, verdict = replace(self.turn, text=text[:settled]), Verdict.block(findings=group.found)
        if group.found:
            leave = getattr(group.rails[0].rail, "leave", None)
            if group.rails[0].use.then == "mask" and leave:
                return leave(view, group.found), settled
            text = (mask if group.rails[0].use.then == "mask" else beginning)(view, verdict) or ""
            if group.rails[0].use.then == "quote" and not sentences(unmarked(text)[0]):
                text = ""  # as the pipeline has it: what is no sentence says nothing
            return text, settled
        return text[:settled], settled

    def _behind(self, group: _Group, text: str) -> int:
        """How much of what was judged is far enough behind, or has waited long enough."""
        seen = text[: group.seen]
        sentence = _last_end(seen) if group.asks else 0
        waited = min(self._overdue(), len(seen))
        if waited < len(text):  # not inside a word
            waited = max(seen.rfind(" ", 0, waited), seen.rfind("\n", 0, waited)) + 1
        return max(sentence, waited, len(seen) - self._kept_back(), 0)

    def _kept_back(self) -> int:
        """How many characters the last tokens have that are kept back; more than there are, while there are too few.

        The token that is shown is one of those that a look covers, so one less is kept back.
        """
        reached = len(self.tokens) - self.streaming.hold_back + 1
        if reached < 1:
            return len(self.draft) + 1
        return len(self.draft) - (self.tokens[reached - 1][0] if reached else 0)

    def _overdue(self) -> int:
        """How many characters of the draft have waited as long as any may."""
        since = perf_counter() - self.streaming.max_delay
        return next((end for end, came in reversed(self.tokens) if came <= since), 0)

    def _set_alarm(self) -> None:
        """See to it that the next characters do not wait too long for tokens to come after them."""
        if self.alarm:
            self.alarm.cancel()
        overdue = self._overdue()
        if came := next((came for end, came in self.tokens if end > overdue), None):
            wait = max(0.0, came + self.streaming.max_delay - perf_counter())
            self.alarm = asyncio.get_running_loop().call_later(wait, self.fed.set)


def _last_end(text: str) -> int:
    """Where the last whole sentence ends; 0 where none does."""
    return max((match.end() for match in END.finditer(text)), default=0)
