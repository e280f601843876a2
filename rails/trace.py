"""A trace in words: as JSON values, and one line a span.

It holds no user text; what was judged is named by its digest.
"""

import hashlib
import json
import math
from dataclasses import asdict
from typing import Any

from trackbed.rails.types import Span, Trace


def trace_json(trace: Trace) -> list[dict[str, Any]]:
    """The spans as JSON values."""
    return [_span_json(span) for span in trace.spans]


def trace_lines(trace: Trace) -> str:
    """One line of JSON a span."""
    return "".join(json.dumps(row) + "\n" for row in trace_json(trace))


def digest(text: str) -> str:
    """Sixteen hexadecimal digits that name a text without showing it."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _span_json(span: Span) -> dict[str, Any]:
    row: dict[str, Any] = {"stage": span.stage, "name": span.name, "ms": round(span.milliseconds, 3)}
    if verdict := span.verdict:
        row |= {
            "action": verdict.action,
            "reason": verdict.reason,
            "detail": verdict.detail,
            "categories": list(verdict.categories),
            "score": _finite(verdict.score),
            "findings": [asdict(finding) for finding in verdict.findings],
            "enforced": span.enforced,
        }
        if verdict.text is not None:
            row["rewritten"] = digest(verdict.text)
    if span.error:
        row["error"] = span.error
    if span.calls:
        row["model_calls"] = span.calls
    if span.usage:
        row["usage"] = span.usage._asdict()
    if span.subject:
        row["subject"] = span.subject
    return row | dict(span.notes)


def _finite(score: float | None) -> float | None:
    """The score, unless JSON has no word for it."""
    return score if score is not None and math.isfinite(score) else None
