"""Who may import whom: the folders' edges, the types' place in each folder, and what an import may load."""

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
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
# The file with a folder's public verb, and who beside other folders may import it.
VERBS = {
    "rails/pipeline.py": {"rails/__init__.py", "rails/testing.py", "rails/replay.py"},
    "llm/engine.py": {"llm/__init__.py"},
}
HEAVY = {"torch", "faiss", "sentence_transformers", "transformers", "langchain_core", "llama_index", "psycopg", "ray"}
MAY_LOAD = {
    "llm/tuning": {"torch", "transformers"},
    "llm": {"torch"},
    "apps/adapters": {"langchain_core", "llama_index"},
}
PATHS = [file.relative_to(ROOT) for folder in MAY_IMPORT for file in sorted((ROOT / folder).rglob("*.py"))]
every_file = pytest.mark.parametrize("path", PATHS, ids=str)


def tree_of(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def imported(nodes: Iterable[ast.AST]) -> set[str]:
    """The full names of what is imported, each beginning with its package."""
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def at_import(tree: ast.AST) -> Iterator[ast.AST]:
    """What runs when a file is imported: all but the bodies of functions, and what only the type checker reads."""
    for node in ast.iter_child_nodes(tree):
        typing = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if not typing and not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node
            yield from at_import(node)


@every_file
def test_a_file_imports_only_what_its_folder_may(path: Path) -> None:
    folder, *rest = path.parts
    names = imported(ast.walk(tree_of(path)))
    ours = {name.split(".")[1] for name in names if name.startswith("trackbed.")}
    assert ours <= MAY_IMPORT[folder]
    assert not {name.split(".")[0] for name in names} & {"tests", "examples"}
    if rest in (["types.py"], ["errors.py"]):
        assert folder not in ours, "nouns and errors import nothing of their own folder"


@every_file
def test_no_file_imports_the_public_verb_of_its_folder(path: Path) -> None:
    for verb, doors in VERBS.items():
        if path.parts[0] == Path(verb).parts[0] and path.as_posix() not in doors:
            module = "trackbed." + verb.removesuffix(".py").replace("/", ".")
            assert not any(f"{name}.".startswith(f"{module}.") for name in imported(ast.walk(tree_of(path))))


@every_file
def test_a_file_loads_what_is_heavy_only_when_it_is_used(path: Path) -> None:
    allowed = next((names for folder, names in MAY_LOAD.items() if path.is_relative_to(folder)), set())
    assert {name.split(".")[0] for name in imported(at_import(tree_of(path)))} & HEAVY <= allowed


@pytest.mark.parametrize(
    "module",
    ["trackbed.rails", "trackbed.rails.pipeline", "trackbed.llm", "trackbed.retrieval", "trackbed.apps.cli"],
)
def test_importing_a_folder_loads_nothing_heavy(module: str) -> None:
    assert loaded(module) & HEAVY == set()


def test_who_runs_a_pipeline_waits_for_nothing_that_only_reads_policies() -> None:
    unread = {"numpy", "huggingface_hub", "httpx", "pydantic", "jinja2", "yaml", "re2", "phonenumbers"} | HEAVY
    assert loaded("trackbed.rails; from trackbed.rails import Pipeline, Turn, load_policy") & unread == set()


def test_reading_a_policy_loads_nothing_that_runs_a_model() -> None:
    reads = "trackbed.rails; trackbed.rails.load_policy('strict')"
    assert loaded(reads) & ({"numpy", "huggingface_hub", "httpx"} | HEAVY) == set()


def test_importing_an_adapter_loads_its_framework_alone() -> None:
    assert loaded("trackbed.apps.adapters.langchain") & HEAVY == {"langchain_core"}
    assert loaded("trackbed.apps.adapters.llamaindex") & HEAVY == {"llama_index"}


def loaded(module: str) -> set[str]:
    """The modules that are there when this one has been imported, and what follows it was run."""
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())
