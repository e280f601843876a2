import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trackbed.llm.blocks import BlockPool
from trackbed.llm.errors import PromptTooLong
from trackbed.llm.scheduler import Scheduler, Work
from trackbed.llm.types import Sequence

END = 0


def next_token(tokens: list[int]) -> int:
    """A model: what comes next depends on all that came before."""
    return hash(tuple(tokens)) % 11


def alone(prompt: list[int], max_len: int) -> list[int]:
    tokens = list(prompt)
    while True:
        tokens.append(next_token(tokens))
        if tokens[-1] == END or len(tokens) >= max_len:
            return tokens


class Passes:
    """Runs plans as an engine would, over a cache that remembers which token was written where."""

    def __init__(self, blocks: int, size: int, max_seqs: int, max_tokens: int) -> None:
        self.pool = BlockPool(blocks, size)
        self.scheduler = Scheduler(self.pool, max_seqs=max_seqs, max_tokens=max_tokens)
        self.cache: dict[int, int] = {}
        self.blocks = blocks
        self.arrived: list[Sequence] = []

    def add(self, seq: Sequence) -> None:
        self.scheduler.add(seq)
        self.arrived.append(seq)

    def run(self) -> list[Work]:
        decoding = [seq for seq in self.scheduler.running if seq.pending == 1]
        plan = self.scheduler.step()
        self.check(plan, decoding)
        sampled = [self.forward(seq, length) for seq, length in plan]
        self.scheduler.commit(plan, sampled)
        return plan

    def forward(self, seq: Sequence, length: int) -> int | None:
        slots = [block * self.pool.size + i for block in seq.blocks for i in range(self.pool.size)]
        end = seq.done + length
        self.cache.update(zip(slots[seq.done : end], seq.tokens[seq.done : end], strict=True))
        read = [self.cache[slot] for slot in slots[:end]]
        assert read == seq.tokens[:end]
        return next_token(read) if end == len(seq.tokens) and not seq.scored else None

    def check(self, plan: list[Work], decoding: list[Sequence]) -> None:
        scheduler = self.scheduler
        assert plan, "somebody always moves"
        assert sum(length for _, length in plan) <= scheduler.max_tokens
        assert all(0 < length <= seq.pending for seq, length in plan)
        assert len({id(seq) for seq, _ in plan}) == len(plan)
        assert len(scheduler.running) <= scheduler.max_seqs
        moving = [seq for seq, _ in plan]
        assert all(seq in moving for seq in decoding if seq.admitted)
        assert all(length == 1 for seq, length in plan if seq in decoding), "who gave way does not come back at once"
        # Whoever came first runs first, so those who gave way are the last who came.
        order = [self.arrived.index(seq) for seq in [*scheduler.running, *scheduler.waiting]]
        assert order == sorted(order)
        self.check_blocks()

    def check_blocks(self) -> None:
        held = [block for seq in self.arrived for block in seq.blocks]
        assert sorted([*held, *self.pool.free]) == list(range(self.blocks))
        assert all(not seq.blocks for seq in self.arrived if seq not in self.scheduler.running)


@st.composite
def workloads(draw: st.DrawFn) -> tuple[Passes, list[tuple[int, Sequence, bool]]]:
    size, blocks = draw(st.integers(1, 4)), draw(st.integers(4, 12))
    max_seqs = draw(st.integers(1, 6))
    passes = Passes(blocks, size, max_seqs, draw(st.integers(max_seqs, 12)))
    requests = []
    for _ in range(draw(st.integers(1, 10))):
        prompt = draw(st.lists(st.integers(1, 9), min_size=1, max_size=blocks * size - 1))
        scored = draw(st.integers(0, 4)) == 0
        max_len = len(prompt) if scored else draw(st.integers(len(prompt) + 1, blocks * size))
        seq = Sequence(list(prompt), len(prompt), max_len, frozenset({END}), scored=scored)
        requests.append((draw(st.integers(0, 20)), seq, draw(st.integers(0, 5)) == 0))
    return passes, sorted(requests, key=lambda request: request[0])


@settings(max_examples=300)
@given(workloads())
def test_batching_changes_nothing(workload: tuple[Passes, list[tuple[int, Sequence, bool]]]) -> None:
    passes, requests = workload
    expected = {id(seq): seq.tokens[:] if seq.scored else alone(seq.tokens, seq.max_len) for _, seq, _ in requests}
    waiting, count = list(requests), 0
    while waiting or passes.scheduler.running or passes.scheduler.waiting:
        while waiting and waiting[0][0] <= count:
            passes.add(waiting.pop(0)[1])
        for _, seq, leaves in requests:
            if leaves and count % 7 == 6 and (seq in passes.scheduler.running or seq in passes.scheduler.waiting):
                passes.scheduler.remove(seq)
        if passes.scheduler.running or passes.scheduler.waiting:
            passes.run()
        count += 1
        assert count < 2000, "everybody finishes"
    for _, seq, leaves in requests:
        assert leaves or seq.finished
        assert seq.tokens == expected[id(seq)] or (leaves and seq.tokens == expected[id(seq)][: len(seq.tokens)])
    passes.check_blocks()
    assert len(passes.pool.free) == passes.blocks


def test_the_youngest_gives_way_and_returns_first() -> None:
    passes = Passes(blocks=5, size=1, max_seqs=3, max_tokens=8)
    old, young, late = (Sequence([5], 1, 4, frozenset()) for _ in range(3))
    for seq in (old, young, late):
        passes.add(seq)
    assert [seq for seq, _ in passes.run()] == [old, young, late]
    assert [seq for seq, _ in passes.run()] == [old, young]  # there is room for five tokens, not for six
    assert [seq for seq, _ in passes.run()] == [old]
    assert old.finished
    assert list(passes.scheduler.waiting) == [young, late]
    assert passes.run() == [Work(young, 3), Work(late, 2)]


def test_long_prompts_leave_room_for_those_who_decode() -> None:
    passes = Passes(blocks=100, size=1, max_seqs=2, max_tokens=4)
    short, long = Sequence([1], 1, 40, frozenset()), Sequence([1] * 30, 30, 31, frozenset())
    passes.add(short)
    passes.run()
    passes.add(long)
    assert passes.run() == [Work(short, 1), Work(long, 3)]


def test_a_sequence_that_could_never_run_is_refused() -> None:
    passes = Passes(blocks=2, size=4, max_seqs=1, max_tokens=8)
    with pytest.raises(PromptTooLong, match="9 tokens, and the whole cache holds 8"):
        passes.add(Sequence([1], 1, 9))
