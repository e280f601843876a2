"""The language of policies as JSON Schema, for editors that complete and check while one writes.

It comes from the classes that the loader reads with and from each rail's own `Config`. It refuses nothing that the
loader reads, and says less than the loader does. Only when a policy is loaded is it found whether a name leads
somewhere (models, rails, ids, intents, actions, variables, hazards, files, import paths), whether two keys agree (ids
given twice, a default of its variable's type), and whether a template, a condition or a pattern is one.
"""

from typing import Any, get_args

from trackbed.rails import RAILS
from trackbed.rails.errors import Place
from trackbed.rails.extends import STAGES
from trackbed.rails.language import IMPORT_PATH, MAX_RAILS, MAX_STEPS, Keys, PolicyKeys, RailKeys
from trackbed.rails.steps import BARE, STEPS
from trackbed.rails.types import Rail, Stage, Then
from trackbed.rails.use import ONLY_IN, rail_class

Schema = dict[str, Any]  # Any: JSON

STEP_LIST: Schema = {"type": "array", "minItems": 1, "maxItems": MAX_STEPS, "items": {"$ref": "#/$defs/step"}}


def policy_schema() -> Schema:
    """The JSON Schema (2020-12) of a policy file. Imports every rail that ships."""
    schema = _clean(PolicyKeys.model_json_schema())
    classes = {name: rail_class(name, Place("RAILS")) for name in RAILS}
    for name, found in classes.items():
        config = _clean(found.Config.model_json_schema(ref_template=f"#/$defs/{name}.{{model}}"))
        schema["$defs"] |= {f"{name}.{part}": words for part, words in config.pop("$defs", {}).items()}
        schema["$defs"] |= {f"{stage}.{name}": _rail(name, found, config, stage) for stage in found.stages}
    for stage in STAGES:
        known = [{"$ref": f"#/$defs/{stage}.{name}"} for name, found in classes.items() if stage in found.stages]
        rails = {"type": "array", "minItems": 1, "maxItems": MAX_RAILS, "items": {"anyOf": [*known, _custom()]}}
        schema["$defs"][f"{stage}.rails"] = rails
        for key in ("calls", "results") if stage == "tools" else ():
            _refer(schema["$defs"]["ToolsKeys"]["properties"], key, {"$ref": f"#/$defs/{stage}.rails"})
        if stage != "tools":
            _refer(schema["properties"], stage, {"$ref": f"#/$defs/{stage}.rails"})
    schema["$defs"]["step"] = {"anyOf": [{"enum": list(BARE)}, *(_step(found) for found in STEPS.values())]}
    _refer(schema["$defs"]["FlowKeys"]["properties"], "do", STEP_LIST)
    output = {"$ref": "#/$defs/output.rails"}
    _refer(schema["$defs"]["OutputKeys"]["properties"], "rails", output)
    _refer(schema["properties"], "output", {"anyOf": [output, {"$ref": "#/$defs/OutputKeys"}]})
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "A policy of trackbed", **schema}


def _step(found: type[Keys]) -> Schema:
    """One kind of step, with the parts of it that are keys of their own written out in place."""
    schema: Schema = _clean(found.model_json_schema())
    parts = schema.pop("$defs", {})
    for key, words in schema["properties"].items():
        if key in ("then", "else"):
            _refer(schema["properties"], key, STEP_LIST)
            continue
        written = parts[words["$ref"].rpartition("/")[2]] if "$ref" in words else words
        schema["properties"][key] = {"anyOf": [written, {"type": "null"}]} if key in BARE else written
    return schema


def _refer(properties: Schema, key: str, words: Schema) -> None:
    """Say of a key what pydantic cannot, and keep what it is there for."""
    properties[key] = {"description": properties[key]["description"], **words}


def _rail(name: str, found: type[Rail], config: Schema, stage: Stage) -> Schema:
    """One kind of rail in one stage: what all rails have, and its own keys."""
    able = [then for then in get_args(Then) if then in found.actions and ONLY_IN.get(then, stage) == stage]
    common = _clean(RailKeys.model_json_schema())["properties"]
    common["rail"] |= {"const": name}
    common["then"] |= {"enum": able}
    required = ["rail", *config.get("required", [])]
    return {
        "type": "object",
        "description": (found.__doc__ or "").strip().partition("\n")[0],
        "properties": common | config.get("properties", {}),
        "required": required if "block" in able else [*required, "then"],
        "additionalProperties": False,
        **{key: config[key] for key in ("anyOf", "oneOf") if key in config},
    }


def _custom() -> Schema:
    """Anyone's class, whose own keys are not known here."""
    common = _clean(RailKeys.model_json_schema())["properties"]
    common["rail"] |= {"pattern": f"^{IMPORT_PATH}$"}
    return {"type": "object", "properties": common, "required": ["rail"]}


def _clean(schema: Any) -> Any:  # Any: JSON
    """A schema without titles made from names, and without the null and the defaults that only stand for no key."""
    if isinstance(schema, list):
        return [_clean(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: value for key, value in schema.items() if key not in ("title", "default")}
    if isinstance(schema.get("default"), str | int | float):
        found["default"] = schema["default"]
    for key, value in found.items():
        of_names = key in ("properties", "patternProperties", "$defs")
        found[key] = {name: _clean(words) for name, words in value.items()} if of_names else _clean(value)
    if {"type": "null"} in (options := found.get("anyOf", [])):
        options.remove({"type": "null"})
        if len(options) == 1:
            del found["anyOf"]
            found |= options[0]
    return found
