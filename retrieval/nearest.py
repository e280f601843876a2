"""The nearest of a segment's vectors: by comparing with all where these are few, else through lists that FAISS keeps.

Up to `EXACT` rows the search is exact: FAISS compares the question with every vector, where it lies in the file. Beyond
that, rows are sorted into lists by their nearest of many centres, and kept in 8 bits a number; a search looks into
the nearest lists, and compares what it finds there with the exact vectors. How many lists that are is measured when
they are made. Nothing here knows passages, files or deletions: which rows count is told.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trackbed.retrieval.manifest import ListsRecord

EXACT = 50_000  # rows that are searched one by one
FEW = 20_000  # allowed rows that are compared one by one where a segment has lists
CANDIDATES = 4  # times as many as asked for are compared exactly
LEAST_CANDIDATES = 40
RECALL = 0.97  # of the ten best, that the number of lists to look at is chosen for
PER_LIST = 64  # rows for each centre, that centres are trained on
MEASURED = 10  # the best rows, whose share among the candidates is measured
QUERIES = 256  # that the number of lists is measured with
MOVED = 0.7  # how like a row's vector such a query is: a question is not its answer
ITERATIONS = 10
BLOCK = 1 << 16  # rows


class Hits(NamedTuple):
    """Rows and their scores, best first; no row is there twice."""

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Mask:
    """Some of a segment's rows."""

    rows: NDArray[np.bool_]  # [rows]
    bits: NDArray[np.uint8]  # the same, eight to a byte
    count: int

    @classmethod
    def of(cls, rows: NDArray[np.bool_]) -> "Mask":
        """The rows where this is true."""
        return cls(rows, np.packbits(rows, bitorder="little"), int(np.count_nonzero(rows)))


