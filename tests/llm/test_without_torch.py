"""A CPU runs a model without PyTorch, whose import takes longer than a small model's first answer."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from trackbed.llm.catalogue import locate
from trackbed.llm.tokenizer import Tokenizer

# `import torch` fails from here on, wherever it stands.
WITHOUT_TORCH = "import sys\nsys.modules['torch'] = None\n"
ONE_TOKEN = """
    import asyncio
    from trackbed.llm.engine import Engine
    from trackbed.llm.types import Message, SamplingParams
    with Engine.open(sys.argv[1]) as engine:
        params = SamplingParams(max_tokens=1, temperature=0.5, top_p=0.9, seed=1)
        prompt = [Message("user", "How do I add a rail?")]
        completion = asyncio.run(engine.generate(prompt, params))
        scores = asyncio.run(engine.score(prompt, ["Write", "Run"]))
    print(completion.usage.completion_tokens, len(scores))
"""
ENCODE = """
    from pathlib import Path
    from trackbed.llm.tokenizer import Tokenizer
    print(Tokenizer.load(Path(sys.argv[1])).encode("Hello world  12"))
"""


def run(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    code = WITHOUT_TORCH + textwrap.dedent(code)
    return subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, timeout=60, check=False)


def test_here_torch_cannot_be_imported() -> None:
    assert "import of torch halted" in run("import torch").stderr


def test_an_engine_draws_a_token_and_scores(tiny_chat: Path) -> None:
    done = run(ONE_TOKEN, str(tiny_chat))
    assert done.stdout == "1 2\n", done.stderr


@pytest.mark.models
def test_an_engine_on_a_gguf_file_draws_a_token_and_scores(model_cache: Path) -> None:
    done = run(ONE_TOKEN, str(locate("smollm2-135m-instruct", model_cache)))
    assert done.stdout == "1 2\n", done.stderr


@pytest.mark.models
def test_the_tokenizer_of_a_gguf_file_encodes(model_cache: Path) -> None:
    path = locate("smollm2-135m-instruct", model_cache)
    done = run(ENCODE, str(path))
    assert done.stdout == f"{Tokenizer.load(path).encode('Hello world  12')}\n", done.stderr
