import asyncio
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM, LlamaForCausalLM, PreTrainedTokenizerFast

from tests.llm.conftest import load_reference
from tests.llm.test_adapter import write_peft
from trackbed.llm import Choices, Engine, EngineConfig, Generator, Message, Part, RawPrompt, SamplingParams
from trackbed.llm.batch import Batch
from trackbed.llm.catalogue import locate
from trackbed.llm.checkpoint import load_model
from trackbed.llm.errors import EngineStopped, LLMError, PromptTooLong
from trackbed.llm.models.llama import Llama
from trackbed.llm.tokenizer import Tokenizer
from trackbed.llm.types import Delta

QUESTIONS = [
    "How do I add a rail?",
    "2 + 2 =",
    "Wer bist du? Ça va? 日本語 😀",
    "A policy is one YAML file. " * 3,
    "a",
    "<|im_end|>",
]
GREEDY = SamplingParams(max_tokens=64)


def ask(question: str) -> list[Message]:
    return [Message("user", question)]


EXACT = EngineConfig(dtype="float32")  # as transformers computes


@pytest.fixture(scope="module")
def engine(tiny_chat: Path) -> Iterator[Engine]:
    with Engine.open(tiny_chat, EXACT) as engine:
        yield engine


@pytest.fixture(scope="module")
def narrow(tiny_chat: Path) -> Iterator[Engine]:
    """Little room: passes of few tokens, and a cache in which few sequences fit beside each other."""
    with Engine.open(tiny_chat, EngineConfig(dtype="float32", max_seqs=4, max_tokens=16, cache_tokens=160)) as engine:
        yield engine


@pytest.fixture(scope="module")
def reference(tiny_chat: Path) -> LlamaForCausalLM:
    return AutoModelForCausalLM.from_pretrained(tiny_chat, dtype=torch.float32)


def greedy_reference(model: LlamaForCausalLM, tokenizer: Tokenizer, messages: list[Message], max_tokens: int) -> str:
    ids = torch.tensor([tokenizer.encode_prompt(messages)])
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=max_tokens, pad_token_id=0
    )
    return tokenizer.decode(out[0, ids.shape[1] :].tolist())


async def test_greedy_text_is_that_of_transformers(
    engine: Engine, reference: LlamaForCausalLM, tiny_chat: Path
) -> None:
    for question in QUESTIONS[:-1]:
        completion = await engine.generate(ask(question), GREEDY)
        assert completion.text == greedy_reference(reference, Tokenizer.load(tiny_chat), ask(question), 64)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
async def test_with_an_adapter_greedy_text_is_that_of_pefts_merged_model(
    engine: Engine, tiny_chat: Path, tmp_path: Path
) -> None:
    merged = write_peft(tmp_path / "peft", AutoModelForCausalLM.from_pretrained(tiny_chat, dtype=torch.float32))
    with Engine.open(tiny_chat, EXACT, tmp_path / "peft") as adapted:
        found = await adapted.generate(ask(QUESTIONS[0]), GREEDY)
    assert found.text == greedy_reference(merged, Tokenizer.load(tiny_chat), ask(QUESTIONS[0]), 64)
    assert found.text != (await engine.generate(ask(QUESTIONS[0]), GREEDY)).text


async def test_in_company_and_in_little_room_each_has_the_text_it_has_alone(engine: Engine, narrow: Engine) -> None:
    asked = [
        (ask(question), SamplingParams(max_tokens=20 + 5 * n, temperature=n % 2, top_p=0.9, seed=n))
        for n, question in enumerate(QUESTIONS * 2)
    ]
    alone = [await engine.generate(*one) for one in asked]
    assert await asyncio.gather(*(engine.generate(*one) for one in asked)) == alone
    assert await asyncio.gather(*(narrow.generate(*one) for one in asked)) == alone


async def test_a_stream_is_the_completion_in_pieces(engine: Engine) -> None:
    for n, question in enumerate(QUESTIONS):
        params = SamplingParams(max_tokens=60, temperature=1.5, seed=n, stop=("e t", "zq"))
        deltas = [delta async for delta in engine.stream(ask(question), params)]
        completion = await engine.generate(ask(question), params)
        assert deltas[-1].completion == completion
        assert "".join(delta.text for delta in deltas) == completion.text
        assert all(delta.completion is None and delta.text for delta in deltas[:-1])


