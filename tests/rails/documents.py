"""Random documents: some that mostly fit a JSON Schema, and some that are like a given one save for a mistake or two.

It knows the words of JSON Schema that a policy's schema uses, and words that mean something under some keys of a
policy, so that not every document is refused for the same few reasons.
"""

import copy
from random import Random
from typing import Any

WORDS = ["a", "hello", "on", "yes", "no", "null", "é\u0301", "*a", "1e3", "\U0001f600", "x" * 300]
NAMES = ["a", "tier", "order_id", "items", "question", "b", "c"]
# What stands under a key, where a type alone would rarely meet something that exists; and what cannot stand there.
MEANT: dict[str, list[Any]] = {
    "extends": ["default", "strict"],
    "models": [{"guard": "llama-guard-3-1b"}, {"chat": "hf:a/b"}, {"guard": "./weights"}],
    "model": ["chat"],
    "rail": ["tests.rails.test_policy:Words"],
    "prompt": [
        "{{ question }}",
        "{% for p in passages %}{{ p.n }}. {{ p.text }}\n{% endfor %}{{ question }}",
        "{% for m in history if m.role == 'user' %}{{ m.content | truncate(9) }}{% endfor %}",
        "{{ question | join(question) }}",
    ],
    "when": ["question != 'a'", "question", "text == 'a' or not text", "question[0] > 'A'", "text | length > 3"],
    "patterns": [["a+", r"\d{6}"], {"A": r"\pL+"}, ["[^a]*", ""]],
    "pattern": ["a+", r"\d{6}", ""],
    "retriever": ["faiss"],
    "index": ["kb"],
    "action": ["tests.rails.documents:looked_up"],
    "dialog": [
        {
            "intents": {"a": {"examples": ["what is a rail"]}},
            "flows": [{"intent": "a", "do": [{"say": "{{ question }}"}, {"if": "question", "then": ["stop"]}]}],
        }
    ],
    "intent": ["a", "b"],
    "if": ["question", "question == 'a'"],
    "allow": [["a"], ["a", "b"]],
    "confirm": [["a"]],
    "tool": ["a"],
    "require": ["b <= 100", "question == 'a' and c in ['a']"],
    "schemas": [{"a": {"type": "object"}}, {"a": {"type": "object", "properties": {"b": {"type": "number"}}}}],
    "taxonomy": ["llama-guard-3", "llama-guard-3-1b"],
    "ask": [["S1", "S2"], ["S1", "S2", "S3"]],
    "block": [["S1"], ["S1", "S2"]],
    "categories": [{"C1": "Bets"}, {"C1": {"name": "Bets", "description": "Odds and tips."}, "C2": "Rivals"}],
    "thresholds": [{"S1": 1}],
    "max_chars": [1, 2000],
    "refuse": [{"default": "No."}, {"timeout": "{{ verdict.reason }}", "error": "{{ verdict.categories | join }}"}],
    "vars": [{"tier": {"type": "string", "default": "guest"}}, {"tier": {"type": "string", "pattern": "a|b"}}],
}
MISTAKEN: dict[str, list[Any]] = {
    "policy": [2, "1", None],
    "extends": ["defualt", "x" * 300, "a\0", "../default", "acme.yaml", "."],
    "models": [
        {"guard": "llama-guard"},
        {"guard": "~nobody/x"},
        {"guard": "a/\0"},
        {"chat": "hf:a"},
        {"chat": {"openai": "http://localhost"}},
    ],
    "model": ["gaurd"],
    "prompt": ["{{ qestion }}", "{% for p in passages %}", "{{ question.__class__ }}", "{{ vars.nothing }}"],
    "when": ["vars.nothing", "question.__class__", "1 +", "'a' * 9", "question | attr('a')"],
    "require": ["b.__class__", "b <=", "f(b)", "self"],
    "tool": ["nothing"],
    "schemas": [{"a": {}}, {"nothing": {"type": "object"}}, {"a": {"type": "object", "$ref": "http://a"}}],
    "patterns": [["("], ["(a{1000}){1000}"], ["(?=a)"], {"A": "a", "B": "("}, []],
    "pattern": ["(", "(?=a)"],
    "retriever": ["bm25", "os.path:join", "nowhere:X"],
    "rail": ["lenght", "os.path:join", "nowhere:X", "pathlib:Path"],
    "taxonomy": ["llama-guard-9"],
    "block": [["S99"], []],
    "categories": [{"S1": "Bets"}, {"a,b": "Bets"}, {"C1": ["Bets"]}],
    "thresholds": [{"S99": 1}, {"S1": 2}],
    "refuse": [{"default": "{{ verdict.resaon }}"}, {"tiemout": "Late."}],
    "vars": [{"tier": "guest"}, {"tier": {"type": "integer", "default": "a"}}],
}


def looked_up(**given: object) -> str:
    """An action for flows to call."""
    return f"It is {given}."


