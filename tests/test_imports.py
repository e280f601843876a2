"""Who may import whom: the folders' edges, the types' place in each folder, and what an import may load."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "apps": {"apps", "rails", "llm", "retrieval"},
    "rails": {"rails", "llm", "retrieval"},
    "llm": {"llm"},
    "retrieval": {"retrieval"},
    "policies": set[str](),
}
HEAVY = {"torch", "faiss", "sentence_transformers", "transformers", "langchain_core", "llama_index"}
FILES = [file for folder in MAY_IMPORT for file in sorted((ROOT / folder).rglob("*.py"))]


def imported(tree: ast.AST) -> Iterator[str]:
    """The full names of the modules that a tree imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module or ""


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_file_imports_only_what_its_folder_may(file: Path) -> None:
    folder, *rest = file.relative_to(ROOT).parts
    names = list(imported(ast.parse(file.read_text(encoding="utf-8"))))
    ours = {name.split(".")[1] for name in names if name.startswith("trackbed.")}
    assert ours <= MAY_IMPORT[folder]
    if rest in (["types.py"], ["errors.py"]):
        assert folder not in ours, "nouns and errors import nothing of their own folder"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_nothing_imports_the_file_with_a_folders_public_verb_but_its_doors(file: Path) -> None:
    folder, name = file.relative_to(ROOT).parts[0], file.name
    doors = {"rails": ("trackbed.rails.pipeline", {"__init__.py", "pipeline.py", "testing.py"})}
    verb, allowed = doors.get(folder, ("", set()))
    if name not in allowed:
        assert verb not in imported(ast.parse(file.read_text(encoding="utf-8")))


@pytest.mark.parametrize("module", ["trackbed.rails", "trackbed.rails.pipeline", "trackbed.llm", "trackbed.retrieval",
                                    "trackbed.apps.cli"])  # fmt: skip
def test_importing_a_folder_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*(sys.modules.keys() & {HEAVY!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == []
