"""One turn, top to bottom: `respond` answers it, `stream` answers it piece by piece, `check` only judges.

The pipeline knows the order of the steps. It knows nothing of what rails look for, where passages come
from, or how text is made.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING

from trackbed.llm.types import Completion, Delta, Message
from trackbed.rails import telemetry
from trackbed.rails.ahead import Ahead, Listener, tell
from trackbed.rails.budget import METER, Admission, Meter, Metered
from trackbed.rails.calls import check_call, check_result
from trackbed.rails.cite import Cited, cite
from trackbed.rails.errors import BudgetSpent, TemplateFailed
from trackbed.rails.marks import unmarked
from trackbed.rails.prompt import render_prompt
from trackbed.rails.pseudonyms import hidden, hide, restored
from trackbed.rails.quote import quote
from trackbed.rails.rewrite import NONE, ask_rewrite, rewrite
from trackbed.rails.sentences import sentences
from trackbed.rails.stage import Opinion, Rewriter, StagedRail, beginning, drop, mask, merge, run_stage
from trackbed.rails.stream import HoldBack, waits_for_the_end
from trackbed.rails.sync import run_sync
from trackbed.rails.types import (
    Blocked,
    Citation,
    Claim,
    Done,
    Event,
    Models,
    Progress,
    Replace,
    Reply,
    Scripted,
    Span,
    Stage,
    Text,
    Then,
    ToolCall,
    ToolCheck,
    Trace,
    Turn,
    Verdict,
)
from trackbed.retrieval.found import find
from trackbed.retrieval.types import Passage, Retriever

if TYPE_CHECKING:  # who holds a policy has loaded what reads one; this file need not
    from trackbed.rails.policy import Policy


Script = Callable[[Turn, Trace], Awaitable[Scripted]]


class Pipeline:
    """A policy at work, over the models and the index that it names."""

    def __init__(self, policy: "Policy", models: Models, retriever: Retriever | None = None) -> None:
        self.policy = policy
        self.models = models
        self.generators = {name: Metered(generator) for name, generator in models.generators.items()}
        self.answering = Metered(models.answering) if models.answering else None
        self.retriever = retriever
        self.rails: Mapping[Stage, tuple[StagedRail, ...]] = {
            stage: tuple(
                StagedRail(use, use.rail_class(use.config, replace(models, generators=self.generators))) for use in uses
            )
            for stage, uses in policy.rails.items()
        }
        self.script: Script | None = None
        if policy.dialog:
            # Imported here, since it needs what reads policies, which has been loaded with this one.
            from trackbed.rails.flows import run_flow
            from trackbed.rails.intents import Intents

            intents = Intents(policy.dialog, replace(models, generators=self.generators))
            self.script = partial(run_flow, policy.dialog, intents, self._returned)
        self.rewriters: Mapping[Then, Rewriter] = {"mask": mask, "drop": drop, "quote": self._quote}
        # What is drafted ahead is drafted beside the rails that only judge: what is masked, no model sees.
        asked = self.rails.get("input", ())
        last = max((i for i, staged in enumerate(asked, start=1) if staged.rewrites), default=0)
        self.before, self.beside = asked, asked[len(asked) :]
        if policy.generation.ahead and not self.script:  # a flow may ask no model at all
            self.before, self.beside = asked[:last], asked[last:]
        # They can say what is wrong with a few words of a document, and so judge quotations.
        # One that may answer with quotations compares an answer with them, and has nothing to say of them.
        self.finders = [
            staged
            for staged in self.rails.get("output", ())
            if "mask" in (can := staged.use.rail_class.actions) and "quote" not in can
        ]
        self.maskers = [staged for staged in self.rails.get("retrieval", ()) if staged.use.then == "mask"]
        self.admission = Admission(policy.budget)
        # Whether a stream shows nothing before the draft is written and judged.
        self.shows_late = policy.generation.redraft or any(
            waits_for_the_end(staged.use, policy.stream) for staged in self.rails.get("output", ())
        )

    async def respond(self, turn: Turn, listen: Listener | None = None) -> Reply:
        """Answer one turn, or refuse it, within the policy's budget.

        Raises TooBusy, ValueError where the turn's variables do not fit the policy's, and what the model or the index
        raise.
        """
        trace = Trace()
        if not telemetry.present():
            return await self._respond(turn, trace, listen)
        with telemetry.observed(self.policy, turn, trace) as told:
            return told(await self._respond(turn, trace, listen))

    async def _respond(self, turn: Turn, trace: Trace, listen: Listener | None) -> Reply:
        """One turn within the policy's budget."""
        turn = hidden(_untrusted(self.policy.bind(turn)))
        meter = METER.set(Meter(self.policy.budget.model_calls))
        try:
            async with self.admission, asyncio.timeout(self.policy.budget.wall) as clock:
                return await self._answer(turn, trace, listen)
        except BudgetSpent:
            return self._refuse(turn, Verdict.block(reason="error", detail="model calls"), trace)
        except TemplateFailed:
            return self._refuse(turn, Verdict.block(reason="error", detail="the prompt"), trace)
        except TimeoutError:
            if not clock.expired():
                raise
            return self._refuse(turn, Verdict.block(reason="timeout", detail="the turn's time"), trace)
        finally:
            METER.reset(meter)

    async def _answer(self, turn: Turn, trace: Trace, listen: Listener | None) -> Reply:
        """One turn, from top to bottom. This is the whole of it; each paragraph is one step."""
        tell(listen, Progress("input"))
        turn, asked = await self._run("input", turn, trace, self.before)
        if asked.action == "block":
            return self._refuse(turn, asked, trace)
        async with Ahead(self._prepare, turn, listen, wanted=bool(self.beside)) as ahead:
            turn, judged = await self._run("input", turn, trace, self.beside)
            if judged.action == "block":
                return self._refuse(turn, judged, trace)
            asked = merge([asked, judged])
            scripted = await self._scripted(turn, trace, listen)
            turn = scripted.turn
            if scripted.then == "refuse":
                return self._refuse(turn, scripted.verdict, trace)
            if scripted.then == "reply":
                return await self._reply(turn, "", asked, trace)
            turn, found = await ahead.prepared(turn, trace)
        if found.action == "block":
            return self._refuse(turn, found, trace)
        if turn.draft is None:
            return await self._reply(turn, self.policy.generation.unknown, merge([asked, found]), trace)

        tell(listen, Progress("output"))
        turn, answered = await self._run("output", turn, trace)
        if self._regenerates(turn, answered):
            turn, _ = await self._draft(turn, trace, listen)
            turn, answered = await self._run("output", turn, trace)
        if answered.action == "block":
            return self._refuse(turn, answered, trace)

        return await self._reply(turn, turn.draft or "", merge([asked, found, answered]), trace)

    async def _prepare(self, turn: Turn, trace: Trace, listen: Listener | None) -> tuple[Turn, Verdict]:
        """The turn with its passages and a draft; there is none where a rail blocks, or nothing was found."""
        tell(listen, Progress("retrieval"))
        turn = await self._search(turn, trace)
        turn, found = await self._run("retrieval", turn, trace)
        if found.action == "block" or (self.retriever and not turn.passages):
            return turn, found
        turn, written = await self._draft(turn, trace, listen)
        return turn, merge([written, found])

    async def stream(self, turn: Turn) -> AsyncGenerator[Event, None]:
        """The same turn as events: what it is at, the pieces of the reply, and last the reply itself.

        A piece leaves only when the output rails have passed it for good, so what is shown is what `respond` returns. A
        rail that needs the whole text makes all of it wait.
        """
        events: asyncio.Queue[Event | None] = asyncio.Queue()
        task = asyncio.ensure_future(self.respond(turn, events.put_nowait))
        task.add_done_callback(lambda _: events.put_nowait(None))
        shown, cited = "", 0
        try:
            while (event := await events.get()) is not None:
                shown += event.text if isinstance(event, Text) else ""
                cited += isinstance(event, Citation)
                yield event
            reply = await task
        finally:
            task.cancel()
        if reply.verdict.action == "block":
            yield Blocked(reply.verdict)
        if not reply.text.startswith(shown):
            yield Replace(reply.text)
        elif len(reply.text) > len(shown):
            yield Text(reply.text[len(shown) :])
        for citation in reply.citations[cited:]:
            yield citation
        yield Done(reply)

    def respond_sync(self, turn: Turn) -> Reply:
        """Answer one turn for a caller that cannot await: from a thread, a notebook, or inside a running event loop.

        It blocks the thread that calls it. Raises what `respond` raises.
        """
        return run_sync(self.respond(turn))

    async def check(self, stage: Stage, text: str, turn: Turn | None = None) -> tuple[Verdict, Trace]:
        """Judge a text as that stage would, without generating; `turn` is what it belongs to.

        The verdict of a rewrite carries the text that all rails of the stage leave.
        """
        turn = turn or Turn("")
        if stage == "tools":
            raise ValueError("what tools are called with is judged by check_call, and what they return by check_result")
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

    async def check_call(self, call: ToolCall, turn: Turn | None = None) -> ToolCheck:
        """Judge a call that a model wants made, before it is: without a policy's leave, none is."""
        return await check_call(self.policy, self.rails.get("tools", ()), call, turn or Turn(""))

    async def check_result(self, call: ToolCall, result: str, turn: Turn | None = None) -> ToolCheck:
        """Judge what a call has returned, before a model reads it."""
        return await check_result(self.policy, self.rails.get("tools", ()), call, result, turn or Turn(""))

    async def judge(self, stage: Stage, turn: Turn) -> tuple[Turn, Verdict, Trace]:
        """The turn as one stage's rails leave it, for who does the rest of the turn elsewhere."""
        trace = Trace()
        draft = turn.draft
        turn = replace(_untrusted(self.policy.bind(turn)), draft=draft)
        turn, verdict = await self._run(stage, hidden(turn), trace)
        if stage == "output" and turn.draft is not None and verdict.action != "block":
            turn = replace(turn, draft=restored(turn.draft, turn.pseudonyms))
        return turn, verdict, trace

    async def _run(
        self, stage: Stage, turn: Turn, trace: Trace, rails: Sequence[StagedRail] | None = None
    ) -> tuple[Turn, Verdict]:
        return await run_stage(
            stage, self.rails.get(stage, ()) if rails is None else rails, turn, trace, self.rewriters
        )

    async def _scripted(self, turn: Turn, trace: Trace, listen: Listener | None) -> Scripted:
        """What the policy's dialog makes of the turn; without one, a model is to answer."""
        if self.script is None:
            return Scripted(turn, "answer")
        scripted = await self.script(turn, trace)
        if scripted.then == "answer" and scripted.turn.said:
            said = restored(scripted.turn.said, turn.pseudonyms)
            tell(listen, Text(f"{said}\n\n"))
        return scripted

    async def _search(self, turn: Turn, trace: Trace) -> Turn:
        """The turn with the passages that bear on its question, none below the policy's minimum score."""
        if self.retriever is None or self.policy.knowledge is None:
            return turn
        knowledge, also = self.policy.knowledge, await self._also(turn, trace)
        started = perf_counter()
        found, how = await find(self.retriever, knowledge.query(turn, also), knowledge.passages)
        kept = tuple(passage for passage in found if passage.score >= knowledge.minimum_score)
        best = round(found[0].score, 4) if found else None
        notes = {"passages": len(kept), "best_score": best, **how}
        ended = perf_counter()
        trace.add(Span("retrieval", "search", 1000 * (ended - started), notes=notes, ended=ended))
        return hidden(replace(turn, passages=kept))

    async def _also(self, turn: Turn, trace: Trace) -> tuple[str, ...]:
        """What is sought beside the question, which may lean on the conversation. A model that fails adds nothing."""
        knowledge = self.policy.knowledge
        if knowledge is None or knowledge.rewrite == NONE or not turn.history:
            return ()
        if knowledge.asks is None:
            return rewrite(turn.question, turn.history)
        started = perf_counter()
        made = await ask_rewrite(self.generators[knowledge.asks], turn.question, turn.history)
        ended, notes = perf_counter(), {"model": knowledge.asks, "rewritten": len(made.also)}
        span = Span("retrieval", "rewrite", 1000 * (ended - started), error=made.error, calls=1, notes=notes)
        trace.add(span._replace(usage=made.usage, ended=ended))
        return made.also

    async def _draft(self, turn: Turn, trace: Trace, listen: Listener | None) -> tuple[Turn, Verdict]:
        """The turn with the model's answer, judged only as far as it was shown. Raises what the model raises."""
        started, generation = perf_counter(), self.policy.generation
        model, prompt = self.answering or self.generators[generation.model], render_prompt(turn, self.policy)
        if turn.pseudonyms:  # a value may also stand in the caller's variables
            prompt = tuple(Message(message.role, hide(message.content, turn.pseudonyms)) for message in prompt)
        completion: Completion | None
        opinions: Sequence[Opinion] = ()
        if listen is None:
            completion = await model.generate(prompt, generation.sampling)
        else:
            completion, opinions = await self._written(model.stream(prompt, generation.sampling), turn, listen)
        notes = {"model": generation.model, "finish_reason": completion.finish_reason if completion else "blocked"}
        usage = completion.usage if completion else None
        ended = perf_counter()
        span = Span("generation", "generate", 1000 * (ended - started), usage=usage, calls=1, notes=notes, ended=ended)
        trace.add(span)
        if completion is None:
            trace.spans += [opinion.span for opinion in opinions]
            return turn, next(opinion.verdict for opinion in opinions if opinion.blocks)
        return turn.having(draft=_whole(completion) if turn.passages else completion.text), Verdict.allow()

    async def _written(
        self, deltas: AsyncGenerator[Delta, None], turn: Turn, listen: Listener
    ) -> tuple[Completion | None, Sequence[Opinion]]:
        """What the model writes, shown as far as it is settled; no completion where a rail has blocked it, and why."""
        hold = (
            None
            if self.shows_late
            else HoldBack(
                self.rails.get("output", ()),
                turn,
                self.policy.stream,
                listen,
                self._quoted,
                self.policy.generation.cite,
            )
        )
        completion, tokens = None, 0
        try:
            async with aclosing(deltas):
                async for delta in deltas:
                    tokens, completion = tokens + 1, delta.completion
                    listen(Progress("generation", tokens))
                    if hold and delta.text:
                        await hold.feed(delta.text)
                    if hold and hold.blocked and not completion:
                        return None, hold.opinions
        finally:
            if hold:
                await hold.close()
        assert completion is not None
        return completion, ()

    def _regenerates(self, turn: Turn, verdict: Verdict) -> bool:
        """Whether the policy has a second draft made: for a judgement, not for a failure to judge, or for sentences
        that nothing supports.
        """
        if verdict.action != "block":
            return self.policy.generation.redraft and not self._cited(turn).whole
        uses = self.policy.rails.get("output", ())
        return verdict.reason == "policy" and any(u.id == verdict.rail and u.then == "regenerate" for u in uses)

    def _refuse(self, turn: Turn, verdict: Verdict, trace: Trace) -> Reply:
        """The policy's words of refusal. The refused question does not enter the conversation."""
        messages = turn.history[: turn.judged]
        words = restored(self.policy.refusal(verdict, turn), turn.pseudonyms)
        return Reply(words, (), trace, verdict, messages, turn.remembers(messages), turn.pseudonyms, turn.principals)

    async def _reply(self, turn: Turn, text: str, verdict: Verdict, trace: Trace) -> Reply:
        """The answer with its citations; what the policy wants no answer to say without one is left out."""
        cited = Cited(text)
        if turn.draft is not None and (turn.passages or self.policy.generation.cite != "when_possible"):
            started, generation = perf_counter(), self.policy.generation
            cited = self._cited(turn)
            citations = tuple([await self._quoted(turn, citation, trace) for citation in cited.citations])
            text, own = cited.text, None
            if not cited.whole:
                told = f"\n\n{generation.left_out}" if cited.left_out else ""
                text = f"{text}{told}" if text else generation.unknown
                own = Verdict.rewrite(text, detail="what no passage supports").named("output", "cite")
                verdict = merge([verdict, own])
            cited = cited._replace(text=text, citations=citations)
            notes = {"citations": len(citations)} | ({"left_out": cited.left_out} if cited.left_out else {})
            ended = perf_counter()
            trace.add(Span("output", "cite", 1000 * (ended - started), own, notes=notes, ended=ended))
        text = "\n\n".join(filter(None, [turn.said, cited.text]))
        # The conversation keeps the pseudonyms, since the next turn's model reads it.
        messages = (*turn.history, Message("user", turn.question), Message("assistant", text))
        claims = _moved(cited, len(text) - len(cited.text), text, turn.pseudonyms)
        text, state = restored(text, turn.pseudonyms), turn.remembers(messages)
        return Reply(text, cited.citations, trace, verdict, messages, state, turn.pseudonyms, turn.principals, claims)

    def _cited(self, turn: Turn) -> Cited:
        """The draft with its marks, as the policy wants it."""
        return cite(turn.draft or "", turn.passages, self.policy.generation.cite)

    async def _quoted(self, turn: Turn, citation: Citation, trace: Trace) -> Citation:
        """The citation as the rails that find spans leave its quote and its heading; none is left of what they block.

        What the document says has not been judged yet as something that leaves, and its headings not at all.
        """
        quote, heading = await self._leaving(turn, citation.quote, trace), ""
        if citation.heading:
            view = replace(turn, passages=(Passage(citation.heading, "", 0, len(citation.heading)),))
            view, masked = await run_stage("retrieval", self.maskers, view, Trace(), self.rewriters)
            if masked.action != "block":
                heading = await self._leaving(turn, view.passages[0].text, trace)
        return replace(citation, quote=quote, heading=heading)

    async def _leaving(self, turn: Turn, text: str, trace: Trace) -> str:
        """What a document says, as it may leave."""
        judged = Trace()
        view, verdict = await run_stage("output", self.finders, replace(turn, draft=text), judged, self.rewriters)
        trace.spans += [span for span in judged.spans if span.verdict and span.verdict.action != "allow"]
        return "" if verdict.action == "block" else restored(view.draft or "", turn.pseudonyms)

    async def _returned(self, turn: Turn, text: str) -> tuple[str, Verdict]:
        """What an action of the dialog returned, as the rails on the results of tools leave it."""
        judges = [staged for staged in self.rails.get("tools", ()) if staged.use.part == "results"]
        view = turn.having(call=ToolCall("action"), result=text)
        view, verdict = await run_stage("tools", judges, view, Trace(), {"mask": mask})
        return view.result or "", verdict

    def _quote(self, turn: Turn, verdict: Verdict) -> str | None:
        """The draft as far as it is supported, else the passages' own sentences; where they have none, `unknown`."""
        left = beginning(turn, verdict)
        if left and sentences(unmarked(left)[0]):  # a mark alone says nothing
            return left
        return quote(turn.question, turn.passages) or self.policy.generation.unknown


