"""The runtime's benchmark: its files, its limits, its rows, and how llama.cpp's process is asked."""

import ast
import math
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
from typer.testing import CliRunner

from trackbed.apps.bench.case import Case, Source, cases, cases_of
from trackbed.apps.bench.checkpoints import SPREAD, NoRoom, Shape, derive, make_random, making
from trackbed.apps.bench.engine import Endless, Prompts
from trackbed.apps.bench.limits import Limits, Weights
from trackbed.apps.bench.report import Row
from trackbed.apps.bench.rival import LLAMA_CPP
from trackbed.apps.bench.runtime import Setting, compare
from trackbed.apps.cli import app

TINY = {"tiny": Shape(2, 256, 512, 4, 2, 64, 8.0, tied=True, vocabulary=1256)}
LIMITS = Limits(read=1e9, int8=2e9, float32=1e9, instructions="none")
# A Python as the benchmark sees it: it answers for llama.cpp, which takes a second, and four on the processor.
FAKE = f"""#!{sys.executable}
import json, sys
print(json.dumps({{"llama.cpp": "0"}}), flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    answer = {{"values": [] if asked["case"] == "close" else [1.0, 4.0]}}
    if asked["case"] == "decode":
        answer = {{"error": "it does not write"}}
    print(json.dumps(answer), flush=True)
"""


