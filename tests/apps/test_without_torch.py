"""A chat without knowledge needs no PyTorch, from the command line to the answer."""

import subprocess
import sys
from pathlib import Path

import pytest

# `import torch` fails from here on, wherever it stands.
CHAT = """
import sys
sys.modules["torch"] = None
from trackbed.apps.cli import main
main()
"""


@pytest.mark.models
def test_a_question_under_a_policy_without_knowledge_is_answered(model_cache: Path, tmp_path: Path) -> None:
    (tmp_path / "bare.yaml").write_text("policy: 1\nname: bare\n")
    (tmp_path / "trackbed.toml").write_text(f"cache = {str(model_cache.parent)!r}\n")
    asked = ["--config", "trackbed.toml", "chat", "--policy", "bare.yaml", "--ask", "What is the capital of France?"]
    done = subprocess.run(
        [sys.executable, "-c", CHAT, *asked], capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path
    )
    assert (done.returncode, done.stdout.strip() != "") == (0, True), done.stderr