async def test_a_seed_gives_the_same_text_again_and_another_seed_another(engine: Engine) -> None:
    def drawn(seed: int | None) -> SamplingParams:
        return SamplingParams(temperature=1.0, max_tokens=30, seed=seed)

    texts = [(await engine.generate(ask("Go on."), drawn(seed))).text for seed in (1, 1, 2, None, None)]
    assert texts[0] == texts[1]
    assert len(set(texts[1:])) == 4


async def test_the_text_ends_before_a_stop_string(engine: Engine) -> None:
    whole = await engine.generate(ask(QUESTIONS[0]), GREEDY)
    stop = whole.text[20:24]
    cut = await engine.generate(ask(QUESTIONS[0]), SamplingParams(max_tokens=64, stop=("never there", stop)))
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert cut.finish_reason == "stop"
    assert cut.usage.completion_tokens < whole.usage.completion_tokens


async def test_usage_counts_what_was_read_and_written(engine: Engine, smollm_like: PreTrainedTokenizerFast) -> None:
    prompt = RawPrompt((Part("<|im_start|>", markup=True), Part("hello")))
    completion = await engine.generate(prompt, SamplingParams(max_tokens=5))
    assert completion.usage == (1 + len(smollm_like.encode("hello")), 5)
    assert completion.finish_reason == "length"


async def test_an_answer_ends_at_the_checkpoints_end_token(tiny_chat: Path, reference: LlamaForCausalLM) -> None:
    tokenizer = Tokenizer.load(tiny_chat)
    prompt = tokenizer.encode_prompt(ask("a"))
    # The tokens themselves: encoding their text again need not give them back.
    written = reference.generate(torch.tensor([prompt]), max_new_tokens=24, do_sample=False)[0, len(prompt) :].tolist()
    end = written[12]
    tokenizer.ends = frozenset({end})
    with Engine(load_model(tiny_chat, dtype="float32"), tokenizer) as ending:
        completion = await ending.generate(ask("a"), GREEDY)
    before = written[: written.index(end)]
    assert completion.finish_reason == "stop"
    assert completion.text == tokenizer.decode(before)
    assert completion.usage.completion_tokens == len(before) + 1


async def test_scores_are_the_log_probabilities_of_transformers(
    engine: Engine, narrow: Engine, reference: LlamaForCausalLM, tiny_chat: Path
) -> None:
    continuations = ["Yes", "No", "", "Yes, a rail is one file", "Yes, a", "<|im_end|>", "日本"]
    tokenizer = Tokenizer.load(tiny_chat)
    prompt = tokenizer.encode_prompt(ask(QUESTIONS[0]))
    expected = []
    for text in continuations:
        ids = tokenizer.encode(text)
        with torch.inference_mode():
            logits = reference(torch.tensor([prompt + ids])).logits[0].log_softmax(-1)
        expected.append(sum(float(logits[len(prompt) - 1 + n, token]) for n, token in enumerate(ids)))
    assert await engine.score(ask(QUESTIONS[0]), continuations) == pytest.approx(expected, rel=1e-4)
    # In company, and in chunks.
    scores, *_ = await asyncio.gather(
        narrow.score(ask(QUESTIONS[0]), continuations), *(narrow.generate(ask(q), GREEDY) for q in QUESTIONS)
    )
    assert scores == pytest.approx(expected, rel=1e-4)
    assert await engine.score(ask("a"), []) == ()
    assert await engine.score(ask("a"), ["", ""]) == (0.0, 0.0)


CODES = Choices(("S1", "S2", "S10"), opening="unsafe\n", separator=",")


async def test_an_answer_is_held_to_its_choices_at_any_temperature_and_in_company(engine: Engine) -> None:
    asked = [
        (ask(question), SamplingParams(max_tokens=40, temperature=n % 3, seed=n, choices=CODES))
        for n, question in enumerate(QUESTIONS * 3)
    ]
    free = [engine.generate(ask(question), GREEDY) for question in QUESTIONS]
    completions = (await asyncio.gather(*(engine.generate(*one) for one in asked), *free))[: len(asked)]
    assert completions == [await engine.generate(*one) for one in asked]
    for completion in completions:
        opening, _, codes = completion.text.partition("\n")
        named = codes.split(",")
        assert (opening, completion.finish_reason) == ("unsafe", "stop")
        assert named
        assert set(named) <= set(CODES.texts)
        assert len(set(named)) == len(named)
    assert len({completion.text for completion in completions}) > 3


