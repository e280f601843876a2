"""Open what a policy's `knowledge` names: its indexes, what searches them, and what is done with what that finds.

Beside `build.py`, the only file that knows the concrete classes of retrieval.
"""

import hashlib
import re
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from trackbed.apps.settings import Settings, SettingsError
from trackbed.llm.types import Endpoint
from trackbed.rails.knowledge import Knowledge
from trackbed.rails.policy import Policy
from trackbed.retrieval import RETRIEVERS
from trackbed.retrieval.errors import RetrievalError
from trackbed.retrieval.types import Embedder, PairScorer, Retriever

if TYPE_CHECKING:
    from trackbed.retrieval.postgres.connection import PostgresIndex

PAGES = Path(__file__).parents[1] / "policies" / "knowledge"
SHIPPED = "kb"  # the name of the index of the shipped pages
SHIPPED_SECONDS = 600.0  # that another process may take to make it
POSTGRES = "postgres"  # the retriever whose indexes are in a database
COMPARABLE = ("faiss", "hybrid")  # retrievers whose scores of several indexes can be put in one order
INDEX_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*")
Progress = Callable[[str, int, int], None]  # what is being done, how much is done, of how much (0: unknown)


def open_knowledge(
    settings: Settings, policy: Policy, embedder: Embedder, report: Progress, stack: ExitStack
) -> Retriever | None:
    """What searches for the policy, closed with the stack; None where it names no knowledge.

    Raises RetrievalError, LLMError for a model that cannot be opened, and SettingsError where an index is in a database
    that is not set.
    """
    knowledge = policy.knowledge
    if knowledge is None:
        return None
    report(f"loading {settings.embedder}", 0, 0)
    embedder.embed([""])  # so that it is the start that waits, or fails, and not the first question
    opened = {}
    for index in knowledge.indexes:
        retriever = open_index(settings, knowledge.retriever, index, embedder, report, policy.file.parent)
        if close := getattr(retriever, "close", None):
            stack.callback(close)
        name = Path(index).name
        if name in opened:
            raise RetrievalError(f"two indexes are called {name!r}, and passages could not be told apart; rename one")
        opened[name] = retriever
    together = _together(opened, comparable=knowledge.retriever in COMPARABLE)
    return _refined(settings, policy, knowledge, together, embedder) if knowledge.refines else together


def open_index(
    settings: Settings, retriever: str, index: str, embedder: Embedder, report: Progress, base: Path = Path()
) -> Retriever:
    """What searches one index; that of the shipped pages is made where there is none of these very pages.

    Raises as `open_knowledge` does.
    """
    found = resolve_name(RETRIEVERS.get(retriever, retriever))
    if not callable(getattr(found, "open", None)):
        from trackbed.apps.adapters.foreign import adapted

        return adapted(found, retriever, embedder)
    if retriever == POSTGRES:
        return _opened(found, postgres_index(settings, index), embedder)
    if index != SHIPPED:
        return _opened(found, index_path(settings, index, base), embedder)
    path = settings.cache / "knowledge" / _digest_of_pages(embedder)
    try:
        return _opened(found, path, embedder)
    except RetrievalError:  # missing, damaged, or of another format
        from trackbed.retrieval.ingest import ingest

        ingest([PAGES], path, embedder, report, anew=True, wait=SHIPPED_SECONDS)
        return _opened(found, path, embedder)


def index_path(settings: Settings, index: str, base: Path = Path()) -> Path:
    """Where an index is: a name means the data folder's, anything else is a path, relative to `base`."""
    return settings.indexes / index if INDEX_NAME.fullmatch(index) else base / Path(index).expanduser()


def postgres_index(settings: Settings, name: str) -> "PostgresIndex":
    """Where the index of that name is in the database of the settings. Raises SettingsError where they name none."""
    from trackbed.retrieval.postgres.connection import PostgresIndex

    if settings.postgres is None:
        raise SettingsError(
            f"the index {name!r} is in PostgreSQL, and no database is set: write `postgres = "
            '"postgresql://USER:PASSWORD@HOST:PORT/DATABASE"` in trackbed.toml, or set TRACKBED_POSTGRES'
        )
    return PostgresIndex(settings.postgres.get_secret_value(), name)


def _together(opened: dict[str, Retriever], *, comparable: bool) -> Retriever:
    if len(opened) == 1:
        return next(iter(opened.values()))
    from trackbed.retrieval.multi import Many

    return Many(list(opened.items()), comparable=comparable)


def _refined(
    settings: Settings, policy: Policy, knowledge: Knowledge, retriever: Retriever, embedder: Embedder
) -> Retriever:
    from trackbed.retrieval.refine import Refined
    from trackbed.retrieval.widen import Widening

    try:
        return Refined(
            retriever,
            scorer=_scorer(settings, policy, knowledge.rerank) if knowledge.rerank else None,
            embedder=embedder,
            diversity=None if knowledge.diversity is None else 1 - knowledge.diversity,
            widening=Widening(knowledge.neighbours, knowledge.section),
            candidates=knowledge.candidates,
            seconds=knowledge.timeout,
        )
    except ValueError as error:  # this retriever cannot do what is asked
        raise RetrievalError(f"{policy.file}: retriever {knowledge.retriever!r}: {error}") from error


def _scorer(settings: Settings, policy: Policy, name: str) -> PairScorer:
    from trackbed.llm.cross_encoder import CrossEncoder

    source = policy.models[name]
    if isinstance(source, Endpoint):
        raise RetrievalError(f"{policy.file}: model {name!r} is an endpoint; `rerank` needs a cross-encoder")
    return CrossEncoder(source, settings.models)


def _opened(found: Any, place: "Path | PostgresIndex", embedder: Embedder) -> Retriever:  # Any: anybody's class
    opened: Retriever = found.open(place, embedder)
    return opened


def _digest_of_pages(embedder: Embedder) -> str:
    """Sixteen hexadecimal digits that change with the shipped pages and with the embedder."""
    digest = hashlib.sha256(embedder.sha256.encode())
    for page in sorted(PAGES.rglob("*.md")):
        content = page.read_bytes()
        digest.update(f"\0{page.relative_to(PAGES).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]
