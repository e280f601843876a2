"""The policy language: what each promise of strictness says when it is broken, and what a policy leaves out."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from trackbed.llm.types import Endpoint, Message
from trackbed.rails.budget import Budget
from trackbed.rails.config import ModelName, RailConfig
from trackbed.rails.errors import PolicyError, UnknownRail
from trackbed.rails.policy import Policy, Streaming, load_policy
from trackbed.rails.types import Models, Stage, Then, Turn, Verdict

Load = Callable[..., Policy]


class Words:
    """A rail that objects to words; the policies of these tests name it by its import path."""

    class Config(RailConfig):
        words: tuple[str, ...] = ()
        threshold: float = 0.5
        model: ModelName | None = None

    stages: ClassVar[frozenset[Stage]] = frozenset({"input", "output", "retrieval"})
    actions: ClassVar[frozenset[Then]] = frozenset({"block", "mask", "drop", "regenerate"})

    def __init__(self, config: Config, models: Models) -> None:
        self.config = config

    async def check(self, turn: Turn) -> Verdict:
        found = [word for word in self.config.words if word in turn.text]
        return Verdict.block(detail=", ".join(found)) if found else Verdict.allow()


class Asked(Words):
    """A rail of the input stage that must be given a model, and can only mask."""

    class Config(RailConfig):
        model: ModelName

    stages: ClassVar[frozenset[Stage]] = frozenset({"input"})
    actions: ClassVar[frozenset[Then]] = frozenset({"mask"})


class NoRail:
    pass


WORDS = f"{__name__}:Words"
ASKED = f"{__name__}:Asked"


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load(text: str, **files: str) -> Policy:
        for name, content in files.items():
            (tmp_path / name.replace("__", ".")).write_text(content)
        file = tmp_path / "acme.yaml"
        file.write_text("policy: 1\n" + text.replace("WORDS", WORDS).replace("ASKED", ASKED))
        return load_policy(file)

    return load


def refused(load: Load, text: str, **files: str) -> list[str]:
    """The lines of the message, without the folder."""
    with pytest.raises(PolicyError) as caught:
        load(text, **files)
    assert caught.value.place is not None
    return [line.replace(f"{Path(caught.value.place.file).parent}/", "") for line in str(caught.value).splitlines()]


def test_an_unknown_key_is_named_with_its_place_and_the_nearest_one(load: Load) -> None:
    (line,) = refused(load, "name: x\ninptu:\n  - rail: length\n")
    assert line == (
        "acme.yaml:3:1: 'inptu' is not a key of a policy; did you mean 'input'? It has: policy, name, extends, models, "
        "defaults, budget, vars, knowledge, generation, input, dialog, retrieval, tools, output, refuse, trace, tests"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # unknown keys, at every depth
        (
            "knowledge: {index: kb, pasages: 3}",
            "acme.yaml:2:24: 'pasages' is not a key of knowledge; did you mean 'passages'? It has: index",
        ),
        (
            "generation: {sampling: {temprature: 1}}",
            "2:25: 'temprature' is not a key of sampling; did you mean 'temperature'?",
        ),
        ("defaults: {time_out: 2s}", "2:12: 'time_out' is not a key of defaults; did you mean 'timeout'?"),
        (
            "tests:\n  - usr: hello\n    expect: {action: allow}",
            "3:5: 'usr' is not a key of a test; did you mean 'user'?",
        ),
        (
            "tests:\n  - user: a\n    expect: {actoin: allow}",
            "4:14: 'actoin' is not a key of expect; did you mean 'action'?",
        ),
        (
            "input:\n  - rail: WORDS\n    treshold: 0.5",
            f"4:5: 'treshold' is not a key of rail '{WORDS}'; did you mean 'threshold'? It has: words, threshold,",
        ),
        ("on: 1", "2:1: 'on' is not a key of a policy"),
        ("yes: 1", "2:1: 'yes' is not a key of a policy"),
        # unknown names
        (
            "input:\n  - rail: lenght",
            "3:11: 'lenght' is not a rail; did you mean 'length'? It has: length, words, regex",
        ),
        ("input:\n  - {rail: nowhere.rails:X}", "3:12: 'nowhere.rails:X' cannot be imported: ModuleNotFoundError"),
        ("input:\n  - {rail: 'os.path:join'}", "3:12: 'os.path:join' is no class"),
        (f"input:\n  - {{rail: '{__name__}:NoRail'}}", f"3:12: '{__name__}:NoRail' is no rail: it has no 'Config'"),
        (
            "models: {chat: smolm2-135m-instruct}",
            "2:16: 'smolm2-135m-instruct' is not a model of the catalogue; did you mean",
        ),
        ("generation: {adapter: ./nowhere}", "2:23: './nowhere' is no folder of an adapter: it needs adapter.json, or"),
        ("models: {chat: grounded-answer}", "2:16: 'grounded-answer' is an adapter, and no model; name it under"),
        (
            "generation: {adapter: grouded-answer}",
            "2:23: 'grouded-answer' is not an adapter of the catalogue; did you mean 'grounded-answer'?",
        ),
        (
            "models: {chat: llama-3.2-1b-instruct}\ngeneration: {adapter: grounded-answer}",
            "adapter 'grounded-answer' is made for smollm2-135m-instruct, and llama-3.2-1b-instruct answers; name",
        ),
        ("generation: {adapter: minilm-guard}", "2:23: 'minilm-guard' is not an adapter of the catalogue"),
        (
            "models: {chat: {openai: 'http://x/v1', model: m}}\ngeneration: {adapter: ./mine}",
            "3:14: an endpoint takes no adapter; serve the adapted model there, or say 'adapter: none'",
        ),
        ("models: {chat: hf:nothing}", "2:16: 'hf:nothing' is not of the form hf:org/repo"),
        ("generation: {model: caht}", "2:21: 'caht' is not one of the models; did you mean 'chat'? It has: chat"),
        ("input:\n  - rail: WORDS\n    model: chta", "4:12: 'chta' is not one of the models; did you mean 'chat'?"),
        ("input: [{rail: ASKED, model: guard, then: mask}]", "'guard' is not one of the models; it has: chat"),
        ("refuse: {tiemout: x}", "2:10: 'tiemout' is not a rail or a reason; did you mean 'timeout'?"),
        ("input: [{rail: WORDS, id: a}]\nrefuse: {b: x}", "3:10: 'b' is not a rail or a reason"),
        ("tests: [{user: a, fail: {input/x: error}, expect: {action: block}}]", "2:26: 'input/x' is not a rail"),
        ("tests: [{user: a, expect: {by: input/x}}]", "2:32: 'input/x' is not a rail; it has: nothing"),
        (
            "tests: [{user: a, model: {caht: x}, expect: {action: allow}}]",
            "2:27: 'caht' is not one of the models; did you mean",
        ),
        (
            "tests: [{user: a, vars: {tier: x}, expect: {action: allow}}]",
            "2:26: 'tier' is not a variable; it has: nothing",
        ),
        # values of another type, out of bounds, or missing
        ("input: [{rail: WORDS, threshold: high}]", "'input[0].threshold' is \"high\"; it should be a valid number"),
        ("input: [{rail: WORDS, threshold: '0.5'}]", "'input[0].threshold' is \"0.5\"; it should be a valid number"),
        ("input: [{rail: WORDS, words: [1]}]", "'input[0].words[0]' is 1, which is no text; put it in quotes"),
        ("input: [{rail: WORDS, words: yes}]", "'input[0].words' is \"yes\"; it takes a list"),
        ("input: [{rail: ASKED, then: mask}]", f"2:9: 'model' is missing from rail '{ASKED}'"),
        ("input: [{id: a}]", "2:9: 'rail' is missing from a rail"),
        ("input: [length]", "2:9: 'input[0]' is \"length\"; it takes keys with values"),
        ("input: length", "2:8: 'input' is \"length\"; it takes a list"),
        (
            "knowledge: {index: kb, passages: 0}",
            "2:34: 'knowledge.passages' is 0; it should be greater than or equal to 1",
        ),
        ("knowledge: {index: kb, passages: 4.5}", "'knowledge.passages' is 4.5; it should be a valid integer"),
        ("knowledge: {passages: 4}", "2:12: 'index' is missing from knowledge"),
        (
            "tools: {allow: [a], calls: [{rail: regex, id: null, patterns: [a]}]}",
            "2:43: 'id' has no value",
        ),
        (
            "knowledge: {index: kb, retriever: fais}",
            "2:35: 'fais' is not a retriever; did you mean 'faiss'? It has: bm25, faiss",
        ),
        ("knowledge: {index: kb, retriever: 'no.such:X'}", "2:35: 'no.such:X' cannot be imported"),
        (
            "generation: {sampling: {temperature: -1}}",
            "2:38: 'generation.sampling.temperature' is -1; it should be greater",
        ),
        ("name: 3", "2:7: 'name' is 3, which is no text; put it in quotes"),
        ("name:", "2:1: 'name' has no value"),
        ("tests: [{user: a, expect: {action: , by: input/x}}]", "'tests[0].expect.action' has no value"),
        ("input: [{rail: length, max_chars: 3, max_words: }]", "'max_words' has no value"),
        ("generation: {ahead: yes}", "2:21: 'generation.ahead' is \"yes\"; it can be true or false"),
        ("generation: {cite: requird}", "2:20: 'generation.cite' is \"requird\"; did you mean 'required'? It can be"),
        ("generation: {cite: {then: drop}}", "2:20: 'mode' is missing from cite"),
        ("generation: {cite: {mode: none, then: drop}}", "2:20: 'then' is for 'mode: required'; with 'none' nothing"),
        ("generation: {cite: {mode: required, then: block}}", "'generation.cite.then' is \"block\"; it can be drop or"),
        ("generation: {cite: {mode: required, say: x}}", "2:37: 'say' is not a key of cite; it has: mode, then, left"),
        ("generation: {cite: true}", "2:20: 'generation.cite' is true; it takes keys with values"),
        ("generation: {sampling: {stop: []}}", "'generation.sampling.stop' is given but empty; leave it out"),
        ("input: [{rail: llama_guard, block: []}]", "'input[0].block' is given but empty; leave it out"),
        (
            "input: [{rail: length, max_chars: 1, mode: observ}]",
            "\"observ\"; did you mean 'observe'? It can be enforce",
        ),
        ("knowledge:\n  index:", "3:3: 'knowledge.index' has no value"),
        ("input:\n  - rail: WORDS\n    when:", "4:5: 'when' has no value"),
        ("defaults: {timeout: 2}", "2:21: 2 is not a duration; write 800ms, 2s or 1m"),
        ("defaults: {timeout: 2 s}", "2:21: '2 s' is not a duration"),
        ("defaults: {timeout: 0s}", "2:21: '0s' is not between 1ms and 10m"),
        ("defaults: {timeout: 99m}", "2:21: '99m' is not between 1ms and 10m"),
        (
            "defaults: {on_error: alow}",
            "2:22: 'defaults.on_error' is \"alow\"; did you mean 'allow'? It can be block or allow",
        ),
        ("input: [{rail: WORDS, mode: watch}]", "'input[0].mode' is \"watch\"; it can be enforce or observe"),
        # a list that runs nothing
        ("input: []", "2:1: 'input' is given but empty; leave it out, or give it something"),
        ("retrieval: []", "2:1: 'retrieval' is given but empty"),
        ("output: {rails: []}", "2:10: 'output.rails' is given but empty"),
        ("output: {}", "2:9: 'rails' is missing from output"),
        ("tests: []", "2:1: 'tests' is given but empty"),
        ("input:", "2:1: 'input' has no value"),
        # what a rail cannot do, or not here
        ("input: [{rail: WORDS, then: quote}]", f"rail '{WORDS}' cannot quote on input; 'then' can be block, mask"),
        ("input: [{rail: WORDS, then: drop}]", f"rail '{WORDS}' cannot drop on input; 'then' can be block, mask"),
        (
            "output: [{rail: WORDS, then: rewrite}]",
            "'output[0].then' is \"rewrite\"; it can be block, mask, drop, regenerate or",
        ),
        ("input: [{rail: ASKED, model: chat}]", f"rail '{ASKED}' cannot block on input; 'then' can be mask"),
        ("output: [{rail: ASKED, model: chat, then: mask}]", f"rail '{ASKED}' does not judge output; it judges input"),
        (
            "input: [{rail: WORDS}, {rail: WORDS}]",
            f"two rails of input have the id '{WORDS}'; give one of them an 'id'",
        ),
        ("input: [{rail: WORDS, id: a}, {rail: WORDS, id: a}]", "two rails of input have the id 'a'"),
        ("input: [{rail: WORDS, id: a/b}]", "'input[0].id' is \"a/b\"; it should match pattern"),
        # tests that say too little, or two things
        (
            "tests: [{user: a, expect: {}}]",
            "2:27: a test expects something; it can say: action, by, reason, text, leaked",
        ),
        (
            "tests: [{user: a, messages: [{user: b}], expect: {action: allow}}]",
            "2:9: a test has either 'user', 'messages', 'turns', 'call' or 'result'",
        ),
        (
            "tests: [{expect: {action: allow}}]",
            "2:9: a test has either 'user', 'messages', 'turns', 'call' or 'result'",
        ),
        ("tests: [{messages: [{assistant: a}], expect: {action: allow}}]", "2:9: the last of 'messages' is the user's"),
        (
            "tests: [{messages: [{user: a, tool: b}], expect: {action: allow}}]",
            "2:21: a message has one role and its text",
        ),
        # variables
        (
            "vars: {tier: {type: text}}",
            "2:21: 'vars.tier.type' is \"text\"; it can be string, number, integer or boolean",
        ),
        ("vars: {tier: {type: string, default: 3}}", "2:38: the default of 'tier': its value is not of type string"),
        ("vars: {tier: {type: integer, pattern: x}}", "2:39: a pattern is for strings, not for type integer"),
        (
            "vars: {tier: {type: string, pattern: '('}}",
            "2:38: pattern '(': missing ): (",
        ),
        (
            "vars: {tier: {type: string, pattern: 'a', default: b}}",
            "the default of 'tier': its value does not match 'a'",
        ),
        ("vars: {_tier: {type: string}}", "'vars._tier'"),
        # templates and conditions
        (
            "vars: {tier: {type: string}}\ninput: [{rail: WORDS, when: vars.teir == 1}]",
            "'teir' is not a part of 'vars'; did you",
        ),
        ("input:\n  - rail: WORDS\n    when: vars.x ==", "4:11: the template cannot be read"),
        (
            "refuse: {default: '{{ verdict.reson }}'}",
            "2:19: 'reson' is not a part of 'verdict'; did you mean 'reason'?",
        ),
        ("refuse:\n  default: |\n    No.\n    {{ oops }}", "5:1: 'oops' is not a name of this template"),
        (
            "generation:\n  prompt: '{{ qestion }}'",
            "3:11: 'qestion' is not a name of this template; did you mean 'question'?",
        ),
    ],
)
def test_a_mistake_is_told_with_its_place_and_what_was_expected(load: Load, text: str, expected: str) -> None:
    (line,) = refused(load, text)
    assert line.startswith("acme.yaml:")
    assert expected in line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tools: {allow: []}", "2:9: 'tools.allow' is given but empty"),
    ],
)
def test_what_is_not_built_is_refused_and_never_ignored(load: Load, text: str, expected: str) -> None:
    (line,) = refused(load, text)
    assert expected in line


def test_an_adapter_can_be_a_folder_beside_the_policy(load: Load, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "adapter_config.json").write_text("{}")
    assert load("generation: {adapter: ./mine}").generation.adapter == str(tmp_path / "mine")
    assert load("generation: {model: chat}").generation.adapter == ""
    assert load("generation: {adapter: none}").generation.adapter == ""


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(load: Load) -> None:
    text = "inptu: [{rail: WORDS}]\nknowledge: {index: kb, passages: 0}\n"
    text += "output:\n  - rail: WORDS\n    treshold: 1\n  - rail: pij\n"
    lines = refused(load, text)
    assert [line.split(": ")[0] for line in lines] == [
        "acme.yaml:2:1",
        "acme.yaml:3:34",
        "acme.yaml:6:5",
        "acme.yaml:7:11",
    ]


def test_the_place_of_the_error_is_the_first_mistake_with_its_path_of_keys(load: Load) -> None:
    with pytest.raises(UnknownRail) as caught:
        load("input:\n  - rail: lenght\n")
    place = caught.value.place
    assert place is not None
    assert (Path(place.file).name, place.line, place.column, place.key) == ("acme.yaml", 3, 11, "input[0].rail")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: x", "1:1: 'policy' is missing from a policy"),
        ("policy: 2", "1:9: 'policy' is 2; it can be 1"),
        ("policy: '1'", "1:9: 'policy' is \"1\"; it can be 1"),
        ("- policy: 1", "1:1: 'a policy' is a list; it takes keys with values"),
        ("policy", "1:1: 'a policy' is \"policy\"; it takes keys with values"),
    ],
)
def test_a_policy_is_a_mapping_with_its_version(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "acme.yaml"
    file.write_text(text)
    with pytest.raises(PolicyError) as caught:
        load_policy(file)
    assert str(caught.value) == f"{file}:{expected}"


@pytest.mark.parametrize(
    "text",
    [
        "".join(f"x{i}: 1\n" for i in range(9000)),
        "input:\n" + "".join(f"- rail: x{i}\n" for i in range(6000)),
        "input:\n" + "".join(f"- {{rail: WORDS, id: x{i}, when: question}}\n" for i in range(2000)),
        "models:\n" + "".join(f"  a{i}: b\n" for i in range(9000)),
        "refuse:\n" + "".join(f"  a{i}: b\n" for i in range(9000)),
        "refuse:\n" + "".join(f"  a{i}: '{{{{'\n" for i in range(9000)),
        "extends: default\ninput:\n" + "".join(f"- {{rail: x{i}}}\n" for i in range(6000)),
        "refuse: {default: '" + "{{ verdict.reason }}" * 1500 + "{{ x }}'}",
        "refuse: {default: '{{ " + "(" * 10_000 + " }}'}",
        "vars: {a: {type: string, pattern: '" + "(a{1000}){1000}'}}",
        "vars: {a: {type: string, pattern: '" + "(" * 900 + "'}}",
    ],
    ids=[
        "keys",
        "unknown rails",
        "rails",
        "models",
        "refusals",
        "templates",
        "inherited",
        "long template",
        "deep template",
        "pattern",
        "deep pattern",
    ],
)
def test_a_hostile_policy_is_refused_within_a_second(load: Load, text: str) -> None:
    load("name: warm")
    started = time.process_time()
    assert len(refused(load, text)) <= 20
    assert time.process_time() - started < 1


def test_what_a_policy_leaves_out_has_a_value(load: Load) -> None:
    policy = load("input: [{rail: WORDS, id: words}]")
    (use,) = policy.rails["input"]
    assert (use.then, use.mode, use.on_error, use.timeout, use.when) == ("block", "enforce", "block", 10.0, None)
    assert (policy.name, dict(policy.models)) == ("acme", {"chat": "smollm2-135m-instruct"})
    assert (policy.knowledge, policy.rails["output"], policy.tests) == (None, (), ())
    blocked = Verdict.block().named("input", "words")
    assert policy.refusal(blocked, Turn("")) == "I can't help with that."


def test_defaults_hold_where_a_rail_says_nothing(load: Load) -> None:
    text = "defaults: {on_error: allow, timeout: 800ms}\n"
    text += "input: [{rail: WORDS}, {rail: WORDS, id: b, timeout: 1m, on_error: block}]"
    first, second = load(text).rails["input"]
    assert (first.on_error, first.timeout) == ("allow", 0.8)
    assert (second.on_error, second.timeout) == ("block", 60.0)


def test_output_has_a_short_form_and_a_long_one(load: Load) -> None:
    short, long = load("output: [{rail: WORDS}]"), load("output: {rails: [{rail: WORDS}]}")
    assert [use.id for use in short.rails["output"]] == [use.id for use in long.rails["output"]] == [WORDS]


def test_a_condition_decides_whether_a_rail_judges(load: Load) -> None:
    policy = load("vars: {tier: {type: string, default: guest}}\ninput: [{rail: WORDS, when: vars.tier != 'staff'}]")
    (use,) = policy.rails["input"]
    assert use.applies(policy.bind(Turn("hello")))
    assert not use.applies(policy.bind(Turn("hello", vars={"tier": "staff"})))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"teir": "a"}, "'teir' is not a variable of policy 'acme'; did you mean 'tier'?"),
        ({"tier": 3}, "variable 'tier': its value is not of type string"),
        ({"tier": "A"}, r"variable 'tier': its value does not match '\[a-z\]\+'"),
        ({"age": True}, "variable 'age': its value is not of type integer"),
    ],
)
def test_a_turn_cannot_carry_variables_that_do_not_fit(load: Load, given: dict[str, object], message: str) -> None:
    policy = load("vars: {tier: {type: string, pattern: '[a-z]+'}, age: {type: integer}}")
    with pytest.raises(ValueError, match=message):
        policy.bind(Turn("", vars=given))


def test_the_words_of_refusal_are_the_rails_then_the_reasons_then_the_default(load: Load) -> None:
    text = "input: [{rail: WORDS, id: words}]\noutput: [{rail: WORDS, id: words}]\n"
    text += "refuse: {default: d, words: 'w {{ verdict.reason }}', output/words: o, timeout: t}"
    policy = load(text)
    words = Verdict.block(detail="a bad word")
    assert policy.refusal(words.named("input", "words"), Turn("")) == "w a bad word"
    assert policy.refusal(words.named("output", "words"), Turn("")) == "o"
    assert policy.refusal(Verdict.block(reason="timeout").named("input", "words"), Turn("")) == "t"
    assert policy.refusal(Verdict.block(reason="error").named("input", "words"), Turn("")) == "d"


def test_a_refusal_whose_variable_is_missing_still_refuses(load: Load) -> None:
    policy = load("vars: {name: {type: string}}\nrefuse: {default: 'Sorry {{ vars.name }}'}")
    assert policy.refusal(Verdict.block(), Turn("", vars={"name": "Ann"})) == "Sorry Ann"
    assert policy.refusal(Verdict.block(), Turn("")) == "I can't help with that."


def test_a_models_path_is_relative_to_the_file_that_names_it(load: Load, tmp_path: Path) -> None:
    policy = load("models: {chat: weights/model.gguf, guard: 'hf:meta-llama/Llama-Guard-3-8B', other: /m/x.gguf}")
    assert policy.models["chat"] == str((tmp_path / "weights/model.gguf").resolve())
    assert (policy.models["guard"], policy.models["other"]) == ("hf:meta-llama/Llama-Guard-3-8B", "/m/x.gguf")


def test_a_mistake_in_an_included_prompt_is_told_in_its_own_file(load: Load) -> None:
    (line,) = refused(load, "generation: {prompt: !include answer.j2}", answer__j2="Hello\n{{ qestion }}")
    assert line.startswith("answer.j2:2:1: 'qestion' is not a name of this template; did you mean 'question'?")


def test_a_prompt_reads_the_question_the_history_and_the_passages(load: Load) -> None:
    prompt = (
        "{% for p in passages %}[{{ p.n }}] {{ p.text }} ({{ p.source }}, {{ p.heading }})\n{% endfor %}{{ question }}"
    )
    policy = load("generation: {prompt: !include answer.j2}", answer__j2=prompt)
    found = [{"n": 1, "text": "A.", "source": "a.md", "heading": "H"}]
    shown = policy.generation.prompt.render(question="Q?", history=[], passages=found, vars={})
    assert shown == "[1] A. (a.md, H)\nQ?"


def test_a_test_is_read_as_a_conversation(load: Load) -> None:
    text = "input: [{rail: WORDS, id: words}]\ntests:\n  - messages: [{user: a}, {assistant: b}, {user: c}]\n"
    text += "    model: {chat: [one, two]}\n    fail: {input/words: timeout}\n    passages: []\n"
    text += "    expect: {reason: timeout}"
    (test,) = load(text).tests
    assert test.messages == (Message("user", "a"), Message("assistant", "b"), Message("user", "c"))
    assert (test.model, test.passages, test.fail) == ({"chat": ("one", "two")}, (), {"input/words": "timeout"})
    assert (test.expect.reason, test.expect.action, test.place.line) == ("timeout", None, 4)


def test_a_folder_is_its_policy_yaml(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text("policy: 1\n")
    assert load_policy(tmp_path).name == tmp_path.name


def test_a_policy_that_is_not_there_is_refused_with_the_names_that_ship(tmp_path: Path) -> None:
    with pytest.raises(
        PolicyError, match=r"there is no policy at defualt; .* or one of: agent, children, default, rag, strict"
    ):
        load_policy("defualt")


BASE = """policy: 1
name: base
models: {guard: llama-guard-3-8b}
refuse: {default: base}
input:
  - {rail: WORDS, id: a}
  - {rail: WORDS, id: b}
