"""One turn, top to bottom: `respond` answers it, `stream` answers it piece by piece, `check` only judges.

The pipeline knows the order of the steps. It knows nothing of what rails look for, where passages come
from, or how text is made.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from time import perf_counter

from trackbed.llm.types import Completion, Message
from trackbed.rails.cite import cite, quote
from trackbed.rails.policy import Policy
from trackbed.rails.prompt import render_prompt
from trackbed.rails.sentences import sentences
from trackbed.rails.stage import Rewriter, StagedRail, drop, mask, merge, run_stage
from trackbed.rails.types import (
    Citation,
    Done,
    Event,
    Models,
    Progress,
    Reply,
    Span,
    Stage,
    Text,
    Then,
    Trace,
    Turn,
    Verdict,
)
from trackbed.retrieval.types import Passage, Retriever

Listener = Callable[[Event], None]


class Pipeline:
    """A policy at work, over the models and the index that it names."""

    def __init__(self, policy: Policy, models: Models, retriever: Retriever | None = None) -> None:
        self.policy = policy
        self.models = models
        self.retriever = retriever
        self.rails: Mapping[Stage, tuple[StagedRail, ...]] = {
            stage: tuple(StagedRail(use, use.rail_class(use.config, models)) for use in uses)
            for stage, uses in policy.rails.items()
        }
        self.rewriters: Mapping[Then, Rewriter] = {"mask": mask, "drop": drop, "quote": self._quote}

    async def respond(self, turn: Turn, listen: Listener = lambda _: None) -> Reply:
        """Answer one turn, or refuse it. This is the whole of it; each paragraph is one step.

        Raises ValueError where the turn's variables do not fit the policy's, and what the model or the index raise.
        """
        trace = Trace()
        turn = _untrusted(self.policy.bind(turn))

        listen(Progress("input"))
        turn, asked = await self._run("input", turn, trace)
        if asked.action == "block":
            return self._refuse(turn, asked, trace)

        listen(Progress("retrieval"))
        turn = await self._search(turn, trace)
        turn, found = await self._run("retrieval", turn, trace)
        if found.action == "block":
            return self._refuse(turn, found, trace)
        if self.retriever and not turn.passages:
            return self._reply(turn, self.policy.generation.unknown, merge([asked, found]), trace)

        turn = await self._draft(turn, trace, listen)
        listen(Progress("output"))
        turn, answered = await self._run("output", turn, trace)
        if answered.action == "block" and self._regenerates(answered):
            turn = await self._draft(turn, trace, listen)
            turn, answered = await self._run("output", turn, trace)
        if answered.action == "block":
            return self._refuse(turn, answered, trace)

        return self._reply(turn, turn.draft or "", merge([asked, found, answered]), trace)

    async def stream(self, turn: Turn) -> AsyncGenerator[Event, None]:
        """The same turn as events: what it is at, the pieces of the reply, and last the reply itself.

        A piece leaves only when every output rail has passed the whole text, so what is shown is what
        `respond` returns. Without output rails and without passages, pieces leave as they are written.
        """
        events: asyncio.Queue[Event | None] = asyncio.Queue()
        task = asyncio.ensure_future(self.respond(turn, events.put_nowait))
        task.add_done_callback(lambda _: events.put_nowait(None))
        released = 0
        try:
            while (event := await events.get()) is not None:
                released += len(event.text) if isinstance(event, Text) else 0
                yield event
            reply = await task
        finally:
            task.cancel()
        if len(reply.text) > released:
            yield Text(reply.text[released:])
        yield Done(reply)

    async def check(self, stage: Stage, text: str, turn: Turn | None = None) -> tuple[Verdict, Trace]:
        """Judge a text as that stage would, without generating; `turn` is what it belongs to.

        The verdict of a rewrite carries the text that all rails of the stage leave.
        """
        turn = turn or Turn("")
        if stage == "input":
            turn = replace(turn, question=text)
        elif stage == "output":
            turn = replace(turn, draft=text)
        else:
            turn = replace(turn, passages=(Passage(text, source="", start=0, end=len(text)),))
        turn, verdict, trace = await self.judge(stage, turn)
        if verdict.action == "rewrite":
            left = {"input": turn.question, "output": turn.draft, "retrieval": "".join(p.text for p in turn.passages)}
            verdict = replace(verdict, text=left[stage])
        return verdict, trace

    async def judge(self, stage: Stage, turn: Turn) -> tuple[Turn, Verdict, Trace]:
        """The turn as one stage's rails leave it, for who does the rest of the turn elsewhere."""
        trace = Trace()
        turn, verdict = await self._run(stage, _untrusted(self.policy.bind(turn)), trace)
        return turn, verdict, trace

    async def _run(self, stage: Stage, turn: Turn, trace: Trace) -> tuple[Turn, Verdict]:
        return await run_stage(stage, self.rails.get(stage, ()), turn, trace, self.rewriters)

    async def _search(self, turn: Turn, trace: Trace) -> Turn:
        """The turn with the passages that bear on its question, none below the policy's minimum score."""
        if self.retriever is None or self.policy.knowledge is None:
            return turn
        started, knowledge = perf_counter(), self.policy.knowledge
        found = await self.retriever.search(turn.question, knowledge.passages)
        kept = tuple(passage for passage in found if passage.score >= knowledge.minimum_score)
        best = round(found[0].score, 4) if found else None
        notes = {"passages": len(kept), "best_score": best}
        trace.add(Span("retrieval", "search", 1000 * (perf_counter() - started), notes=notes))
        return replace(turn, passages=kept)

    async def _draft(self, turn: Turn, trace: Trace, listen: Listener) -> Turn:
        """The turn with the model's answer, not judged yet. Raises what the model raises."""
        started, generation = perf_counter(), self.policy.generation
        live = not self.rails.get("output") and not turn.passages
        tokens, completion = 0, None
        async with aclosing(
            self.models.generators[generation.model].stream(render_prompt(turn, self.policy), generation.sampling)
        ) as deltas:
            async for delta in deltas:
                tokens, completion = tokens + 1, delta.completion
                if delta.text:
                    listen(Text(delta.text) if live else Progress("generation", tokens))
        assert completion is not None
        notes = {"model": generation.model, "finish_reason": completion.finish_reason}
        trace.add(
            Span("generation", "generate", 1000 * (perf_counter() - started), usage=completion.usage, notes=notes)
        )
        return replace(turn, draft=_whole(completion) if turn.passages else completion.text)

    def _regenerates(self, verdict: Verdict) -> bool:
        """Whether the policy has a second draft made after this block: for a judgement, not for a failure to judge."""
        uses = self.policy.rails.get("output", ())
        return verdict.reason == "policy" and any(u.id == verdict.rail and u.then == "regenerate" for u in uses)

    def _refuse(self, turn: Turn, verdict: Verdict, trace: Trace) -> Reply:
        """The policy's words of refusal. The refused question does not enter the conversation."""
        messages = turn.history[: turn.judged]
        return Reply(self.policy.refusal(verdict, turn), (), trace, verdict, messages, turn.remembers(messages))

    def _reply(self, turn: Turn, text: str, verdict: Verdict, trace: Trace) -> Reply:
        """The answer with its citations."""
        citations: tuple[Citation, ...] = ()
        if turn.passages:
            started = perf_counter()
            text, citations = cite(text, turn.passages)
            notes = {"citations": len(citations)}
            trace.add(Span("output", "cite", 1000 * (perf_counter() - started), notes=notes))
        messages = (*turn.history, Message("user", turn.question), Message("assistant", text))
        return Reply(text, citations, trace, verdict, messages, turn.remembers(messages))

    def _quote(self, turn: Turn, verdict: Verdict) -> str | None:
        """The passages' own sentences instead of a draft that they do not support; where they have none, `unknown`."""
        return quote(turn.question, turn.passages) or self.policy.generation.unknown


def _whole(completion: Completion) -> str:
    """The text without the sentence that its length cut off, unless that is all there is."""
    said = sentences(completion.text)
    if completion.finish_reason == "stop" or len(said) < 2 or completion.text.rstrip().endswith((".", "!", "?")):
        return completion.text
    return completion.text[: said[-2].end]


def _untrusted(turn: Turn) -> Turn:
    """The turn without the system messages that its caller claims: they are texts like any other."""
    roles = [Message("user", m.content) if m.role == "system" else m for m in turn.history]
    return replace(turn, history=tuple(roles))
