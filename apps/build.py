"""Put the parts together: a policy becomes a pipeline over the models and the index that it names.

The only file that knows every concrete class. What a policy does not use is not opened.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trackbed.apps.knowledge import Progress, open_knowledge
from trackbed.apps.record import RecordedPipeline, TraceFile, trace_file
from trackbed.apps.settings import Settings, secret
from trackbed.apps.terminal import err, say
from trackbed.llm.catalogue import locate
from trackbed.llm.types import Endpoint, Generator
from trackbed.rails.pipeline import Pipeline
from trackbed.rails.policy import ModelSource, Policy
from trackbed.rails.types import Models, Stage
from trackbed.rails.use import named_models
from trackbed.retrieval.types import Embedder, Retriever

if TYPE_CHECKING:
    from trackbed.llm.encoder import Encoder


@contextmanager
def build(settings: Settings, policy: Policy, progress: Progress | None = None) -> Iterator[Pipeline]:
    """A pipeline that answers; its models are closed at the end of the `with` block.

    Raises LLMError and RetrievalError where a model or the index cannot be opened, and SettingsError where the
    environment has no key for an endpoint.
    """
    report = progress or (lambda step, done, total: None)
    embedder = open_embedder(settings)
    with ExitStack() as stack:
        file = stack.enter_context(trace_file(settings, _warn))
        # A missing index is found at once, a model is seconds of loading.
        retriever = open_knowledge(settings, policy, embedder, report, stack)
        if policy.dialog and policy.dialog.intents:
            report(f"loading {settings.embedder}", 0, 0)
            embedder.embed([""])
        models = _open_models(settings, policy, _asked(policy), embedder, report, stack, answers=True)
        yield _pipeline(settings, policy, models, retriever, file)


@contextmanager
def build_judge(
    settings: Settings, policy: Policy, *stages: Stage, progress: Progress | None = None
) -> Iterator[Pipeline]:
    """A pipeline that only judges, in these stages: it opens the models of their rails, and no index.

    Raises LLMError where a model cannot be opened.
    """
    report = progress or (lambda step, done, total: None)
    judging = replace(policy, rails={stage: policy.rails[stage] for stage in stages}, dialog=None, knowledge=None)
    with ExitStack() as stack:
        file = stack.enter_context(trace_file(settings, _warn))
        models = _open_models(settings, policy, _asked(judging), open_embedder(settings), report, stack)
        yield _pipeline(settings, judging, models, None, file)


def open_embedder(settings: Settings) -> Embedder:
    """The model that turns passages and questions into vectors; its files are looked at when it is first used."""
    return _LazyEncoder(settings)


def _pipeline(
    settings: Settings, policy: Policy, models: Models, retriever: Retriever | None, file: TraceFile | None
) -> Pipeline:
    if file is None:
        return Pipeline(policy, models, retriever)
    return RecordedPipeline(policy, models, retriever, file, full=settings.trace_full)


def _warn(words: str) -> None:
    say(words, err)


class _LazyEncoder:
    """An Encoder that is made when first used: a policy that compares no meanings needs none."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @cached_property
    def _encoder(self) -> "Encoder":
        from trackbed.llm.encoder import Encoder

        return Encoder(self._settings.embedder, self._settings.models)

    @property
    def name(self) -> str:
        return self._encoder.name

    @property
    def sha256(self) -> str:
        return self._encoder.sha256

    @property
    def dimension(self) -> int:
        return self._encoder.dimension

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self._encoder.embed(texts)


def _asked(policy: Policy) -> set[str]:
    """The models that the policy's rails, its dialog and its search ask, by the policy's names."""
    asked = {model for uses in policy.rails.values() for use in uses for _, model in named_models(use.config)}
    asked |= {policy.dialog.model} if policy.dialog and policy.dialog.model else set()
    return asked | ({policy.knowledge.asks} if policy.knowledge and policy.knowledge.asks else set())


def _open_models(
    settings: Settings,
    policy: Policy,
    asked: Collection[str],
    embedder: Embedder,
    report: Progress,
    stack: ExitStack,
    *,
    answers: bool = False,
) -> Models:
    """A model for each name that is asked, and for the answer; those of the same files and adapter are one."""
    engines: dict[_Files, Generator] = {}
    model, adapter = policy.generation.model, policy.generation.adapter
    # All are there before the first is loaded.
    wanted = {name: _Files(_found(settings, policy.models[name])) for name in sorted(asked)}
    drafts = None
    if answers:
        folder = locate(adapter, settings.models).resolve() if adapter else None
        drafts = _Files(_found(settings, policy.models[model]), folder)
        if not adapter:
            wanted[model] = drafts
    named = {files: policy.models[name] for name, files in wanted.items()}
    if drafts:
        named[drafts] = policy.drafts
    for files, source in named.items():
        if isinstance(files.model, Endpoint):
            from trackbed.llm.remote import RemoteEngine

            endpoint = files.model
            engines[files] = RemoteEngine(endpoint, secret(endpoint.key_env) if endpoint.key_env else "")
        else:
            report(f"loading {source}", 0, 0)
            engines[files] = _open(files.model, files.adapter, settings, stack)
    generators = {name: engines[files] for name, files in wanted.items()}
    return Models(generators, embedder, engines[drafts] if drafts and adapter else None)


class _Files(NamedTuple):
    """What a model is loaded from."""

    model: Path | Endpoint
    adapter: Path | None = None


def _open(path: Path, adapter: Path | None, settings: Settings, stack: ExitStack) -> Generator:
    """A judge, a tagger or a cross-encoder where the folder is one, else an engine. Imported where needed."""
    if adapter is None and (path / "judge.json").is_file():
        from trackbed.llm.judge import Judge

        return stack.enter_context(Judge(path, settings.models, threads=settings.engine.threads))
    if adapter is None and (path / "tagger.json").is_file():
        from trackbed.llm.tagger import Tagger

        return stack.enter_context(Tagger(path, settings.models, threads=settings.engine.threads))
    if adapter is None and (path / "claims.json").is_file():
        from trackbed.llm.claim_judge import ClaimJudge

        return stack.enter_context(ClaimJudge(path, settings.models, threads=settings.engine.threads))
    from trackbed.llm.entailment import Entailment, is_entailment

    if adapter is None and is_entailment(path):
        return stack.enter_context(Entailment(path, threads=settings.engine.threads))
    from trackbed.llm.engine import Engine

    return stack.enter_context(Engine.open(path, settings.engine, adapter))


def _found(settings: Settings, source: ModelSource) -> Path | Endpoint:
    return source if isinstance(source, Endpoint) else locate(source, settings.models).resolve()
