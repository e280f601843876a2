"""Names of people and places: what is asked for, what is made of what a model finds, and what is missing."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.fakes import ScriptedGenerator
from trackbed.rails.errors import PolicyError
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
