"""The benchmark measures both sides on the same checkpoint, and says which is which."""

import json
import shutil
from pathlib import Path

from typer.testing import CliRunner

from trackbed.apps.cli import app


def test_a_benchmark_gives_both_rates_and_their_ratio(tiny_chat: Path, tmp_path: Path) -> None:
    longer = shutil.copytree(tiny_chat, tmp_path / "longer")
    config = json.loads((longer / "config.json").read_text())
    (longer / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 1024}))
    result = CliRunner().invoke(
        app, ["bench", "runtime", "--model", str(longer), "--threads", "1", "--rounds", "2", "--json"]
    )
    assert result.exit_code == 0, result.output
    measured = json.loads(result.stdout)
    assert set(measured["versions"]) == {"trackbed", "torch", "transformers"}
    assert [row["name"] for row in measured["rows"]] == [
        f"{longer}: prefill 512, tokens/s",
        f"{longer}: decode 128, tokens/s",
    ]
    assert all(row["lowest"] <= row["ratio"] <= row["highest"] and row["ours"] > 0 for row in measured["rows"])
