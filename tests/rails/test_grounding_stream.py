"""An answer whose sentences a model judges is streamed as it is answered: the same words stand at the end."""

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import ListRetriever, PiecewiseGenerator, ScriptedGenerator
from trackbed.llm.types import Message, Prompt
from trackbed.rails import Models, Pipeline, Turn, load_policy
from trackbed.rails.types import Done, Replace, Text
from trackbed.retrieval.types import Passage

TEXT = "A rail is one check. It judges a text and gives a verdict. Rails run from top to bottom."
PASSAGE = Passage(TEXT, "rails.md", 0, len(TEXT), score=0.9)
SAID = ["A rail is one check. ", "Fruit is good for you. ", "Bananas are yellow. ", "I do not know more. ", "- ", "1. "]
SIGNS = ["\n\n", "\n", "[1] ", "It judges a text", ". ", "Rails eat fruit", ": ", "`x` ", "# Rails\n"]


class Likes(ScriptedGenerator):
    """A judge that takes what speaks of fruit for supported, and thinks about it for a while."""

    async def score(self, prompt: Prompt, continuations: Sequence[str]) -> tuple[float, ...]:
        await asyncio.sleep(0)
        self.prompts.append(prompt)
        last = prompt[-1] if isinstance(prompt, Sequence) else None
        assert isinstance(last, Message)
        return (-0.1, -4.0, -3.0) if "ruit" in last.content else (-3.0, -4.0, -0.1)


def pieces(text: str, cuts: list[int]) -> list[str]:
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[a:b] for a, b in pairwise(places)]


@pytest.mark.parametrize("relevance", [0, 0.5])
@pytest.mark.parametrize("then", ["mask", "quote", "block"])
def test_a_stream_shows_what_the_unstreamed_turn_gives(tmp_path: Path, then: str, relevance: float) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(
        "policy: 1\nmodels: {chat: smollm2-135m-instruct, judge: minilm-guard}\nknowledge: {index: kb}\n"
        f"output: [{{rail: grounding, minimum: 1, relevance: {relevance}, model: judge, then: {then}}}]\n"
    )
    policy, retriever = load_policy(file), ListRetriever(PASSAGE)

    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.sampled_from([*SAID, *SAID, *SIGNS]), max_size=9).map("".join), st.lists(st.integers(0, 200)))
    def run(text: str, cuts: list[int]) -> None:
        async def both() -> None:
            models = Models({"chat": ScriptedGenerator(text), "judge": Likes()})
            reply = await Pipeline(policy, models, retriever).respond(Turn("What is a rail?"))
            judge = Likes()
            models = Models({"chat": PiecewiseGenerator(*pieces(text, cuts)), "judge": judge})
            shown, replaced, told = "", False, None
            async for event in Pipeline(policy, models, retriever).stream(Turn("What is a rail?")):
                if isinstance(event, Text):
                    shown += event.text
                elif isinstance(event, Replace):
                    shown, replaced = event.text, True
                elif isinstance(event, Done):
                    told = event.reply
            assert told is not None
            assert (shown, told.text, told.citations) == (reply.text, reply.text, reply.citations)
            assert told.verdict.action == reply.verdict.action
            assert then == "block" or not replaced
            asked = [prompt[-1].content for prompt in judge.prompts if isinstance(prompt, Sequence)]
            assert len(asked) == len(set(asked))  # each sentence once

        asyncio.run(both())

    run()
