"""What the README, the shipped pages and the examples show does work."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from trackbed.apps.knowledge import PAGES
from trackbed.rails import load_policy

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
WITHOUT_MODELS = {"05_custom_rail.py", "07_tools.py"}
DOCUMENTS = [ROOT / "README.md", *sorted(PAGES.glob("*.md"))]


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """Every fenced block of that language, with a name for it."""
    for document in DOCUMENTS:
        fenced = re.findall(r"^```(\w*)\n(.*?)^```$", document.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
        found = [block for name, block in fenced if name == language]
        yield from ((f"{document.name}-{n}", block) for n, block in enumerate(found, start=1))


PYTHON, YAML, SHELL = dict(blocks("python")), dict(blocks("yaml")), dict(blocks(""))


def run(*arguments: str, cwd: Path = ROOT) -> str:
    """What a Python program prints. Warnings of libraries are theirs; errors fail the test."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=cwd, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize(
    "example",
    [
        pytest.param(e, marks=() if e.name in WITHOUT_MODELS else pytest.mark.models, id=e.name)
        for e in EXAMPLES
    ],
)  # fmt: skip
def test_an_example_runs_from_any_folder(example: Path, tmp_path: Path) -> None:
    assert run(str(example), cwd=tmp_path).strip()


def test_the_rail_of_the_examples_finds_every_name() -> None:
    assert (
        run("examples/05_custom_rail.py") == "rewrite Is <COMPETITOR> any better than <COMPETITOR>? Is <COMPETITOR>?\n"
    )


def test_examples_are_short() -> None:
    assert {e.name: len(e.read_text().splitlines()) for e in EXAMPLES if len(e.read_text().splitlines()) > 45} == {}


@pytest.mark.parametrize("name", YAML)
def test_a_policy_in_the_documentation_loads(name: str, tmp_path: Path) -> None:
    """A block that is only a part of a policy is put into one."""
    file = tmp_path / "policy.yaml"
    text = YAML[name] if "policy: 1" in YAML[name] else f"policy: 1\nname: test\n{YAML[name]}"
    if "model: guard" in text and "models:" not in text:
        text += "\nmodels: {guard: llama-guard-3-8b}\n"
    text = text.replace("acme.rails:Competitors", "examples_competitors:Competitors")
    text = text.replace("acme.orders:status", "examples.policies.orders:status")
    file.write_text(text)
    run("-c", f"import sys, importlib.util as u\n"
              f"spec = u.spec_from_file_location('examples_competitors', 'examples/05_custom_rail.py')\n"
              f"sys.modules['examples_competitors'] = m = u.module_from_spec(spec); spec.loader.exec_module(m)\n"
              f"from trackbed.rails import load_policy; load_policy({str(file)!r})")  # fmt: skip


@pytest.mark.models
@pytest.mark.parametrize("name", PYTHON)
def test_python_in_the_documentation_runs(name: str, tmp_path: Path) -> None:
    file = tmp_path / "shown.py"
    file.write_text(PYTHON[name])
    run(str(file))


COMMANDS = sorted({line for block in SHELL.values() for line in block.splitlines() if line.startswith("trackbed ")})


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_in_the_documentation_exists_with_its_options(line: str) -> None:
    words = line.split("#")[0].split()[1:]
    names = [word for word in words[:2] if re.fullmatch("[a-z]+", word)]
    group = names if names[0] in ("models", "policy", "trace", "bench", "eval", "index") else names[:1]
    helped = run("-m", "trackbed.apps.cli", *group, "--help")
    assert [word for word in words if word.startswith("--") and word not in helped] == []


def test_every_shipped_policy_loads() -> None:
    names = [file.stem for file in (ROOT / "policies").glob("*.yaml")]
    assert len(names) == 6
    assert [load_policy(name).name for name in names] == names


def test_the_policy_of_the_examples_passes_its_own_tests() -> None:
    assert "2 passed" in run("-m", "trackbed.apps.cli", "policy", "test", "examples/policies/chat.yaml")


def test_the_tools_of_the_examples_pass_their_own_tests() -> None:
    folder = ROOT / "examples" / "policies"
    assert "12 passed" in run("-m", "trackbed.apps.cli", "policy", "test", "tools.yaml", "--mutate", cwd=folder)
    assert "OK" in run("-m", "trackbed.apps.cli", "policy", "check", "tools.yaml", "--strict", cwd=folder)


def test_the_flows_of_the_examples_pass_their_own_tests() -> None:
    folder = ROOT / "examples" / "policies"  # where the policy finds its action
    assert "7 passed" in run("-m", "trackbed.apps.cli", "policy", "test", "refund.yaml", "--mutate", cwd=folder)
    assert "OK" in run("-m", "trackbed.apps.cli", "policy", "check", "refund.yaml", cwd=folder)
