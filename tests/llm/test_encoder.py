import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from trackbed.llm.encoder import Encoder
from trackbed.llm.errors import ModelLoadError
from trackbed.retrieval.types import Embedder


@pytest.fixture(scope="session")
def encoder(model_cache: Path) -> Encoder:
    return Encoder("all-minilm-l6-v2", model_cache)


@pytest.mark.models
def test_a_question_is_nearer_to_its_answer_than_to_other_things(encoder: Encoder) -> None:
    question, answer, near, far = encoder.embed(
        [
            "How do I get my money back?",
            "Refunds are paid within five days of returning the goods.",
            "Our shops open at nine in the morning.",
            "The mitochondrion is an organelle.",
        ]
    )
    assert question @ answer > question @ near > question @ far


@pytest.mark.models
def test_vectors_are_unit_long_and_as_wide_as_announced(encoder: Encoder) -> None:
    embedder: Embedder = encoder
    vectors = embedder.embed(["a", "b " * 1000, "", "lone \ud800 surrogate"])
    assert vectors.dtype == np.float32
    assert vectors.shape == (4, embedder.dimension) == (4, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert embedder.embed([]).shape == (0, 384)


@pytest.mark.models
def test_a_text_has_the_same_vector_in_any_company(encoder: Encoder) -> None:
    texts = ["short", "a text of middling length, with a clause", "long " * 200, "x"]
    together = encoder.embed(texts)
    alone = np.concatenate([encoder.embed([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)


@pytest.mark.models
def test_threads_may_share_an_encoder(model_cache: Path) -> None:
    encoder = Encoder("all-minilm-l6-v2", model_cache)
    texts = [f"text number {i}" for i in range(8)]
    with ThreadPoolExecutor(4) as pool:
        at_once = list(pool.map(lambda text: encoder.embed([text])[0], texts))
    np.testing.assert_allclose(np.stack(at_once), encoder.embed(texts), atol=1e-5)


@pytest.mark.models
def test_making_an_encoder_loads_no_model(model_cache: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from trackbed.llm.encoder import Encoder\n"
        "print(Encoder('all-minilm-l6-v2', Path(sys.argv[1])).dimension, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(model_cache)], capture_output=True, text=True)
    assert done.stdout == "384 False\n", done.stderr


def test_a_folder_that_is_no_embedder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=f"{tmp_path} is not a sentence-transformers model"):
        Encoder(str(tmp_path), tmp_path)
    (tmp_path / "modules.json").write_text(json.dumps(["no module"]))
    with pytest.raises(ModelLoadError, match=f"{tmp_path} is not a sentence-transformers model"):
        Encoder(str(tmp_path), tmp_path)


def test_weights_that_do_not_load_are_a_model_load_error(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_size": 8}))
    (tmp_path / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ModelLoadError, match=f"{tmp_path} is not a model that sentence-transformers loads"):
        Encoder(str(tmp_path), tmp_path).embed(["text"])


def test_models_of_other_files_have_other_digests(tmp_path: Path) -> None:
    for name, weights in ("one", b"1"), ("two", b"2"), ("same", b"1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text('{"hidden_size": 8}')
        (tmp_path / name / "model.safetensors").write_bytes(weights)
    one, two, same = (Encoder(str(tmp_path / name), tmp_path).sha256 for name in ("one", "two", "same"))
    assert one == same != two
