"""llama.cpp at the given work: a program of its own, run by the Python that has it.

Each line of JSON on standard input names a case and what it is of; each is answered by a line with the figures, or
with the error. A model is open until the next one is. What is timed is llama.cpp's own calls: tokens go in, and the
logits of the last one come out. It imports nothing of ours, for its environment need not have us.
"""

import ctypes
import json
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from time import perf_counter, process_time
from typing import Any

import llama_cpp
import numpy as np

BATCH = 512  # tokens in one call, as it sets by itself
FLASH_ATTENTION = 1  # llama_flash_attn_type: enabled
SILENT = llama_cpp.llama_log_callback(lambda level, text, data: None)


class Model:
    """An open model and one context."""

    def __init__(self, path: str, threads: int, context: int, sequences: int = 1) -> None:
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
        if not self.model:
            raise ValueError(f"{path} cannot be loaded")
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_seq_max, params.kv_unified = context * sequences, sequences, sequences > 1
        params.n_batch = params.n_ubatch = params.n_outputs_max = BATCH
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = FLASH_ATTENTION
        params.no_perf = True
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        if not self.context:
            raise ValueError(f"{path} has no room for {context} tokens of {sequences} sequences")
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.batch = llama_cpp.llama_batch_init(BATCH, 0, 1)

    def close(self) -> None:
        """Give everything back."""
        llama_cpp.llama_batch_free(self.batch)
        llama_cpp.llama_free(self.context)
        llama_cpp.llama_model_free(self.model)

    def forget(self) -> None:
        """Empty the cache."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)

    def read(self, tokens: Sequence[int], start: int = 0, *, every: bool = False) -> None:
        """Run the tokens of one sequence from a place on; logits are kept of the last one, or of every one."""
        for begin in range(0, len(tokens), BATCH):
            part = tokens[begin : begin + BATCH]
            last = begin + len(part) == len(tokens)
            self.run([(token, start + begin + n, 0) for n, token in enumerate(part)], every=every, last=last)

    def run(self, entries: Sequence[tuple[int, int, int]], *, every: bool = False, last: bool = True) -> None:
        """One call with these tokens, each at its place in its sequence."""
        batch = self.batch
        batch.n_tokens = len(entries)
        for n, (token, place, sequence) in enumerate(entries):
            batch.token[n], batch.pos[n], batch.n_seq_id[n] = token, place, 1
            batch.seq_id[n][0] = sequence
            batch.logits[n] = every or (last and n == len(entries) - 1)
        if failed := llama_cpp.llama_decode(self.context, batch):
            raise ValueError(f"llama_decode returned {failed}")

    def logits(self, n: int = -1) -> Any:  # Any: an array
        """The logits of the token at this place of the last call; it waits until they are there."""
        found = llama_cpp.llama_get_logits_ith(self.context, n)
        return np.ctypeslib.as_array(ctypes.cast(found, ctypes.POINTER(ctypes.c_float)), (self.vocabulary,))

    def next(self, n: int = -1) -> int:
        """The most probable token."""
        return int(self.logits(n).argmax())


held: list[Model] = []


def timed(work: Callable[[], object]) -> list[float]:
    """The seconds that this takes, and those of all threads on the processor."""
    started, spent = perf_counter(), process_time()
    work()
    return [perf_counter() - started, process_time() - spent]


def do_open(path: str, threads: int, context: int, sequences: int = 1) -> list[float]:
    """Load a model, in place of the one before."""
    do_close()
    return timed(lambda: held.append(Model(path, threads, context, sequences)))


def do_close() -> list[float]:
    """Give the model back."""
    while held:
        held.pop().close()
    return []


def do_prefill(tokens: list[int], depth: int = 0) -> list[float]:
    """The prompt, after the first `depth` tokens of it: to the token that comes next."""
    model = held[0]
    model.forget()
    model.read(tokens[:depth])
    if depth:
        model.next()

    def work() -> None:
        model.read(tokens[depth:], depth)
        model.next()

    return timed(work)


def do_decode(tokens: list[int], count: int) -> list[float]:
    """So many tokens after the prompt, one at a time."""
    model = held[0]
    model.forget()
    model.read(tokens)
    found = [model.next()]

    def work() -> None:
        for n in range(count):
            model.run([(found[-1], len(tokens) + n, 0)])
            found.append(model.next())

    return timed(work)


def do_batch(prompts: list[list[int]], count: int) -> list[float]:
    """So many tokens for each of these sequences, a token of each in one call."""
    model = held[0]
    model.forget()
    model.run([(prompt[0], 0, sequence) for sequence, prompt in enumerate(prompts)], every=True)
    found = [model.next(n) for n in range(len(prompts))]

    def work() -> None:
        for place in range(1, count + 1):
            model.run([(token, place, sequence) for sequence, token in enumerate(found)], every=True)
            found[:] = [model.next(n) for n in range(len(prompts))]

    return timed(work)


def do_logits(tokens: list[int], file: str) -> list[float]:
    """The logits after each of the tokens, as float32 [tokens, vocabulary] in a file."""
    model = held[0]
    model.forget()
    with open(file, "wb") as kept:
        for start in range(0, len(tokens), BATCH):
            part = tokens[start : start + BATCH]
            model.read(part, start, every=True)
            for n in range(len(part)):
                kept.write(model.logits(n).tobytes())
    return []


CASES: dict[str, Callable[..., list[float]]] = {
    "open": do_open,
    "close": do_close,
    "prefill": do_prefill,
    "decode": do_decode,
    "batch": do_batch,
    "logits": do_logits,
}


def answer(case: str, **request: Any) -> dict[str, Any]:  # Any: JSON values
    """The figures that were asked for, or what stood against them."""
    if case not in CASES:
        return {"error": "it has none"}
    try:
        return {"values": CASES[case](**request)}
    except Exception as error:  # noqa: BLE001  whatever it is, the other side tells it
        return {"error": f"{type(error).__name__}: {error}"}


def main() -> None:
    """Answer requests until there are no more."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no reply
    llama_cpp.llama_log_set(SILENT, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    print(json.dumps({"llama.cpp (llama-cpp-python)": version("llama-cpp-python")}), file=replies, flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(**json.loads(line))), file=replies, flush=True)


if __name__ == "__main__":
    main()
