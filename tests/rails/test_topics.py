"""On and off topic by examples: what passes, what does not, and what an embedder's failure leads to."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from tests.fakes import WordEmbedder
from trackbed.rails.errors import PolicyError, RailFailed
from trackbed.rails.library.topics import PIECE, Topics
from trackbed.rails.types import Models, Turn, Verdict

ALLOW = {"orders": ["where is my order", "my parcel is late"], "refunds": ["i want my money back"]}
BLOCK = {"politics": ["who should i vote for", "is the president honest"]}


class CountingEmbedder(WordEmbedder):
    """Remembers what it was given."""

    def __init__(self) -> None:
        self.given: list[Sequence[str]] = []

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.given.append(texts)
        return super().embed(texts)


class NowhereEmbedder(WordEmbedder):
    """Gives vectors that are none."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return super().embed(texts) * np.float32("nan")


def rail(embedder: WordEmbedder | None = None, **config: object) -> Topics:
    return Topics(
        Topics.Config.model_validate({"threshold": 0.6, **config}), Models(embedder=embedder or WordEmbedder())
    )


async def judge(text: str, **config: object) -> Verdict:
    return await rail(**config).check(Turn("", text=text))


@pytest.mark.parametrize(
    ("text", "config", "action", "categories"),
    [
        ("where is my order?", {"allow": ALLOW}, "allow", ("orders",)),
        ("I want my money back!", {"allow": ALLOW}, "allow", ("refunds",)),
        ("write a poem", {"allow": ALLOW}, "block", ("off_topic",)),
        ("Hello!", {"allow": ALLOW}, "allow", ("smalltalk",)),
        ("Hello!", {"allow": ALLOW, "smalltalk": "block"}, "block", ("off_topic",)),
        ("howdy", {"allow": {**ALLOW, "smalltalk": ["howdy"]}}, "allow", ("smalltalk",)),
        ("", {"allow": ALLOW}, "allow", ()),
        ("who should I vote for?", {"block": BLOCK}, "block", ("politics",)),
        ("write a poem", {"block": BLOCK}, "allow", ()),
        ("where is my order", {"allow": ALLOW, "block": BLOCK}, "allow", ("orders",)),
        ("who should i vote for", {"allow": ALLOW, "block": BLOCK}, "block", ("politics",)),
        ("nice weather", {"allow": ALLOW, "block": {"smalltalk": ["nice weather"]}}, "block", ("smalltalk",)),
        ("same words", {"allow": {"a": ["same words"]}, "block": {"b": ["same words"]}}, "block", ("b",)),
    ],
)
async def test_a_text_is_about_the_topic_that_it_is_nearest_to(
    text: str, config: dict[str, object], action: str, categories: tuple[str, ...]
) -> None:
    verdict = await judge(text, **config)
    assert (verdict.action, verdict.categories) == (action, categories)


async def test_the_score_is_the_likeness_to_what_is_blocked() -> None:
    verdict = await judge("who should i vote for", block=BLOCK)
    assert verdict.score == pytest.approx(1.0, abs=1e-3)
    verdict = await judge("where is my order", allow=ALLOW)
    assert verdict.score == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize("config", [{"allow": ALLOW}, {"block": BLOCK}])
async def test_each_piece_of_a_long_text_has_to_pass(config: dict[str, object]) -> None:
    fine = "where is my order " * (3 * PIECE // 18)
    assert (await judge(fine, **config)).action == "allow"
    assert (await judge(fine + "who should i vote for " * (PIECE // 10), **config)).action == "block"


async def test_examples_are_embedded_once_and_only_when_a_text_is_judged() -> None:
    embedder = CountingEmbedder()
    judged = rail(embedder, block=BLOCK)
    assert embedder.given == []
    await judged.check(Turn("", text="one"))
    await judged.check(Turn("", text="two"))
    assert [list(texts) for texts in embedder.given] == [BLOCK["politics"], ["one"], ["two"]]


async def test_vectors_that_are_not_finite_judge_nothing() -> None:
    with pytest.raises(RailFailed):
        await rail(NowhereEmbedder(), block=BLOCK).check(Turn("", text="hello"))


def test_no_pipeline_is_made_without_an_embedder() -> None:
    with pytest.raises(PolicyError, match="give the pipeline an embedder"):
        Topics(Topics.Config(block=BLOCK), Models())


@pytest.mark.parametrize(
    "config",
    [{}, {"allow": {}}, {"allow": {"a": []}}, {"block": {"a": [" "]}}, {"allow": {"a": ["x"]}, "block": {"a": ["y"]}}],
)
def test_topics_without_examples_or_on_both_sides_are_refused(config: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Topics.Config.model_validate(config)