def quiet(*_: object) -> None:
    """Tell nobody."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_random(tmp_path_factory.mktemp("tiny"), "tiny", "Q4_0", quiet, quiet, TINY)


@pytest.fixture
def python(tmp_path: Path) -> Path:
    file = tmp_path / "python"
    file.write_text(FAKE)
    file.chmod(0o755)
    return file


@pytest.mark.parametrize("quant", ["Q4_0", "Q8_0", "Q4_K"])
def test_random_weights_are_centred_and_as_wide_as_a_new_model(quant: str, tmp_path: Path) -> None:
    path = make_random(tmp_path, "tiny", quant, quiet, quiet, TINY)
    (tensor,) = (t for t in gguf.GGUFReader(path).tensors if t.name == "blk.1.ffn_up.weight")
    weights = gguf.dequantize(tensor.data, tensor.tensor_type)
    assert tensor.tensor_type.name == quant
    assert abs(weights.mean()) < SPREAD / 5
    assert weights.std() == pytest.approx(SPREAD, rel=0.1)


def test_a_file_that_is_there_is_not_written_again(tiny: Path) -> None:
    before = tiny.stat().st_mtime_ns
    assert make_random(tiny.parent, "tiny", "Q4_0", quiet, quiet, TINY) == tiny
    assert tiny.stat().st_mtime_ns == before


def test_a_derived_file_has_other_products_and_the_same_embedding_and_words(tiny: Path, tmp_path: Path) -> None:
    found, source = gguf.GGUFReader(derive(tmp_path, tiny, "Q8_0", quiet, quiet)), gguf.GGUFReader(tiny)
    ours, theirs = ({t.name: t for t in reader.tensors} for reader in (found, source))
    assert ours.keys() == theirs.keys()
    assert np.array_equal(ours["token_embd.weight"].data, theirs["token_embd.weight"].data)
    up, old = ours["blk.0.ffn_up.weight"], theirs["blk.0.ffn_up.weight"]
    weights, before = (gguf.dequantize(t.data, t.tensor_type) for t in (up, old))
    assert up.tensor_type.name == "Q8_0"
    assert np.abs(weights - before).max() <= np.abs(before).max() / 127
    key = "tokenizer.ggml.tokens"
    assert found.fields[key].contents() == source.fields[key].contents()


def test_a_file_that_no_disk_holds_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(NoRoom, match=r"needs 1000000000\.0 GB"), making(tmp_path / "big", 10**18, quiet):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with making(tmp_path / "file", 1, quiet) as part:
            part.write_text("half")
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_prompts_have_the_tokens_that_were_asked_for_and_none_begins_as_another(tiny: Path) -> None:
    tokenizer = Endless.load(tiny)
    prompts = Prompts(tokenizer)
    made = [prompts.make(9, number) for number in range(50)]
    assert all(tokenizer.encode(text) == ids and len(ids) == 9 for text, ids in made)
    assert len({ids[0] for _, ids in made}) == 50


def test_limits_follow_from_the_weights_that_a_pass_reads_and_multiplies(tiny: Path) -> None:
    weights = Weights.read(tiny)
    assert weights
    products = 2 * (256 * 256 * 2 + 128 * 256 * 2 + 3 * 512 * 256)
    head = 1256 * 256 // 32 * 34
    source = Source("tiny")
    assert weights.limit(Case(source, "prefill", 8), LIMITS) == pytest.approx(LIMITS.int8 / (2 * products))
    read = LIMITS.read / (products // 32 * 18 + head)
    assert weights.limit(Case(source, "decode", count=8), LIMITS) == pytest.approx(read)
    deep = weights.limit(Case(source, "decode at", count=8, depth=1000), LIMITS)
    assert deep
    assert deep < read
    assert weights.limit(Case(source, "cold", 8), LIMITS) is None


def test_a_limit_is_the_best_that_was_seen() -> None:
    other = Limits(read=2e9, int8=1e9, float32=3e9, instructions="none")
    assert LIMITS.or_more(other) == other.or_more(LIMITS) == Limits(2e9, 2e9, 3e9, "none")


def test_every_row_that_is_asked_for_has_a_name_of_its_own_and_an_aim_above_its_floor() -> None:
    every = cases()
    assert len({case.name for case in every}) == len(every)
    assert all(case.aim and case.aim > case.floor for case in every if case.floor)
    assert {case.name for case in cases(quick=True)} < {case.name for case in every}


def test_rows_are_chosen_by_a_part_of_their_names() -> None:
    assert [case.work for case in cases(pattern="8b*DECODE")] == ["decode"]
    with pytest.raises(ValueError, match=r"'9B'.*\n  SmolLM2"):
        cases(pattern="9B")


def test_a_pattern_without_a_row_is_an_error_and_status_2(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["bench", "runtime", "--rows", "no such row", "--model", str(tmp_path)])
    assert result.exit_code == 2
    assert "no row's name has 'no such row' in it" in result.stderr


def test_every_case_has_an_answer_in_the_rivals_program() -> None:
    tree = ast.parse(LLAMA_CPP.program.read_text())
    written = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert {"do_open", "do_close", "do_prefill", "do_decode", "do_batch", "do_logits"} <= written


def test_llama_cpp_is_asked_in_turns_with_ours_and_what_it_does_not_do_is_said(tiny: Path, python: Path) -> None:
    source = Source("tiny", path=tiny)
    chosen = [Case(source, "prefill", 8, floor=1.0, aim=2.0), Case(source, "decode", count=4)]
    found = compare(chosen, Setting(1, 2, tiny, tiny.parent, python), quiet, quiet).as_json()
    prefill, decode = found["rows"]
    assert (prefill["rival"], prefill["theirs"], prefill["theirs_cpu"]) == ("llama.cpp", 8, 2)
    assert prefill["lowest"] <= prefill["ratio"] <= prefill["highest"]
    assert (prefill["floor"], prefill["aim"]) == (1, 2)
    assert prefill["share"] > 0
    assert (decode["rival"], decode["theirs"], decode["ours"] > 0) == ("", None, True)
    assert any("it does not write" in remark for remark in found["remarks"])


def test_without_llama_cpp_how_to_get_it_is_said(tiny: Path) -> None:
    chosen = cases_of("tiny", tiny, "decode 128")
    found = compare(chosen, Setting(1, 1, tiny, tiny.parent, None, quick=True), quiet, quiet).as_json()
    assert "pip install llama-cpp-python==0.3.36" in found["remarks"][0]
    assert found["rows"][0]["theirs"] is None
    assert math.isfinite(found["rows"][0]["ours"])


def test_a_row_keeps_to_its_floor_by_the_median_of_its_ratios() -> None:
    assert Row("x", [3, 3], [1, 2], more=True, floor=2).met is True
    assert Row("x", [3, 3], [2, 2], more=True, floor=2).met is False
