"""The machine's limits are measured, by whatever instructions it has."""

import pytest

from trackbed.llm.kernels.cpu import _cpu


@pytest.mark.parametrize("rate", [_cpu.read_rate, _cpu.int8_rate, _cpu.float_rate])
@pytest.mark.parametrize("threads", [1, 3])
def test_every_limit_is_a_rate_above_what_the_slowest_machine_does(rate, threads: int) -> None:  # type: ignore[no-untyped-def]
    assert rate(threads) > 1e7


def test_the_instructions_that_bytes_are_multiplied_by_have_a_name() -> None:
    assert _cpu.int8_instructions() in {"avx512-vnni", "avx2", "generic"}


@pytest.mark.parametrize("threads", [0, -1, 100_000])
def test_a_number_of_threads_that_cannot_be_is_refused(threads: int) -> None:
    with pytest.raises(ValueError, match="threads must be 1 to 1024"):
        _cpu.read_rate(threads)
