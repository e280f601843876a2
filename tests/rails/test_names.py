"""Names of people and places: what is asked for, what is made of what a model finds, and what is missing."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.fakes import ScriptedGenerator
from trackbed.llm.types import Completion, Usage
from trackbed.rails.errors import PolicyError, RailFailed
from trackbed.rails.library.names import missing
from trackbed.rails.library.pii import Pii
from trackbed.rails.pipeline import Pipeline
from trackbed.rails.policy import load_policy
from trackbed.rails.stage import mask
from trackbed.rails.stream import waits_for_the_end
from trackbed.rails.types import Models, Turn

KNOWN = {"Jane Doe": "PERSON", "Jörg": "PERSON", "Paris": "LOCATION", "New York": "LOCATION", "Doe Jane": "PERSON"}
INSTALLED = "pip install" not in missing("en_core_web_sm")


def analyze(text: str, kinds: list[str]) -> Iterable[tuple[str, int, int]]:
    """Knows a few names, overlapping ones too, and one kind that nobody asks for."""
    yield from (
        (kind, text.index(name), text.index(name) + len(name))
        for name, kind in KNOWN.items()
        if name in text and kind in kinds
    )
    if "Acme" in text:
        yield "ORGANIZATION", text.index("Acme"), text.index("Acme") + 4


async def masked(text: str, *entities: str, analyzer: str = f"{__name__}:analyze") -> str:
    config: Any = {"entities": list(entities), "analyzer": analyzer}
    turn = Turn("", text=text)
    verdict = await Pii(Pii.Config(**config), Models()).check(turn)
    return text if verdict.action == "allow" else mask(turn, verdict) or ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Jane Doe lives in Paris.", "<PERSON> lives in <LOCATION>."),
        ("Jane Doe, jane@doe.org, New York", "<PERSON>, <EMAIL_ADDRESS>, <LOCATION>"),
        ("J\u200börg in Paris", "<PERSON> in <LOCATION>"),
        ("Jane Doe Jane", "<PERSON><PERSON>"),
        ("Acme of Paris", "Acme of <LOCATION>"),
        ("write to Paris@example.org", "write to <EMAIL_ADDRESS>"),
        ("nobody, nowhere", "nobody, nowhere"),
        ("", ""),
    ],
)
async def test_what_the_model_takes_for_a_name_is_found_once(text: str, expected: str) -> None:
    assert await masked(text, "COMMON", "PERSON", "LOCATION") == expected


async def test_only_the_kinds_asked_for_are_found() -> None:
    assert await masked("Jane Doe lives in Paris.", "LOCATION") == "Jane Doe lives in <LOCATION>."
    assert await masked("Jane Doe lives in Paris.", "COMMON") == "Jane Doe lives in Paris."


async def test_names_are_hidden_and_put_back(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    rail = f"{{rail: pii, entities: [PERSON], analyzer: '{__name__}:analyze', then: mask, restore: true}}"
    file.write_text(f"policy: 1\nmodels: {{chat: smollm2-135m-instruct}}\ninput: [{rail}]\noutput: [{{rail: pii}}]\n")
    policy = load_policy(file)
    model = ScriptedGenerator("Good day, <PERSON_1>!")
    reply = await Pipeline(policy, Models({"chat": model})).respond(Turn("I am Jane Doe"))
    assert reply.text == "Good day, Jane Doe!"
    assert "Jane" not in str(model.prompts)
    assert waits_for_the_end(policy.rails["input"][0], None) == "it judges only a whole text"
    assert not waits_for_the_end(policy.rails["output"][0], None)


@pytest.mark.skipif(INSTALLED, reason="the extra is installed")
def test_without_the_extra_a_policy_that_asks_for_names_is_refused_with_its_name(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("policy: 1\ninput: [{rail: pii, entities: [COMMON, PERSON]}]\n")
    with pytest.raises(PolicyError, match=r"policy.yaml:2:\d+: .*pip install 'trackbed\[pii\]'"):
        load_policy(file)


def test_a_model_that_is_not_installed_is_named() -> None:
    words = missing("xx_no_such_model")
    assert "spacy download xx_no_such_model" in words or "trackbed[pii]" in words


@pytest.mark.parametrize(
    ("analyzer", "words"),
    [
        ("no.such:thing", "cannot be imported"),
        (f"{__name__}:KNOWN", "is no function"),
        ("no path", "cannot be imported"),
    ],
)
def test_an_analyzer_that_cannot_be_called_is_refused(analyzer: str, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Pii.Config(entities=["PERSON"], analyzer=analyzer)


class Tagging(ScriptedGenerator):
    """Answers every message with the names that `analyze` knows in it, as a tagger does."""

    async def generate(self, prompt: Any, params: Any) -> Completion:
        names = analyze(prompt[-1].content, ["PERSON", "LOCATION"])
        return Completion(
            json.dumps([dict(zip(("kind", "start", "end"), name, strict=True)) for name in names]), "stop", Usage(0, 0)
        )


def pii(model: Any, *entities: str) -> Pii:
    config: Any = {"entities": list(entities), "model": "names"}
    return Pii(Pii.Config(**config), Models({"names": model}))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Jane Doe, jane@doe.org, New York", "<PERSON>, <EMAIL_ADDRESS>, <LOCATION>"),
        ("J\u200börg in Paris", "<PERSON> in <LOCATION>"),
        ("write to Paris@example.org", "write to <EMAIL_ADDRESS>"),
        ("nobody, nowhere", "nobody, nowhere"),
        ("", ""),
    ],
)
async def test_a_model_of_the_policy_finds_names_in_what_other_kinds_have_left(text: str, expected: str) -> None:
    turn = Turn("", text=text)
    verdict = await pii(Tagging(), "COMMON", "PERSON", "LOCATION").check(turn)
    assert (text if verdict.action == "allow" else mask(turn, verdict)) == expected


async def test_a_model_is_not_asked_where_no_names_are_looked_for() -> None:
    model = ScriptedGenerator("no JSON")
    assert (await pii(model, "COMMON").check(Turn("", text="Jane Doe"))).action == "allow"
    assert (await pii(model, "COMMON", "PERSON").check(Turn("", text=" "))).action == "allow"
    assert not model.prompts


@pytest.mark.parametrize(
    "answer",
    [
        *("", "none", "{}", '"Jane"', "[1]", '[{"kind": "PERSON"}]', "[" * 100_000),
        *('[{"kind": "PERSON", "start": 0, "end": 99}]', '[{"kind": "PERSON", "start": 3, "end": 3}]'),
        *('[{"kind": "PERSON", "start": -1, "end": 3}]', '[{"kind": "PERSON", "start": "a", "end": 3}]'),
    ],
)
async def test_an_answer_that_cannot_be_read_is_a_failure(answer: str) -> None:
    with pytest.raises(RailFailed):
        await pii(ScriptedGenerator(answer), "PERSON").check(Turn("", text="Jane Doe"))


async def test_a_rail_that_fails_to_find_names_blocks(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(
        "policy: 1\nmodels: {chat: smollm2-135m-instruct, names: minilm-names}\n"
        "input: [{rail: pii, entities: [PERSON], model: names, then: mask}]\n"
    )
    models = Models({"chat": ScriptedGenerator("Hello!"), "names": ScriptedGenerator("Jane")})
    reply = await Pipeline(load_policy(file), models).respond(Turn("I am Jane"))
    assert reply.verdict.action == "block"


def test_addresses_need_a_model_of_the_policy() -> None:
    with pytest.raises(ValidationError, match="STREET_ADDRESS needs a `model`, such as minilm-names"):
        Pii.Config(entities=["STREET_ADDRESS"])