class Writer:
    """Writes documents that fit a JSON Schema, save for one value in `1 / oddly`."""

    def __init__(self, schema: dict[str, Any], random: Random, oddly: float = 0.0) -> None:
        self.schema = schema
        self.random = random
        self.oddly = oddly

    def document(self) -> Any:
        """A new document each time."""
        return self._value(self.schema, "", 0)

    def _value(self, schema: Any, key: str, depth: int) -> Any:
        if "$ref" in schema:
            return self._value(self.schema["$defs"][schema["$ref"].removeprefix("#/$defs/")], key, depth)
        if self.random.random() < self.oddly and depth:
            return copy.deepcopy(self.random.choice(MISTAKEN.get(key, ANYTHING)))
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self.random.choice(schema["enum"])
        meant = [value for value in MEANT.get(key, []) if _fits(value, schema) and (key != "vars" or depth == 1)]
        if meant and self.random.random() < 0.95:
            return copy.deepcopy(self.random.choice(meant))
        options = schema.get("anyOf") or schema.get("oneOf") or []
        if options and "properties" not in schema:
            return self._value(self.random.choice(options if depth < 9 else options[:1]), key, depth)
        match schema.get("type"):
            case "object":
                return self._mapping(schema, depth)
            case "array":
                least = schema.get("minItems", 0)
                length = self.random.randint(least, max(least, 3 if depth < 3 else 1))
                return [self._value(schema.get("items", {}), "", depth + 1) for _ in range(length)]
            case "integer" | "number" as kind:
                least = schema.get("minimum", schema.get("exclusiveMinimum", -3))
                most = schema.get("maximum", schema.get("exclusiveMaximum", 100))
                found = self.random.uniform(least, most)
                return round(found) if kind == "integer" else round(found, 3)
            case "boolean":
                return self.random.choice([True, False])
            case _ if "(ms|s|m)" in schema.get("pattern", ""):
                return self.random.choice(["900ms", "2s", "1m"])
            case _:
                return self.random.choice(NAMES if "pattern" in schema else WORDS + NAMES)

    def _mapping(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        wanted = 0.4 if depth < 2 else 0.2
        keys = [key for key in properties if key in required or self.random.random() < wanted]
        if options := schema.get("anyOf") or schema.get("oneOf"):
            choices = [key for option in options for key in option["required"]]
            keys = [key for key in keys if key not in choices] + [self.random.choice(choices)]
        if properties and not keys:
            keys = self.random.sample(list(properties), schema.get("minProperties", 0))
        found = {key: self._value(properties[key], key, depth + 1) for key in keys}
        others = next(iter(schema.get("patternProperties", {}).values()), schema.get("additionalProperties"))
        if isinstance(others, dict):
            names = schema.get("propertyNames", {}).get("enum") or [*NAMES, "chat", "guard"]
            least = schema.get("minProperties", 0)
            most = min(schema.get("maxProperties", 2), least + 2)
            for name in self.random.sample(names, self.random.randint(least, most)):
                found[name] = self._value(others, name, depth + 1)
        if self.random.random() < self.oddly:
            found[self.random.choice(NAMES)] = copy.deepcopy(self.random.choice(ANYTHING))
        return found


ANYTHING: list[Any] = [None, True, -1, 0, 10**17, 0.5, [], {}, ["a"], {"a": 1}, [[]], "", "~", "{{ x }}", *WORDS]


def mistaken(document: Any, random: Random) -> Any:
    """The document with one to three mistakes: something left out, said twice, misspelt, or of another kind."""
    document = copy.deepcopy(document)
    for _ in range(random.randint(1, 3)):
        parts = list(_parts(document))
        if not parts:
            return document
        holder, key = random.choice(parts)
        match random.choice(["delete", "duplicate", "retype", "misspell", "move"]):
            case "delete":
                del holder[key]
            case "duplicate" if isinstance(holder, list):
                holder.insert(key, copy.deepcopy(holder[key]))
            case "misspell" if isinstance(holder, dict):
                i = random.randrange(len(key) + 1)
                holder[key[:i] + random.choice("aeio_") + key[i + 1 :]] = holder.pop(key)
            case "misspell" if isinstance(holder[key], str):
                i = random.randrange(len(holder[key]) + 1)
                holder[key] = holder[key][:i] + random.choice("aeio_ {%") + holder[key][i + 1 :]
            case "move":
                other, name = random.choice(parts)
                holder[key] = copy.deepcopy(other[name])
            case _:
                holder[key] = copy.deepcopy(random.choice(ANYTHING))
    return document


def scribbled(text: str, random: Random) -> str:
    """The text with one to three pieces of it left out, said twice, or overwritten."""
    for _ in range(random.randint(1, 3)):
        start = random.randrange(len(text) + 1)
        end = min(len(text), start + random.choice([1, 1, 2, 8, 80]))
        text = (
            text[:start]
            + random.choice(["", text[start:end] * 2, random.choice(list("\t\n:-[]{}&*!|>'\"#%é~ "))])
            + text[end:]
        )
    return text


def _fits(value: object, schema: dict[str, Any]) -> bool:
    """Whether a value has the type that a schema asks for, where it asks for one."""
    kinds = {str: "string", int: "integer", list: "array", dict: "object", type(None): "null"}
    return schema.get("type", "null") in ("null", kinds[type(value)])


def _parts(document: Any) -> Any:
    """Every value of the document but itself, as what holds it and its key or index."""
    keys = list(document) if isinstance(document, dict) else range(len(document)) if isinstance(document, list) else ()
    for key in keys:
        yield document, key
        yield from _parts(document[key])
