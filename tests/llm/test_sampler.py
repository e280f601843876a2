from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trackbed.llm.sampler import Sampler
from trackbed.llm.types import SamplingParams

LOGITS = np.array([1.0, 3.0, -1.0, 2.5, float("-inf"), 3.0], np.float32)
rows = st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=40).map(lambda row: np.array(row, np.float32))


def softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    weights = np.exp(logits.astype(np.float64) - logits.max())
    return weights / weights.sum()


def test_without_temperature_the_most_probable_is_taken() -> None:
    assert Sampler(SamplingParams()).choose(LOGITS) == 1


def test_tokens_are_drawn_as_often_as_they_are_probable() -> None:
    sampler = Sampler(SamplingParams(temperature=0.7, seed=1))
    drawn = Counter(sampler.choose(LOGITS) for _ in range(4000))
    for token, probability in enumerate(softmax(LOGITS / 0.7).tolist()):
        assert drawn[token] / 4000 == pytest.approx(probability, abs=0.03)
    assert drawn[4] == 0


@given(rows, st.floats(0.01, 1, exclude_max=True))
def test_what_is_drawn_is_among_the_fewest_tokens_that_weigh_enough(
    logits: npt.NDArray[np.float32], top_p: float
) -> None:
    sampler = Sampler(SamplingParams(temperature=1, top_p=top_p, seed=0))
    drawn = {sampler.choose(logits) for _ in range(50)}
    weights = softmax(logits)
    heavier = [weights[weights > weights[token] * (1 + 1e-6)].sum() for token in drawn]
    assert max(heavier) < top_p + 1e-6


@given(rows, st.floats(0.01, 5), st.floats(0.01, 1), st.integers(0, 2**40))
def test_a_seed_gives_the_same_tokens_again(
    logits: npt.NDArray[np.float32], temperature: float, top_p: float, seed: int
) -> None:
    params = SamplingParams(temperature=temperature, top_p=top_p, seed=seed)
    first, second = Sampler(params), Sampler(params)
    assert [first.choose(logits) for _ in range(5)] == [second.choose(logits) for _ in range(5)]


@pytest.mark.parametrize("temperature", [5e-324, 1e-30, 1e-3])
def test_the_coldest_temperatures_are_greedy(temperature: float) -> None:
    sampler = Sampler(SamplingParams(temperature=temperature, top_p=0.9, seed=0))
    assert {sampler.choose(np.array([1.0, 3.0, 2.0], np.float32)) for _ in range(20)} == {1}


@given(rows, st.data())
def test_of_the_allowed_tokens_it_is_chosen_as_if_there_were_no_others(
    logits: npt.NDArray[np.float32], data: st.DataObject
) -> None:
    allowed = sorted(data.draw(st.sets(st.sampled_from(range(len(logits))), min_size=1)))
    params = SamplingParams(temperature=data.draw(st.sampled_from([0.0, 0.7])), top_p=0.9, seed=3)
    assert Sampler(params).choose(logits, allowed) == allowed[Sampler(params).choose(logits[allowed])]