def _moved(cited: Cited, by: int, text: str, pseudonyms: Mapping[str, str]) -> tuple[Claim, ...]:
    """The claims of an answer at their places in the reply, which says something before it and has values for names."""

    def place(at: int) -> int:
        return len(restored(text[: at + by], pseudonyms)) if pseudonyms else at + by

    return tuple(replace(claim, start=place(claim.start), end=place(claim.end)) for claim in cited.claims)


def _whole(completion: Completion) -> str:
    """The text without the sentence that its length cut off, unless that is all there is."""
    said = sentences(completion.text)
    if completion.finish_reason == "stop" or len(said) < 2 or completion.text.rstrip().endswith((".", "!", "?")):
        return completion.text
    return completion.text[: said[-2].end]


def _untrusted(turn: Turn) -> Turn:
    """The turn without the system messages that its caller claims: they are texts like any other.

    What was judged before has none, so only what is new is looked at: a long conversation costs no more than a short.
    """
    new = turn.history[turn.judged :]
    begun = turn.draft is not None or turn.said or turn.step
    if not begun and not any(message.role == "system" for message in new):
        return turn
    roles = (Message("user", m.content) if m.role == "system" else m for m in new)
    return replace(turn, history=(*turn.history[: turn.judged], *roles), draft=None, said="", step="")