# Any: an index of faiss, which has no type that mypy knows
def nearest(
    queries: NDArray[np.float32],  # [queries, dimension]
    k: int,
    vectors: NDArray[np.float32],  # [rows, dimension]
    mask: Mask | None,  # None: every row
    lists: Any,  # None where there are none
    probes: int,
) -> Hits:
    """The `k` rows that are nearest to one of the queries, by cosine. Fewer only where there are fewer."""
    count = len(vectors) if mask is None else mask.count
    k = min(k, count)
    if k < 1 or not len(queries):
        return Hits(np.empty(0, np.int64), np.empty(0, np.float32))
    if mask is not None and (count <= k or count <= (FEW if lists else len(vectors) // 8)):
        rows = np.flatnonzero(mask.rows)
        return best(rows, similarity(queries, vectors, rows), k)
    found = _listed(queries, k, count, mask, lists, probes) if lists else _scanned(queries, k, vectors, mask)
    rows = np.unique(found)
    return best(rows[rows >= 0], similarity(queries, vectors, rows[rows >= 0]), k)


def similarity(
    queries: NDArray[np.float32], vectors: NDArray[np.float32], rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    """The cosine of each of these rows to the query that it is most like: [rows]."""
    scores = np.empty(len(rows), dtype=np.float32)
    for first in range(0, len(rows), BLOCK):
        some = slice(first, first + BLOCK)
        scores[some] = (vectors[rows[some]] @ queries.T).max(axis=1, initial=-1)
    return np.clip(scores, -1, 1)


def best(rows: NDArray[np.int64], scores: NDArray[np.float32], k: int) -> Hits:
    """The `k` best of these, best first; of equal ones, the earlier rows."""
    if 0 < k < len(rows):
        least = np.partition(scores, len(scores) - k)[len(scores) - k]
        kept = scores >= least
        rows, scores = rows[kept], scores[kept]
    order = np.lexsort((rows, -scores))[:k]
    return Hits(rows[order].astype(np.int64), scores[order].astype(np.float32))


def _scanned(
    queries: NDArray[np.float32], k: int, vectors: NDArray[np.float32], mask: Mask | None
) -> NDArray[np.int64]:
    import faiss

    queries = np.ascontiguousarray(queries, dtype=np.float32)
    scores = np.empty((len(queries), k), dtype=np.float32)
    rows = np.empty((len(queries), k), dtype=np.int64)
    selected = _selector(mask)
    # As faiss.knn, which takes no selector.
    faiss.knn_inner_product(
        faiss.swig_ptr(queries),
        faiss.swig_ptr(vectors),
        vectors.shape[1],
        len(queries),
        len(vectors),
        k,
        faiss.swig_ptr(scores),
        faiss.swig_ptr(rows),
        selected,
    )
    return rows


def _listed(
    queries: NDArray[np.float32], k: int, count: int, mask: Mask | None, lists: Any, probes: int
) -> NDArray[np.int64]:
    """Candidates from the lists: of more of them the fewer rows count, and of all where that is not enough."""
    import faiss

    # Any: its keywords are not in the types of faiss
    parameters: Any = faiss.SearchParametersIVF
    selected = _selector(mask)
    wanted = min(count, max(LEAST_CANDIDATES, CANDIDATES * k))
    # Measured for ten rows out of all: more rows, and rows among few, are farther apart.
    probes = math.ceil(probes * math.sqrt(max(1, k / MEASURED)) * lists.ntotal / count)
    probes = min(lists.nlist, max(probes, math.ceil(wanted * lists.nlist / count)))
    while True:
        _, rows = lists.search(queries, wanted, params=parameters(nprobe=probes, sel=selected))
        if probes == lists.nlist or (rows >= 0).sum(axis=1).min() >= k:
            return np.asarray(rows, dtype=np.int64)
        probes = min(lists.nlist, probes * 4)


def _selector(mask: Mask | None) -> Any:
    """What tells FAISS which rows count."""
    import faiss

    selector: Any = faiss.IDSelectorBitmap  # Any: the types of faiss have it as it is in C++
    return selector(mask.bits) if mask else None


def make_lists(vectors: NDArray[np.float32], before: tuple[Any, ListsRecord] | None = None) -> tuple[Any, ListsRecord]:
    """Lists for these vectors, and how to search them; with the centres of a former index where one is given."""
    import faiss

    rows, dimension = vectors.shape
    made_for = rows
    lists: Any
    if before is None:
        lists = faiss.index_factory(dimension, f"IVF{4 * math.isqrt(rows)},SQ8", faiss.METRIC_INNER_PRODUCT)
        _train(lists, vectors)
    else:
        lists = faiss.clone_index(before[0])
        # Those of a mapped file are not to be written to, and to empty them ends the process.
        empty: Any = faiss.ArrayInvertedLists(lists.nlist, lists.code_size)  # Any: the types know no ownership
        empty.this.disown()
        lists.replace_invlists(empty, True)
        lists.ntotal = 0
        made_for = before[1].trained
    for first in range(0, rows, BLOCK):
        lists.add(np.ascontiguousarray(vectors[first : first + BLOCK]))
    probes, recall = _measured(lists, vectors)
    kind = f"IVF{lists.nlist},SQ8"
    return lists, ListsRecord(kind=kind, lists=lists.nlist, probes=probes, recall=recall, trained=made_for)


def _train(lists: Any, vectors: NDArray[np.float32]) -> None:
    import faiss

    wanted = min(len(vectors), PER_LIST * lists.nlist)
    # Seeded: what is made of the same vectors is the same.
    sample = np.sort(np.random.default_rng(0).choice(len(vectors), wanted, replace=False))
    lists.cp.niter = ITERATIONS
    lists.cp.max_points_per_centroid = PER_LIST
    if getattr(faiss, "get_num_gpus", lambda: 0)():
        lists.clustering_index = faiss.index_cpu_to_all_gpus(faiss.IndexFlatIP(lists.d))
    lists.train(np.ascontiguousarray(vectors[sample]))


def _measured(lists: Any, vectors: NDArray[np.float32]) -> tuple[int, float]:
    """How many lists to look at, and the share of the ten best that are then among the candidates."""
    import faiss

    chance = np.random.default_rng(1)
    queries = vectors[np.sort(chance.choice(len(vectors), min(QUERIES, len(vectors)), replace=False))]
    noise = chance.standard_normal(queries.shape, dtype=np.float32)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    queries = MOVED * queries + math.sqrt(1 - MOVED**2) * noise
    queries /= np.maximum(np.linalg.norm(queries, axis=1, keepdims=True), 1e-9)
    _, exact = faiss.knn(queries, vectors, MEASURED, metric=faiss.METRIC_INNER_PRODUCT)
    parameters: Any = faiss.SearchParametersIVF  # Any: its keywords are not in the types of faiss
    probes, recall = 1, 0.0
    while True:
        _, found = lists.search(queries, LEAST_CANDIDATES, params=parameters(nprobe=probes))
        recall = float(np.mean([len(np.intersect1d(a, b)) / MEASURED for a, b in zip(exact, found, strict=True)]))
        if recall >= RECALL or probes == lists.nlist:
            return probes, recall
        probes = min(lists.nlist, max(probes + 1, probes * 5 // 4))
