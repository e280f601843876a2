"""Labelled texts through the rails of a policy: what each came to, how sure it was, and what it cost.

The score of a text is the highest that a rail of the stage gave; where none gave one, 1 for a block and 0 else. A text
that could not be judged counts as blocked, as it does in a turn, and is counted apart. Any rail, guard checkpoint or
endpoint is measured alike, since a policy names it.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trackbed.llm.tuning.rows import Row
from trackbed.rails.pipeline import Pipeline
from trackbed.rails.types import Finding, Stage, Trace, Turn, Verdict

Report = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Judged:
    """What a text came to."""

    score: float
    blocked: bool  # or rewritten: it does not pass as it is
    failed: bool
    milliseconds: float
    calls: int  # of models
    categories: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()


def judge_rows(pipeline: Pipeline, rows: Sequence[Row], stage: Stage, report: Report) -> list[Judged]:
    """Each row, in turn. Rows that answer something are judged as answers where the policy has output rails."""
    return asyncio.run(_judge_rows(pipeline, rows, stage, report))


async def _judge_rows(pipeline: Pipeline, rows: Sequence[Row], stage: Stage, report: Report) -> list[Judged]:
    found = []
    for number, row in enumerate(rows):
        report("judging", number, len(rows))
        verdict, trace = await pipeline.check(stage, row.text, Turn(row.before))
        found.append(judged(verdict, trace))
    return found


def judged(verdict: Verdict, trace: Trace) -> Judged:
    """What a verdict and the way to it say of a text."""
    spans = [span for span in trace.spans if span.verdict is not None]
    scores = [span.verdict.score for span in spans if span.verdict and span.verdict.score is not None]
    blocked = verdict.action != "allow"
    failed = blocked and verdict.reason != "policy"
    return Judged(
        score=1.0 if failed else max(scores) if scores else float(blocked),
        blocked=blocked,
        failed=failed,
        milliseconds=sum(span.milliseconds for span in spans),
        calls=sum(span.calls for span in trace.spans),
        categories=tuple(dict.fromkeys(name for span in spans if span.verdict for name in span.verdict.categories)),
        findings=tuple(finding for span in spans if span.verdict for finding in span.verdict.findings),
    )
