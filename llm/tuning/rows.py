"""Rows of texts and labels, which of them may train what ships, and which sources are held out together.

A row's schema is that of JSON lines with `text`, `label`, `source` and `licence`; more keys are taken where they are
there. This file knows nothing of models.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

PLACES = ("start", "middle", "end")
# Rows whose licence says one of these, or nothing, train nothing that ships.
UNLICENSED = ("no licence", "unknown", "not stated")


class Row(NamedTuple):
    """A text, and whether it is what a judge looks for."""

    text: str
    before: str  # what the text answers; empty where it answers nothing
    positive: bool
    categories: tuple[str, ...]
    source: str
    licence: str
    hard: bool  # harmless, and easily mistaken
    fold: int
    answer: bool = False  # whether a model said it
    orig: str = ""  # what its source says of it
    place: str = ""  # start, middle or end, where only that part of the text is what its label says

    @property
    def licensed(self) -> bool:
        """Whether what it teaches may be passed on."""
        return is_licensed(self.licence)


def is_licensed(licence: str) -> bool:
    """Whether a licence lets what rows teach be passed on."""
    return bool(licence) and not any(words in licence.lower() for words in UNLICENSED)


def read_rows(path: Path, negatives: Sequence[str], keep: Callable[[dict[str, object]], bool]) -> list[Row]:
    """The rows of a file that `keep` wants; labels other than `negatives` are positive. Raises ValueError."""
    rows = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                if keep(row):
                    rows.append(
                        Row(
                            text=str(row["text"]),
                            before=str(row.get("prompt") or ""),
                            positive=row["label"] not in negatives,
                            categories=tuple(row.get("categories") or ()),
                            source=str(row["source"]),
                            licence=str(row.get("licence", "")),
                            hard=bool(row.get("hard")),
                            fold=int(row.get("fold", 0)),
                            answer=row.get("role") == "assistant",
                            orig=str(row.get("orig") or ""),
                            place=next((at for at in PLACES if str(row.get("orig")).endswith(f"/{at}")), ""),
                        )
                    )
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(f"{path}:{number}: a row needs text, label, source and licence: {error!r}") from error
    return rows


def authored(folder: str, name: str) -> list[str]:
    """The lines of a file of our own words, under `texts`; its line breaks are written out."""
    text = (Path(__file__).parent / "texts" / folder / f"{name}.txt").read_text(encoding="utf-8")
    return [line.replace("\\n", "\n") for line in text.splitlines()]


def outside(rows: Iterable[Row], sources: Sequence[str]) -> list[Row]:
    """Those of other sources."""
    return [row for row in rows if row.source not in sources]


def of(rows: Iterable[Row], sources: Sequence[str]) -> list[Row]:
    """Those of these sources."""
    return [row for row in rows if row.source in sources]
