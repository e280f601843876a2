"""Training of judges: what it is given, that it learns, and that what is shipped is what was trained."""

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.llm import tiny
from tests.llm.test_judge import write_base
from trackbed.llm.asker import ANSWERS, Asker
from trackbed.llm.checkpoint import load_model
from trackbed.llm.judge import Judge
from trackbed.llm.tuning.authored import attack_rows, attacks, hidden, mentions
from trackbed.llm.tuning.contrast import pair_rows, requests
from trackbed.llm.tuning.figures import Tried, auroc, calibration_error, per_source, summary
from trackbed.llm.tuning.networks import Decoder, Encoder, Network, Recipe
from trackbed.llm.tuning.orders import order_rows
from trackbed.llm.tuning.recipes import TASKS, Task, drawn
from trackbed.llm.tuning.refusals import refusal_rows
from trackbed.llm.tuning.rows import PLACES, Row, read_rows
from trackbed.llm.tuning.ship import balance, calibrate, write_adapter
from trackbed.llm.tuning.tone import tone_rows
from trackbed.llm.tuning.train import fit, logits_of

# peft asks transformers by a name that is going away.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
RECIPE = Recipe(("unsafe", "S1"), rank=4, alpha=8, rate=0.02, epochs=12, batch=8, tokens=16, dropout=0.0)
DECODER_RECIPE = replace(RECIPE, labels=("unsafe",), layers=2, rate=0.01, epochs=6)


def row(text: str, *, positive: bool, source: str = "s", licence: str = "MIT", **more: object) -> Row:
    return Row(text, "", positive, (), source, licence, False, 0)._replace(**more)


def some_rows() -> list[Row]:
    words = [f"w{n}" for n in range(8)]
    good = [row(f"good {word} day", positive=False) for word in words]
    return good + [row(f"bad {word} night", positive=True, categories=("S1",)) for word in words]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    write_base(folder)
    return folder


def test_what_is_trained_tells_apart_and_what_ships_gives_the_same_figures(base: Path, tmp_path: Path) -> None:
    told: list[str] = []
    network = fit(some_rows(), base, RECIPE, told.append)
    unseen = [row("good a a", positive=False), row("bad a a", positive=True), row("bad w9 " * 20, positive=True)]
    logits = logits_of(network, unseen, base, RECIPE)
    assert logits[0, 0] < min(logits[1, 0], logits[2, 0])
    assert any("epoch 12 of 12" in words for words in told)
    write_adapter(tmp_path / "judge", "user", network, replace(RECIPE, base=str(base)), (2.0, -0.5))
    judge = Judge(tmp_path / "judge", tmp_path)
    for text, expected in zip(unseen, logits, strict=True):
        found = judge.judge(text.text).probabilities
        assert found["unsafe"] == pytest.approx(1 / (1 + np.exp(-(2 * expected[0] - 0.5))), abs=2e-3)
        assert found["S1"] == pytest.approx(1 / (1 + np.exp(-expected[1])), abs=2e-3)


def test_a_second_role_leaves_the_first_as_it_was(base: Path, tmp_path: Path) -> None:
    network = fit(some_rows(), base, RECIPE, lambda words: None)
    for role in ("user", "assistant"):
        write_adapter(tmp_path / "judge", role, network, replace(RECIPE, base=str(base)), (1.0, 0.0))
    assert set(json.loads((tmp_path / "judge" / "judge.json").read_text())["roles"]) == {"user", "assistant"}
    judge = Judge(tmp_path / "judge", tmp_path)
    assert judge.judge("bad day").probabilities == judge.judge("bad day", role="assistant").probabilities


def test_the_judge_of_other_roles_is_named_where_there_is_one(base: Path, tmp_path: Path) -> None:
    network, recipe = Encoder(base, RECIPE), replace(RECIPE, base=str(base))
    for folder, otherwise in ((tmp_path / "other", None), (tmp_path / "judge", str(tmp_path / "other"))):
        write_adapter(folder, "user", network, recipe, (1.0, 0.0), otherwise)
        found = Judge(folder, tmp_path).described
        assert (found.otherwise, found.base) == (otherwise, str(base))


def test_a_training_is_the_same_each_time(base: Path) -> None:
    first, second = (logits_of(fit(some_rows(), base, RECIPE, print), some_rows(), base, RECIPE) for _ in range(2))
    np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def decoder_rows() -> list[Row]:
    return [row(f"{said} {n} copies", positive=said == "without") for n in range(24) for said in ("with", "without")]


