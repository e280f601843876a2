"""What every rail that ships has to be, whatever it looks for."""

import inspect
import pkgutil
from typing import Any, get_args, get_type_hints

import pytest

from trackbed.rails import RAILS
from trackbed.rails.config import RailConfig
from trackbed.rails.types import Models, Rail, Stage, Then, Turn

EVERY_RAIL = pytest.mark.parametrize("name", RAILS)

# What can be done to one stage's text and to no other's.
ONLY_IN = {"drop": "retrieval", "regenerate": "output", "quote": "output"}
# Keys that every rail has in a policy, which a rail's own must not hide.
SHARED_KEYS = {"rail", "id", "then", "mode", "on_error", "timeout", "when"}


def resolve(name: str) -> Any:  # Any: a class that these tests have yet to show to be a rail's
    return pkgutil.resolve_name(RAILS[name])


@EVERY_RAIL
def test_a_name_leads_to_a_class_of_that_name_in_a_file_of_that_name(name: str) -> None:
    rail = resolve(name)
    assert rail.__module__ == f"trackbed.rails.library.{name}"
    assert rail.__name__ == "".join(part.capitalize() for part in name.split("_"))


@EVERY_RAIL
def test_a_rail_is_made_of_its_config_and_the_models_and_checks_a_turn(name: str) -> None:
    rail = resolve(name)
    assert issubclass(rail.Config, RailConfig)
    assert list(inspect.signature(rail.__init__).parameters) == ["self", "config", "models"]
    assert inspect.iscoroutinefunction(rail.check)
    assert list(inspect.signature(rail.check).parameters) == ["self", "turn"]
    assert get_type_hints(rail.check) == get_type_hints(Rail.check)


@EVERY_RAIL
def test_a_rail_says_where_it_makes_sense_and_what_can_be_done_then(name: str) -> None:
    rail = resolve(name)
    assert rail.stages
    assert rail.stages <= set(get_args(Stage))
    assert "block" in rail.actions
    assert rail.actions <= set(get_args(Then))
    assert {ONLY_IN[action] for action in rail.actions if action in ONLY_IN} <= rail.stages


@EVERY_RAIL
def test_a_config_is_frozen_strict_and_explained_key_by_key(name: str) -> None:
    config = resolve(name).Config
    assert config.model_config["frozen"]
    assert config.model_config["extra"] == "forbid"
    assert config.model_fields
    assert not SHARED_KEYS & config.model_fields.keys()
    schema = config.model_json_schema()
    for key, field in schema["properties"].items():
        assert field.get("description", "").endswith("."), f"{key} has no description, or one that is no sentence"
        assert field.keys() & {"type", "anyOf", "oneOf", "$ref", "enum", "const"}, f"{key} has no type"


@EVERY_RAIL
def test_a_rail_and_its_public_parts_are_documented(name: str) -> None:
    rail = resolve(name)
    undocumented = [part.__qualname__ for part in (rail, rail.Config, rail.check) if not part.__doc__]
    assert not undocumented
    assert rail.Config.__doc__ != RailConfig.__doc__
    assert inspect.getmodule(rail).__doc__  # type: ignore[union-attr]


# Enough of a config for a rail that needs one, and no model.
CONFIGS: dict[str, dict[str, Any]] = {
    "length": {"max_chars": 10},
    "regex": {"patterns": ["forbidden"]},
    "pii": {},
    "secrets": {},
    "urls": {"deny": ["evil.example"]},
    "markup": {},
    "code": {},
    "canary": {"tokens": ["hunter2"]},
}


@pytest.mark.parametrize("stage", get_args(Stage))
@pytest.mark.parametrize("name", CONFIGS)
async def test_a_rail_that_needs_no_model_judges_the_text_alone(name: str, stage: Stage) -> None:
    rail = resolve(name)
    judge = rail(rail.Config(**CONFIGS[name]), Models())
    elsewhere = "forbidden a@b.org https://evil.example <b> {{7*7}} " + "password=" + "hunter2"
    assert (await judge.check(Turn(elsewhere, draft=elsewhere, stage=stage, text="fine"))).action == "allow"
    assert (await judge.check(Turn("fine", draft="fine", stage=stage, text=elsewhere))).action == "block"
