import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.fakes import WordEmbedder
from tests.postgres_server import Server
from trackbed.apps.build import build, build_judge
from trackbed.apps.evals.judging import judged
from trackbed.apps.knowledge import index_path, open_knowledge
from trackbed.apps.settings import Settings, SettingsError
from trackbed.llm.errors import ModelLoadError, UnknownModel
from trackbed.llm.remote import RemoteEngine
from trackbed.rails.policy import Policy, load_policy
from trackbed.rails.types import Turn
from trackbed.retrieval.errors import IndexMissing, RetrievalError
from trackbed.retrieval.ingest import ingest
from trackbed.retrieval.postgres.connection import PostgresIndex
from trackbed.retrieval.postgres.write import PostgresWriter
from trackbed.retrieval.refine import Refined
from trackbed.retrieval.types import Known, Passage, Query


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(cache=tmp_path / "cache", data=tmp_path / "data")


@pytest.fixture
def with_models(settings: Settings, model_cache: Path) -> Settings:
    settings.cache.mkdir()
    settings.models.symlink_to(model_cache)
    return settings


def policy(folder: Path, text: str) -> Policy:
    (folder / "p.yaml").write_text(f"policy: 1\n{text}")
    return load_policy(folder / "p.yaml")


async def test_rails_that_ask_no_model_judge_where_no_model_is(settings: Settings, tmp_path: Path) -> None:
    with build_judge(settings, policy(tmp_path, "input: [{rail: pii, then: mask}]"), "input") as pipeline:
        verdict, _ = await pipeline.check("input", "my card is 4111 1111 1111 1111")
    assert (verdict.action, verdict.text) == ("rewrite", "my card is <CREDIT_CARD>")


def test_a_model_that_is_not_there_is_told_with_the_command_that_fetches_it(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="trackbed models get smollm2-135m-instruct"):
        build(settings, policy(tmp_path, "name: bare")).__enter__()


def test_judging_needs_only_the_models_of_that_stage(settings: Settings, tmp_path: Path) -> None:
    guarded = policy(tmp_path, "models: {guard: ./guard.gguf}\noutput: [{rail: llama_guard, model: guard}]")
    with build_judge(settings, guarded, "input"):
        pass
    with pytest.raises(UnknownModel, match=r"guard\.gguf"):
        build_judge(settings, guarded, "output").__enter__()


def test_an_index_is_a_name_in_the_data_folder_or_a_path(settings: Settings) -> None:
    assert index_path(settings, "handbook") == settings.indexes / "handbook"
    assert index_path(settings, "./handbook", Path("/p")) == Path("/p/handbook")
    assert index_path(settings, "..", Path("/p")) == Path("/p/..")
    assert index_path(settings, "/abs/handbook", Path("/p")) == Path("/abs/handbook")


@pytest.mark.models
def test_an_index_that_is_missing_is_told_before_a_model_is_loaded(with_models: Settings, tmp_path: Path) -> None:
    with pytest.raises(IndexMissing, match=r"handbook.*trackbed ingest"):
        build(with_models, policy(tmp_path, "knowledge: {index: handbook}\nmodels: {chat: ./none.gguf}")).__enter__()


async def test_an_index_in_postgresql_is_found_by_its_name_in_the_database_of_the_settings(
    postgres: Server, settings: Settings, tmp_path: Path
) -> None:
    with PostgresWriter.open(PostgresIndex(postgres.url, "kb"), WordEmbedder(), {}) as writer:
        passage = Passage("Trains run on rails.", "a.md", 0, 20)
        writer.put("a.md", Known("0", "", 1), [passage], WordEmbedder().embed([passage.text]))
        writer.commit()
    named = policy(tmp_path, "knowledge: {index: kb, retriever: postgres}")
    with pytest.raises(SettingsError, match="'kb' is in PostgreSQL, and no database is set"):
        open_knowledge(settings, named, WordEmbedder(), lambda step, done, total: None, ExitStack())
    there = settings.model_copy(update={"postgres": SecretStr(postgres.url)})
    retriever = open_knowledge(there, named, WordEmbedder(), lambda step, done, total: None, ExitStack())
    assert retriever
    assert [found.source for found in await retriever.search(Query("trains", frozenset()), 1)] == ["a.md"]


@pytest.mark.models
async def test_the_shipped_pages_are_indexed_on_first_use_and_found(with_models: Settings) -> None:
    steps: list[str] = []
    for _ in range(2):
        steps.clear()
        with build(with_models, load_policy("default"), lambda step, done, total: steps.append(step)) as pipeline:
            assert pipeline.retriever
            found = await pipeline.retriever.search(Query("How do I add a rail?", frozenset()), 2)
            assert any(passage.source == "adding-a-rail.md" for passage in found)
    assert steps[0] == "loading all-minilm-l6-v2"
    assert set(steps[1:]) == {"loading minilm-guard", "loading minilm-injection", "loading smollm2-135m-instruct"}