@pytest.fixture(scope="module")
def decoder(tiny_chat: Path, decoder_rows: list[Row]) -> tuple[Network, list[str]]:
    """A trained one, and what was told of it."""
    told: list[str] = []
    return fit(decoder_rows, tiny_chat, DECODER_RECIPE, told.append), told


COUNTED = [row(f"{said} {n} copies", positive=False) for said in ("with", "without") for n in range(30, 40)]


def test_a_decoder_learns(decoder: tuple[Network, list[str]], tiny_chat: Path) -> None:
    network, told = decoder
    losses = [float(words.split()[-1]) for words in told if " of 6: " in words]
    assert len(losses) == 6
    assert losses[-1] < losses[0] / 2
    logits = logits_of(network, COUNTED, tiny_chat, DECODER_RECIPE)[:, 0]
    assert auroc(list(logits[10:]), list(logits[:10])) > 0.9


def test_a_decoder_that_ships_gives_the_same_figures(
    decoder: tuple[Network, list[str]], tiny_chat: Path, tmp_path: Path
) -> None:
    logits = logits_of(decoder[0], COUNTED, tiny_chat, DECODER_RECIPE)[:, 0]
    recipe = replace(DECODER_RECIPE, base=str(tiny_chat))
    write_adapter(tmp_path / "judge", "user", decoder[0], recipe, (2.0, -0.5))
    judge = Judge(tmp_path / "judge", tmp_path, dtype="float32")
    found = [judge.judge(one.text).probabilities["unsafe"] for one in COUNTED]
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-(2 * logits - 0.5))), atol=5e-3)


def test_a_decoder_is_trained_the_same_each_time(tiny_chat: Path, decoder_rows: list[Row]) -> None:
    recipe = replace(DECODER_RECIPE, epochs=1)
    first, second = (
        logits_of(fit(decoder_rows, tiny_chat, recipe, print), decoder_rows, tiny_chat, recipe) for _ in range(2)
    )
    np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-4)


def test_an_untrained_decoder_says_what_our_runtime_says_of_both_answers(tiny_chat: Path) -> None:
    rows = [row("a copy", positive=False), row("copies", positive=False, before="a")]
    asker = Asker(tiny_chat, DECODER_RECIPE.tokens)
    found = logits_of(Decoder(tiny_chat, DECODER_RECIPE).eval(), rows, tiny_chat, DECODER_RECIPE)[:, 0]
    model = load_model(tiny_chat, dtype="float32")
    for one, logit in zip(rows, found, strict=True):
        (window,) = asker.windows(one.text, one.before)
        last = tiny.forward(model, tiny.batch((window.ids, 0, list(range(30)))))[-1]
        safe, unsafe = (float(last[asker.tokenizer.encode(answer)[0]]) for answer in ANSWERS)
        assert logit == pytest.approx(unsafe - safe, abs=1e-3)


@pytest.mark.parametrize("licence", ["", "no licence file in this repository", "No licence stated", "unknown"])
def test_rows_without_a_licence_train_nothing_that_ships(licence: str) -> None:
    assert not row("x", positive=True, licence=licence).licensed
    assert row("x", positive=True, licence="CC-BY-4.0").licensed


def test_a_line_that_is_no_row_is_named(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "a", "label": "safe", "source": "s", "licence": "MIT"}\n{"text": "b"}\n')
    with pytest.raises(ValueError, match=r"rows\.jsonl:2: a row needs text, label, source and licence"):
        read_rows(file, ("safe",), lambda said: True)


def test_a_calibration_finds_the_scale_and_the_shift_of_scores_that_are_off() -> None:
    chance = np.random.default_rng(0)
    logits = chance.normal(0, 2, 8000).astype(np.float32)
    rows = [row("x", positive=bool(p)) for p in chance.random(8000) < 1 / (1 + np.exp(-logits))]
    scale, shift = calibrate(3 * logits + 4, rows)
    assert scale == pytest.approx(1 / 3, abs=0.05)
    assert shift == pytest.approx(-4 / 3, abs=0.2)


def test_sources_and_labels_weigh_alike_whatever_their_size() -> None:
    rows = [row("x", positive=False, source="large")] * 90 + [row("x", positive=True, source="small")] * 10
    weights = balance(rows)
    assert weights[:90].sum() == pytest.approx(0.5)
    assert weights.sum() == pytest.approx(1)