async def test_of_its_choices_the_likeliest_is_written(
    engine: Engine, reference: LlamaForCausalLM, tiny_chat: Path
) -> None:
    tokenizer = Tokenizer.load(tiny_chat)
    ids = {letter: tokenizer.encode(letter)[0] for letter in "ABCDEFGHIJ"}
    for question in QUESTIONS:
        with torch.inference_mode():
            logits = reference(torch.tensor([tokenizer.encode_prompt(ask(question))])).logits[0, -1]
        expected = max(ids, key=lambda letter: float(logits[ids[letter]]))
        completion = await engine.generate(ask(question), SamplingParams(choices=Choices(tuple(ids))))
        assert (completion.text, completion.finish_reason, completion.usage.completion_tokens) == (expected, "stop", 1)


async def test_choices_that_are_cut_have_not_stopped(engine: Engine) -> None:
    completion = await engine.generate(ask("a"), SamplingParams(max_tokens=2, choices=CODES))
    assert completion.finish_reason == "length"
    assert "unsafe\n".startswith(completion.text)


async def test_choices_are_streamed_as_they_are_completed(engine: Engine) -> None:
    params = SamplingParams(choices=CODES, stop=("S10",))
    deltas = [delta async for delta in engine.stream(ask("a"), params)]
    assert deltas[-1].completion == await engine.generate(ask("a"), params)
    assert "".join(delta.text for delta in deltas) == deltas[-1].completion.text


async def test_who_stops_waiting_frees_the_room_for_others(narrow: Engine) -> None:
    long = SamplingParams(max_tokens=1000)
    for _ in range(8):  # of which each could fill the cache
        task = asyncio.create_task(narrow.generate(ask(QUESTIONS[3]), long))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        stream = narrow.stream(ask(QUESTIONS[3]), long)
        await anext(stream)
        await stream.aclose()
    scheduler = narrow._loop._scheduler
    # Whoever is asked next is answered after the others were dropped.
    await narrow.generate(ask("a"), SamplingParams(max_tokens=1))
    assert not scheduler.running
    assert not scheduler.waiting
    assert len(scheduler.blocks.free) * scheduler.blocks.size == scheduler.blocks.capacity


async def test_a_prompt_beyond_the_context_is_refused(engine: Engine, narrow: Engine) -> None:
    with pytest.raises(PromptTooLong, match=r"at least \d+ tokens are needed, and the context holds 256"):
        await engine.generate(ask("word " * 200), GREEDY)
    with pytest.raises(PromptTooLong, match="the context holds 160"):
        await anext(narrow.stream(ask("word " * 100), GREEDY))
    with pytest.raises(PromptTooLong):
        await engine.generate(ask("word " * 10_000_000), GREEDY)
    with pytest.raises(PromptTooLong):
        await engine.score(ask("a"), ["word " * 200])


async def test_an_answer_is_cut_where_the_context_ends(narrow: Engine) -> None:
    completion = await narrow.generate(ask(QUESTIONS[3]), SamplingParams(max_tokens=1000, temperature=2, seed=5))
    assert completion.finish_reason == "length"
    assert sum(completion.usage) == narrow.context == 160


async def test_an_empty_prompt_is_refused(engine: Engine) -> None:
    with pytest.raises(LLMError, match="the prompt is empty"):
        await engine.generate(RawPrompt(()), GREEDY)


def test_threads_with_event_loops_of_their_own_share_an_engine(engine: Engine) -> None:
    alone = [asyncio.run(engine.generate(ask(question), GREEDY)) for question in QUESTIONS]
    found = {}

    def run(n: int) -> None:
        found[n] = asyncio.run(engine.generate(ask(QUESTIONS[n]), GREEDY))

    threads = [threading.Thread(target=run, args=(n,)) for n in range(len(QUESTIONS))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[n] for n in range(len(QUESTIONS))] == alone