@pytest.mark.models
async def test_two_names_of_one_model_share_its_engine(with_models: Settings, tmp_path: Path) -> None:
    twice = policy(
        tmp_path,
        "models: {guard: smollm2-135m-instruct}\ninput: [{rail: llama_guard, model: guard}]\n"
        "generation: {sampling: {max_tokens: 4}}",
    )
    with build(with_models, twice) as pipeline:
        models = pipeline.models.generators
        assert models["guard"] is models["chat"]
        reply = await pipeline.respond(Turn("Hello"))
    assert reply.verdict.by in ("", "input/llama_guard")


@pytest.mark.models
async def test_an_adapter_is_for_the_answer_alone(with_models: Settings, tmp_path: Path) -> None:
    adapted = policy(
        tmp_path,
        "models: {guard: smollm2-135m-instruct}\ninput: [{rail: llama_guard, model: guard}]\n"
        "generation: {adapter: grounded-answer, sampling: {max_tokens: 4}}",
    )
    with build(with_models, adapted) as pipeline:
        assert set(pipeline.models.generators) == {"guard"}
        assert pipeline.models.answering is not pipeline.models.generators["guard"]
        reply = await pipeline.respond(Turn("Hello"))
    assert reply.verdict.by in ("", "input/llama_guard")


@pytest.mark.models
async def test_the_shipped_judge_of_claims_is_asked_by_the_grounding_rail(
    with_models: Settings, tmp_path: Path
) -> None:
    judging = policy(
        tmp_path,
        "models: {claims: smollm2-claims}\noutput: [{rail: grounding, minimum: 1, support: 0.75, relevance: 0, "
        "model: claims, model_weight: 0.2, excerpt: 900}]",
    )
    text = "The library was opened in 1923 by Ada Byron. It shuts at six every day."
    passage = Passage(text, "library.md", 0, len(text), score=1.0)
    with build(with_models, judging) as pipeline:
        scores = {}
        for claim in ("Ada Byron opened the library in the year 1923.", "The library has a large garden behind it."):
            scores[claim] = judged(*await pipeline.check("output", claim, Turn("", passages=(passage,)))).score
    told, foreign = scores.values()
    assert told < foreign
    assert foreign > 0.9


def test_building_blocks_are_light_until_they_are_used() -> None:
    heavy = "{'torch', 'faiss', 'transformers', 'sentence_transformers'}"
    code = f"import sys, trackbed.apps.build; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_model_behind_an_endpoint_needs_no_files_and_its_key(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = policy(tmp_path, "models: {chat: {openai: 'http://localhost:8000/v1', model: m, key_env: MY_KEY}}")
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(SettingsError, match="the environment has no MY_KEY"):
        build(settings, remote).__enter__()
    monkeypatch.setenv("MY_KEY", "s3cret")
    with build(settings, remote) as pipeline:
        assert isinstance(pipeline.models.generators["chat"], RemoteEngine)


async def test_what_a_policy_says_of_its_search_is_done(settings: Settings, tmp_path: Path) -> None:
    for name, text in {"red": "A red train. ", "blue": "A blue train. "}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.md").write_text("\n\n".join(f"# {n}\n\n{text * 9}" for n in range(4)))
        ingest([tmp_path / name], settings.indexes / name, WordEmbedder())
    named = policy(tmp_path, "knowledge: {index: [red, blue], retriever: hybrid, diversity: 0.5, neighbours: 1}")
    retriever = open_knowledge(settings, named, WordEmbedder(), lambda step, done, total: None, ExitStack())
    assert isinstance(retriever, Refined)
    found, notes = await retriever.find(Query("blue train", frozenset()), 3)
    assert {passage.source for passage in found} <= {"red/a.md", "blue/a.md"}
    assert found[0].source == "blue/a.md"
    assert set(notes) == {"candidates", "diversity", "widening"}


def test_what_a_retriever_cannot_do_is_told_at_the_start(settings: Settings, tmp_path: Path) -> None:
    named = policy(
        tmp_path, "knowledge: {index: kb, retriever: 'tests.apps.theirs:langchain_retriever', section: true}"
    )
    with pytest.raises(RetrievalError, match=r"p\.yaml: retriever .* neighbours and parents need"):
        open_knowledge(settings, named, WordEmbedder(), lambda step, done, total: None, ExitStack())


def test_an_endpoint_reranks_nothing(settings: Settings, tmp_path: Path) -> None:
    endpoint = "models: {far: {openai: 'http://localhost:1/v1', model: m}}\n"
    named = policy(tmp_path, f"{endpoint}knowledge: {{index: red, rerank: far}}")
    (tmp_path / "a.md").write_text("A train.")
    ingest([tmp_path / "a.md"], settings.indexes / "red", WordEmbedder())
    with pytest.raises(RetrievalError, match="model 'far' is an endpoint"):
        open_knowledge(settings, named, WordEmbedder(), lambda step, done, total: None, ExitStack())
