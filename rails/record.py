"""One turn as one line of a trace file, and back.

A line names the policy and tells what each step came to. It holds no text that anybody wrote, only digests of them,
unless it is a full one: then it has `asked` and what was answered, and the turn can be run again. This file knows the
form of a line. It runs no turn, and opens no file.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trackbed.llm.types import Message, Usage
from trackbed.rails.policy import Policy
from trackbed.rails.recording import Answer, Notes, Search
from trackbed.rails.state import dump_state
from trackbed.rails.trace import trace_json
from trackbed.rails.types import Action, Judge, Reason, Stage, Trace, Turn, Verdict
from trackbed.retrieval.types import Passage

VERSION = 1


@dataclass(frozen=True, slots=True)
class Happened:
    """What is told of a turn beside what was said in it: its end, or the kind of error that it ended with."""

    at: datetime
    milliseconds: float
    trace: Trace
    verdict: Verdict | None = None
    error: str = ""
    stage: Stage | None = None  # where only one stage's rails judged


def record_line(policy: Policy, turn: Turn, happened: Happened, notes: Notes | None = None, reply: str = "") -> bytes:
    """The line of a turn; with notes it is a full one, which holds the texts."""
    spans = trace_json(happened.trace)
    body: dict[str, Any] = {  # Any: JSON values
        "trace": VERSION,
        "at": happened.at.isoformat(timespec="milliseconds"),
        "policy": {"name": policy.name, "digest": policy.digest},
        "stage": happened.stage,
        "verdict": _verdict(happened.verdict) if happened.verdict else None,
        "error": happened.error,
        "ms": round(happened.milliseconds, 3),
        "model_calls": sum(span.calls for span in happened.trace.spans),
        "usage": happened.trace.usage._asdict(),
        "spans": spans,
    }
    if notes is not None:
        for row, span in zip(spans, happened.trace.spans, strict=True):
            if span.verdict and span.verdict.text is not None:
                row["text"] = span.verdict.text
        body |= {"asked": _asked(turn), "reply": reply, **notes.as_json()}
    # What is no JSON is told by its kind alone; half a character, which UTF-8 has no bytes for, by a question mark.
    return json.dumps(body, ensure_ascii=False, default=_told).encode("utf-8", "replace") + b"\n"


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {
        "action": verdict.action,
        "stage": verdict.stage,
        "rail": verdict.rail,
        "reason": verdict.reason,
        "detail": verdict.detail,
        "categories": list(verdict.categories),
    }


def _asked(turn: Turn) -> dict[str, Any]:
    return {
        "question": turn.question,
        "history": [asdict(message) for message in turn.history],
        "judged": turn.judged,
        "vars": dict(turn.vars),
        "principals": sorted(turn.principals),
        "state": dump_state(turn.state),
        "draft": turn.draft,
        "passages": [asdict(passage) for passage in turn.passages],
    }


def _told(value: object) -> object:
    """What stands for a value that is no JSON: a number of another kind as a number, anything else as its type."""
    number = getattr(value, "item", None)
    return number() if callable(number) else type(value).__name__


class Part(BaseModel):
    """A part of a line. Another version's line is refused, and so is one with keys that nobody wrote."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PolicyNamed(Part):
    """Which policy was at work."""

    name: str
    digest: str  # of all that it says


class VerdictTold(Part):
    """What a turn came to."""

    action: Action
    stage: Judge | None
    rail: str
    reason: Reason | None
    detail: str
    categories: list[str]

    @property
    def by(self) -> str:
        """The rail that decided, `stage/id`; empty when none objected."""
        return f"{self.stage}/{self.rail}" if self.stage else ""


class SpanTold(BaseModel):
    """One step; what it has beside these keys are its notes."""

    model_config = ConfigDict(frozen=True, extra="allow")
    stage: str
    name: str
    ms: float
    action: Action | None = None
    detail: str = ""
    categories: list[str] = []
    score: float | None = None
    reason: Reason | None = None
    findings: list[dict[str, Any]] = []
    enforced: bool = True
    error: str = ""
    model_calls: int = 0
    usage: Usage | None = None
    subject: str = ""
    rewritten: str | None = None  # a digest
    text: str | None = None  # what stands in its place, in a full line


class Asked(Part):
    """The turn as it was asked."""

    question: str
    history: list[Message]
    judged: int = Field(ge=0)
    vars: dict[str, Any]
    principals: list[str] = []
    state: str
    draft: str | None
    passages: list[Passage]


class Record(Part):
    """A line that was read."""

    trace: Literal[1]
    at: datetime
    policy: PolicyNamed
    stage: Stage | None
    verdict: VerdictTold | None
    error: str
    ms: float
    model_calls: int
    usage: Usage
    spans: list[SpanTold]
    asked: Asked | None = None
    reply: str = ""
    answers: list[Answer] = []
    searches: list[Search] = []


class Line(NamedTuple):
    """A line of a trace file: what it tells, or what is wrong with it."""

    number: int  # from 1
    record: Record | None
    mistake: str = ""


def read_lines(lines: Iterable[bytes]) -> Iterator[Line]:
    """The lines of a trace file, as they come; empty ones are left out."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield Line(number, Record.model_validate_json(line))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            yield Line(number, None, f"{where}: {first['msg']}" if where else first["msg"])