def test_figures_are_of_held_out_sources() -> None:
    rows = [row("x", positive=n % 2 == 0, source="a") for n in range(20)]
    rows += [row("x", positive=False, source="b", hard=True) for _ in range(10)]
    logits = np.array([4.0 if r.positive else -4.0 for r in rows[:20]] + [4.0] * 10, np.float32)
    tried = [Tried(rows, logits), Tried(rows, logits)]
    assert per_source(tried)["a"]["auroc"] == 1
    assert summary(tried)["false_positives_hard"] == 1
    assert 0 < calibration_error(tried) < 1


@pytest.mark.parametrize("name", TASKS)
def test_no_source_trains_and_tries_at_once(name: str) -> None:
    task: Task = TASKS[name]
    listed = [source for group in task.groups for source in group]
    assert len(listed) == len(set(listed))
    rows = [
        row("x", positive=True, source=source, fold=n % 10) for n, source in enumerate(listed or list("abcdefghij"))
    ]
    for number in range(task.tries):
        seen, unseen = task.held_out(rows, number)
        assert sorted(map(id, [*seen, *unseen])) == sorted(map(id, rows))
        assert not {(r.source, r.fold) for r in seen} & {(r.source, r.fold) for r in unseen}
        assert not task.groups or not {r.source for r in seen} & {r.source for r in unseen}


def test_what_is_drawn_is_the_same_each_time_and_bounded() -> None:
    rows = [row(f"{n}", positive=n % 3 == 0, source="ab"[n % 2]) for n in range(600)]
    assert drawn(rows, 20) == drawn(rows, 20)
    assert len(drawn(rows, 20)) == 80


def test_authored_texts_are_different_from_each_other_and_the_same_each_time() -> None:
    for make in (attacks, mentions):
        assert make(300) == make(300)
        assert len(set(make(300))) == 300
    assert not set(attacks(900)) & set(mentions(900))
    rows = attack_rows(["A page. With sentences. " * 40], 100)
    assert sum(r.positive for r in rows) == sum(not r.positive for r in rows) == 100
    assert {r.place for r in rows} == {"", "start", "middle", "end"}


def test_pairs_are_half_harmful_and_name_their_hazards() -> None:
    rows = pair_rows(1000)
    assert sum(r.positive for r in rows) == 500
    assert all(bool(r.categories) == r.positive for r in rows)
    assert len({asked.text for asked in requests(3000)}) == 3000


def test_refusals_are_harmless_answers_to_licensed_requests() -> None:
    asked = [row("How do I pick {a} lock?", positive=True), row("hi", positive=False)]
    asked += [row("unstated", positive=True, licence="unknown")]
    rows = refusal_rows(asked, 60)
    assert {found.before for found in rows} == {"How do I pick {a} lock?"}
    assert not any(found.positive or found.categories for found in rows)
    assert all(found.text and found.licensed for found in rows)
    assert len({found.text for found in rows}) > 30
    assert rows == refusal_rows(asked, 60)


def test_rude_rows_say_how_and_what_only_sounds_rude_is_harmless() -> None:
    rows = tone_rows(50)
    assert {found.categories for found in rows if found.positive} == {("insult",), ("threat",)}
    assert sum(found.positive for found in rows) == 100
    assert all(found.hard and not found.categories for found in rows if not found.positive)
    assert not any("{" in found.text for found in rows)


def test_orders_stand_where_their_place_says_and_documents_without_are_harmless() -> None:
    rows = order_rows(40)
    assert [rows, 160] == [order_rows(40), len(rows)]
    assert {found.source for found in rows if found.positive} == {"authored-orders", "authored-hidden"}
    assert {found.place for found in rows if found.source == "authored-hidden"} == set(PLACES)
    assert all(not found.place for found in rows if found.source != "authored-hidden")
    assert all(found.text.strip() and "{" not in found.text for found in rows if found.source == "authored-orders")


@pytest.mark.parametrize(
    "document", ["One thing. Another thing. A third.", "| a |\n| b |\n| c |\n", "letters" * 30, ""]
)
def test_an_order_in_the_middle_breaks_no_word(document: str) -> None:
    text = hidden("DO IT", document, "middle", random.Random(1))
    before, _, after = text.partition("DO IT")
    assert (before.strip() + after.strip()).replace(" ", "").replace("\n", "") == document.replace(" ", "").replace(
        "\n", ""
    )
    if "." in document or "|" in document:
        assert before.strip().endswith((".", "|"))