tests:
  - {user: x, expect: {action: allow}}
"""


def test_a_policy_has_what_it_extends_and_its_own_over_it(load: Load) -> None:
    text = "extends: base.yaml\nrefuse: {timeout: late}\n"
    text += "input:\n  - {rail: WORDS, id: c}\n  - {rail: WORDS, id: a, threshold: 1}\n"
    policy = load(text, base__yaml=BASE.replace("WORDS", WORDS))
    assert [use.id for use in policy.rails["input"]] == ["a", "b", "c"]
    config = policy.rails["input"][0].config
    assert isinstance(config, Words.Config)
    assert config.threshold == 1
    assert (policy.name, policy.models["guard"], set(policy.refuse)) == (
        "acme",
        "llama-guard-3-8b",
        {"default", "timeout"},
    )
    assert policy.tests == ()


def test_two_rails_of_one_id_are_refused_in_a_policy_that_extends_too(load: Load) -> None:
    text = "extends: base.yaml\ninput: [{rail: WORDS, id: a}, {rail: WORDS, id: a}]"
    assert "two rails of input have the id 'a'" in refused(load, text, base__yaml=BASE.replace("WORDS", WORDS))[0]


def test_a_mistake_in_what_is_extended_is_told_in_its_own_file(load: Load) -> None:
    (line,) = refused(load, "extends: base.yaml", base__yaml="policy: 1\ninptu: []")
    assert line.startswith("base.yaml:2:1: 'inptu'")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("defualt", "there is no policy at"),
        ("../other.yaml", "'../other.yaml' is outside the policy's folder"),
        ("acme.yaml", "'acme.yaml' extends this policy in turn"),
        ("base.yaml", "'acme.yaml' extends this policy in turn"),
    ],
)
def test_a_policy_extends_only_what_it_can(load: Load, name: str, expected: str) -> None:
    assert expected in refused(load, f"extends: {name}", base__yaml="policy: 1\nextends: acme.yaml")[0]


def test_an_empty_list_is_a_mistake_in_a_policy_that_extends_too(load: Load) -> None:
    (line,) = refused(load, "extends: base.yaml\ninput: []", base__yaml=BASE.replace("WORDS", WORDS))
    assert line.startswith("acme.yaml:3:1: 'input' is given but empty")


def test_a_refusal_shows_what_was_found_and_not_the_text(load: Load) -> None:
    policy = load(
        "refuse: {default: '{{ verdict.reason }} {{ verdict.categories | join(\", \") }} {{ verdict.stage }}'}"
    )
    verdict = replace(Verdict.block(detail="Violent Crimes", categories=("S1", "S2")), stage="input", rail="x")
    assert policy.refusal(verdict, Turn("")) == "Violent Crimes S1, S2 input"


def test_a_model_behind_an_endpoint_is_read(load: Load) -> None:
    policy = load("models: {big: {openai: 'http://localhost:8000/v1', model: meta/llama, key_env: NIM_KEY}}\n")
    assert policy.models["big"] == Endpoint("http://localhost:8000/v1", "meta/llama", "NIM_KEY")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("models: {big: {openai: localhost, model: m}}", "2:24: "),
        ("models: {big: {openai: 'http://me:secret@x/v1', model: m}}", "2:24: "),
        ("models: {big: {openai: 'http://x/v1'}}", "'model' is missing from an endpoint"),
        (
            "models: {big: {openai: 'http://x/v1', model: m, key: k}}",
            "'key' is not a key of an endpoint; did you mean 'key_env'?",
        ),
        ("models: {big: {openai: 'http://x/v1', model: m, key_env: 'A B'}}", "2:58: "),
        ("models: {big: {}}", "2:15: "),
        ("models: {big: [a]}", "2:15: "),
    ],
)
def test_an_endpoint_that_is_none_is_refused(load: Load, text: str, expected: str) -> None:
    assert any(expected in line for line in refused(load, text))


@pytest.mark.parametrize(
    ("text", "cite", "redraft"),
    [
        ("", "when_possible", False),
        ("cite: when_possible", "when_possible", False),
        ("cite: none", "none", False),
        ("cite: required", "required", False),
        ("cite: {mode: required}", "required", False),
        ("cite: {mode: required, then: regenerate}", "required", True),
    ],
)
def test_what_is_cited_is_said_in_a_word_or_with_its_other_keys(
    load: Load, text: str, cite: str, redraft: bool
) -> None:
    generation = load(f"generation: {{{text}}}").generation
    assert (generation.cite, generation.redraft) == (cite, redraft)


@pytest.mark.parametrize("cite", ["required", "when_possible"])
def test_who_leaves_out_is_a_judge_that_tests_may_name_where_anything_is_left_out(load: Load, cite: str) -> None:
    text = f"generation: {{cite: {cite}}}\ntests: [{{user: a, expect: {{by: output/cite}}}}]"
    if cite == "required":
        assert load(text).tests[0].expect.by == "output/cite"
    else:
        assert "'output/cite' is not a rail" in refused(load, text)[0]


def test_a_budget_and_a_stream_are_read(load: Load) -> None:
    policy = load(
        "budget: {wall: 20s, model_calls: 6, max_turns: 8, max_wait: 500ms}\n"
        "generation: {ahead: true}\n"
        "output: {stream: {hold_back: 12, max_delay: 1s}, rails: [{rail: length, max_chars: 9}]}\n"
    )
    assert policy.budget == Budget(20.0, 6, 8, 0.5)
    assert policy.stream == Streaming(12, 1.0)
    assert policy.generation.ahead


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("budget: {}", "2:9: a budget that bounds nothing; give at least one of: wall, model_calls, max_turns"),
        ("budget: {wal: 2s}", "2:10: 'wal' is not a key of budget; did you mean 'wall'?"),
        ("budget: {wall: 2}", "2:16: "),
        ("budget: {model_calls: 0}", "2:23: "),
        ("output: {stream: {hold_back: 0}, rails: [{rail: length, max_chars: 9}]}", "2:30: "),
    ],
)
def test_a_budget_that_is_none_is_refused(load: Load, text: str, expected: str) -> None:
    (line,) = refused(load, text)
    assert expected in line