class Failing:
    """A model that fails after some passes."""

    def __init__(self, model: Llama, passes: int) -> None:
        self.config = model.config
        self.block_bytes = model.block_bytes
        self.empty_cache = model.empty_cache
        self.model = model
        self.passes = passes

    def forward(self, batch: Batch, cache: Any) -> npt.NDArray[np.float32]:
        self.passes -= 1
        if self.passes < 0:
            raise RuntimeError("out of luck")
        return self.model.forward(batch, cache)


async def test_a_failure_reaches_all_who_wait_and_all_who_come_later(tiny_chat: Path) -> None:
    engine = Engine(Failing(load_model(tiny_chat), passes=5), Tokenizer.load(tiny_chat))  # type: ignore[arg-type]
    stream = engine.stream(ask("a"), GREEDY)
    await anext(stream)
    failures = await asyncio.gather(
        engine.generate(ask("b"), GREEDY), engine.score(ask("c"), ["d"] * 3), anexts(stream), return_exceptions=True
    )
    failures += await asyncio.gather(engine.generate(ask("e"), GREEDY), return_exceptions=True)
    for failure in (failures[0], *failures[2:]):
        assert isinstance(failure, EngineStopped)
        assert str(failure) == "the engine's thread failed: RuntimeError"
        assert str(failure.__cause__) == "out of luck"
    engine.close()


async def anexts(stream: object) -> list[Delta]:
    return [delta async for delta in stream]  # type: ignore[attr-defined]


async def test_closing_reaches_all_who_wait_and_all_who_come_later(tiny_chat: Path) -> None:
    with Engine.open(tiny_chat) as engine:
        waiting = asyncio.create_task(engine.generate(ask("a"), GREEDY))
        await asyncio.sleep(0)
    with pytest.raises(EngineStopped, match="the engine was closed"):
        await waiting
    with pytest.raises(EngineStopped, match="the engine was closed"):
        await engine.score(ask("a"), ["b"])
    engine.close()


def test_an_engine_satisfies_the_protocol(engine: Engine) -> None:
    generator: Generator = engine
    assert generator is engine


def test_a_config_says_what_is_wrong_with_it() -> None:
    with pytest.raises(ValidationError, match="too few for each of max_seqs 8 to move"):
        EngineConfig(max_seqs=8, max_tokens=4)
    with pytest.raises(ValidationError, match="Extra inputs"):
        EngineConfig.model_validate({"max_sequences": 3})


def run_python(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", textwrap.dedent(code), *args], capture_output=True, text=True)


def test_a_process_ends_quietly_in_the_middle_of_an_answer(tiny_chat: Path) -> None:
    done = run_python(
        """
        import asyncio, sys
        from trackbed.llm import Engine, Message, SamplingParams
        engine = Engine.open(sys.argv[1])
        stream = engine.stream([Message("user", "a")], SamplingParams(max_tokens=200))
        asyncio.new_event_loop().run_until_complete(anext(stream))
        print("done")
        """,
        str(tiny_chat),
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
    assert not done.stderr


def test_importing_the_package_loads_no_torch() -> None:
    done = run_python("import sys, trackbed.llm; print('torch' in sys.modules, 'tokenizers' in sys.modules)")
    assert done.stdout == "False False\n", done.stderr


@pytest.fixture(scope="module")
def smollm2(model_cache: Path) -> Iterator[Engine]:
    with Engine.open(locate("smollm2-135m-instruct", model_cache), EXACT) as engine:
        yield engine


@pytest.mark.models
async def test_smollm2_answers_a_simple_question(smollm2: Engine) -> None:
    completion = await smollm2.generate(ask("What is the capital of France?"), GREEDY)
    assert completion.text == "The capital of France is Paris."
    assert completion.finish_reason == "stop"
    yes, no = await smollm2.score(
        ask("What is the capital of France?"), ["The capital is Paris", "The capital is Oslo"]
    )
    assert yes > no


@pytest.mark.models
async def test_smollm2_writes_what_transformers_writes(smollm2: Engine, model_cache: Path) -> None:
    path = locate("smollm2-135m-instruct", model_cache)
    tokenizer, model = Tokenizer.load(path), load_reference(path)
    completion = await smollm2.generate(ask("Explain what a library is."), GREEDY)
    assert completion.usage.completion_tokens == 64
    assert completion.text == greedy_reference(model, tokenizer, ask("Explain what a library is."), 64)
