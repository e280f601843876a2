"""The dialog in a policy's language: every mistake has a place and words, and a reviewer's questions are found."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes import WordEmbedder
from trackbed.rails.dialog import Dialog, colliding, unreachable
from trackbed.rails.errors import PolicyError
from trackbed.rails.lint import lint
from trackbed.rails.policy import load_policy

Load = Callable[[str], Dialog]
HEAD = """policy: 1
vars: {order_id: {type: string, pattern: '\\d{6}'}, count: {type: integer}}
dialog:
  intents: {refund: {examples: [I want my money back]}, politics: {examples: [who should I vote for]}}
  flows:
"""


def order(id: str, urgent: bool = False) -> str:
    return "open"


NUMBER = 3


class Shop:
    pass


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load(text: str) -> Dialog:
        file = tmp_path / "acme.yaml"
        file.write_text(text.replace("ACT", __name__))
        dialog = load_policy(file).dialog
        assert dialog
        return dialog

    return load


def mistakes(load: Load, text: str) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        load(text)
    assert caught.value.place
    return [line.replace(f"{Path(caught.value.place.file).parent}/", "") for line in str(caught.value).splitlines()]


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ("{sya: hello}", "8: 'sya' is not a step; did you mean 'say'? It has: say, ask, set, call, if, generate"),
        ("{say: a, ask: {var: order_id, say: b}}", "7: a step does one thing, and this one does 2: say, ask"),
        ("halt", "7: 'dialog.flows[0].do[0]' is no step; it has: say"),
        ("3", "7: 'dialog.flows[0].do[0]' is no step"),
        ("[stop]", "7: 'dialog.flows[0].do[0]' is no step"),
        ("{}", "7: 'dialog.flows[0].do[0]' is no step"),
        ("{say: }", "8: 'dialog.flows[0].do[0].say' has no value"),
        ("{say: 3}", "13: 'dialog.flows[0].do[0].say' is 3, which is no text; put it in quotes"),
        ("{say: [a]}", "13: 'dialog.flows[0].do[0].say' is a list"),
        ("{say: a, loud: true}", "16: 'loud' is not a key of the step 'say'; it has: say"),
        ("{say: '{{ vars.oder_id }}'}", "13: 'oder_id' is not a part of 'vars'; did you mean 'order_id'?"),
        ("{say: '{{ verdict }}'}", "13: 'verdict' is not a name of this template"),
        ("{say: '{{ vars.count'}", "13: the template cannot be read"),
        ("{ask: {var: oder_id, say: a}}", "19: 'oder_id' is not a variable of 'vars'; did you mean 'order_id'?"),
        ("{ask: {var: order_id}}", "13: 'say' is missing from 'ask'"),
        ("{ask: {var: order_id, say: a, agian: b}}", "37: 'agian' is not a key of 'ask'; did you mean 'again'?"),
        ("{ask: {var: order_id, say: a, times: 0}}", "44: 'dialog.flows[0].do[0].ask.times' is 0"),
        ("{ask: {var: order_id, say: a, otherwise: '{{ x }}'}}", "48: 'x' is not a name of this template"),
        ("{set: {coutn: 3}}", "14: 'coutn' is not a variable; did you mean 'count'?"),
        ("{set: {count: many}}", "21: 'count': its value is not of type integer"),
        ("{set: {order_id: '12'}}", "24: 'order_id': its value does not match"),
        ("{set: {count: '{{ vars.coutn + 1 }}'}}", "21: 'coutn' is not a part of 'vars'"),
        ("{set: {count: '{{ vars.count * 2 }}'}}", "21: a template cannot use Jinja's 'mul'"),
        ("{call: {action: 'ACT:order', args: {id: '" + "x" * 1001 + "'}}}", "a value of 1001 characters"),
        ("{set: {}}", "8: 'dialog.flows[0].do[0].set' is given but empty"),
        ("{call: {action: orders}}", "23: 'dialog.flows[0].do[0].call.action' is \"orders\""),
        ("{call: {action: 'nowhere.orders:status'}}", "23: 'nowhere.orders:status' cannot be imported"),
        ("{call: {action: 'ACT:ordre', args: {id: a}}}", "23: 'ACT:ordre' cannot be imported"),
        ("{call: {action: 'ACT:NUMBER'}}", "23: 'ACT:NUMBER' is no function"),
        ("{call: {action: 'ACT:Shop'}}", "23: 'ACT:Shop' is no function"),
        ("{call: {action: 'ACT:order'}}", "23: 'ACT:order' cannot be called with these arguments: missing a required"),
        ("{call: {action: 'ACT:order', args: {id: a, x: 1}}}", "with these arguments: got an unexpected keyword"),
        ("{call: {action: 'ACT:order', args: {id: '{{ vars.x }}'}}}", "'x' is not a part of 'vars'"),
        ("{call: {action: 'ACT:order', args: {id: a}, timeout: 2}}", "2 is not a duration"),
        ("{call: {action: 'ACT:order', args: {id: a}, save: 'a b'}}", "call.save' is \"a b\""),
        ("{if: vars.cuont == 1, then: [stop]}", "12: 'cuont' is not a part of 'vars'; did you mean 'count'?"),
        ("{if: vars.count ==, then: [stop]}", "12: the template cannot be read"),
        ("{if: vars.count == 1}", "7: 'then' is missing from the step 'if'"),
        ("{if: vars.count == 1, then: []}", "29: 'dialog.flows[0].do[0].then' is given but empty"),
        ("{if: vars.count == 1, then: [{sya: a}]}", "37: 'sya' is not a step"),
        ("{if: vars.count == 1, then: [stop], esle: [stop]}",
         "'esle' is not a key of the step 'if'; did you mean 'else'?"),
        ("{generate: {prmopt: a}}", "19: 'prmopt' is not a key of 'generate'; did you mean 'prompt'?"),
        ("{generate: {prompt: '{{ passage }}'}}", "27: 'passage' is not a name of this template"),
        ("{refuse: '{{ vars.x }}'}", "16: 'x' is not a part of 'vars'"),
        ("{goto: refnud}", "14: 'refnud' is not a label of this flow, nor a flow; did you mean 'refund'?"),
        ("{label: refund}", "15: 'refund' is a flow's name; give the label another"),
        ("{stop: false}", "14: 'stop' is true, or the whole step is the word stop"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_step_is_told_at_its_place(load: Load, step: str, expected: str) -> None:
    (line,) = mistakes(load, f"{HEAD}  - intent: refund\n    do:\n    - {step}\n")
    assert line.startswith("acme.yaml:8:")
    assert expected.replace("ACT", __name__) in line.removeprefix("acme.yaml:8:")


@pytest.mark.parametrize(
    ("dialog", "expected"),
    [
        ("{flows: [{intent: refund, do: [stop]}]}", "2:27: 'refund' is not an intent; it has: nothing"),
        ("{intents: {refund: {examples: [a]}}, flows: [{intent: refnud, do: [stop]}]}",
         "2:63: 'refnud' is not an intent; did you mean 'refund'?"),
        ("{intents: {a: {examples: [b]}}, flows: [{id: a, do: [stop]}]}", "2:54: 'a' is an intent"),
        ("{flows: [{id: a, do: [stop]}, {id: a, do: [stop]}]}", "2:44: two flows are called 'a'"),
        ("{flows: [{do: [stop]}]}", "2:18: a flow has either 'intent' or 'id'"),
        ("{flows: [{id: a, do: []}]}", "2:26: 'dialog.flows[0].do' is given but empty"),
        ("{flows: [{id: a, od: [stop]}]}", "'do' is missing from a flow"),
        ("{flows: []}", "2:10: 'dialog.flows' is given but empty"),
        ("{flow: [{id: a, do: [stop]}]}", "'flow' is not a key of dialog; did you mean 'flows'?"),
        ("{intents: {a: {examples: []}}, flows: [{intent: a, do: [stop]}]}",
         "'dialog.intents.a.examples' is given but empty"),
        ("{intents: {a: {exmaples: [b]}}, flows: [{intent: a, do: [stop]}]}", "'exmaples' is not a key of an intent"),
        ("{intents: {none: {examples: [b]}}, flows: [{intent: none, do: [stop]}]}", "call it something else"),
        ("{classify: {threshold: 2}, flows: [{id: a, do: [stop]}]}", "'dialog.classify.threshold' is 2"),
        ("{classify: {model: big}, flows: [{id: a, do: [stop]}]}", "'big' is not one of the models; it has: chat"),
        ("{flows: [{id: a, do: [{label: b}, {label: b}]}]}", "two labels of this flow are called 'b'"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_dialog_is_told_at_its_place(load: Load, dialog: str, expected: str) -> None:
    assert expected in " ".join(mistakes(load, f"policy: 1\ndialog: {dialog}\n"))


def test_all_mistakes_of_a_dialog_are_told_at_once(load: Load) -> None:
    steps = "    - {sya: a}\n    - {goto: nowhere}\n    - {set: {x: 1}}\n"
    found = mistakes(load, f"{HEAD}  - intent: refund\n    do:\n{steps}  - {{intent: refnud, do: [stop]}}\n")
    assert [line.split(":")[1] for line in found] == ["8", "9", "10", "11"]


def test_a_saved_name_is_a_variable_everywhere(load: Load) -> None:
    load(f"{HEAD}  - intent: refund\n    do:\n    - {{call: {{action: 'ACT:order', args: {{id: a}}, save: status}}}}\n"
         "    - {if: vars.status == 'open', then: [{say: '{{ vars.status }}'}]}\n"
         "generation: {prompt: 'They say {{ vars.status }}: {{ question }}'}\n"
         "input: [{rail: length, max_chars: 9, when: vars.status == 'open'}]\n")  # fmt: skip


def test_steps_come_from_other_files_too(load: Load, tmp_path: Path) -> None:
    (tmp_path / "steps.yaml").write_text("- {say: a}\n- {sya: b}\n")
    (line,) = mistakes(load, f"{HEAD}  - intent: refund\n    do: !include steps.yaml\n")
    assert line.startswith("steps.yaml:2:4: 'sya' is not a step")


def told(load: Load, flows: str) -> list[str]:
    return [f"{place.line}: {message}" for message, place in unreachable(load(HEAD + flows))]


def test_a_dialog_whose_every_step_can_run_has_no_remarks(load: Load) -> None:
    flows = """  - intent: refund
    do:
    - {label: again}
    - {if: vars.count == 1, then: [{goto: sorry}, {label: here}, {say: b}, stop], else: [{goto: here}]}
    - {goto: again}
  - {id: sorry, do: [{goto: sadly}]}
  - {id: sadly, do: [{refuse: a}]}
"""
    assert told(load, flows) == ["10: step 'refund.do[2]' is never reached; leave it out"]
    assert told(load, flows.replace(", stop]", "]")) == []


def test_a_flow_that_nothing_begins_is_found(load: Load) -> None:
    flows = "  - {id: a, do: [{goto: b}]}\n  - {id: b, do: [{goto: a}]}\n  - {intent: refund, do: [stop]}\n"
    assert told(load, flows) == [
        "6: flow 'a' is never begun: it has no intent, and no 'goto' comes to it; leave it out",
        "7: flow 'b' is never begun: it has no intent, and no 'goto' comes to it; leave it out",
    ]


@pytest.mark.parametrize("end", ["stop", "generate", "{refuse: a}", "{goto: refund}"])
def test_the_first_of_the_steps_behind_an_end_is_found(load: Load, end: str) -> None:
    flows = f"  - intent: refund\n    do:\n    - {end}\n    - {{say: a}}\n    - {{say: b}}\n"
    assert told(load, flows) == ["9: step 'refund.do[1]' is never reached; leave it out"]


def test_examples_that_stand_under_two_intents_are_found(load: Load) -> None:
    dialog = load("""policy: 1
dialog:
  intents:
    a: {examples: [one two three, Where is my order?]}
    b:
      examples:
        - where is  my order
        - three one two
        - something else
        - something else
  flows: [{intent: a, do: [stop]}]
""")
    words = [f"{place.line}: {message}" for message, place in colliding(dialog)]
    assert words == ["7: example 'where is  my order' of intent 'b' is also an example of 'a'; leave one out"]
    near = [f"{place.line}: {message}" for message, place in colliding(dialog, WordEmbedder())]
    assert near == [
        *words,
        "8: example 'three one two' of intent 'b' means the same as 'one two three', an example of 'a'; leave one out",
    ]


WHOLE: dict[str, Any] = {
    "intents": {"refund": {"examples": ["I want my money back"]}, "hours": {"examples": ["opening hours"]}},
    "classify": {"threshold": 0.5, "model": "none"},
    "flows": [
        {
            "intent": "refund",
            "do": [
                {"label": "again"},
                {"ask": {"var": "order_id", "say": "Which?", "again": "Well?", "times": 2, "otherwise": "Bye."}},
                {"set": {"count": "{{ vars.count + 1 }}"}},
                {"call": {"action": f"{__name__}:order", "args": {"id": "{{ vars.order_id }}"}, "save": "status"}},
                {"if": "vars.status == 'open'", "then": [{"say": "Done."}, "stop"], "else": [{"goto": "again"}]},
                {"goto": "other"},
            ],
        },
        {
            "id": "other",
            "do": [{"if": "vars.count > 2", "then": [{"generate": {"prompt": "{{ question }}"}}]}, "generate"],
        },
    ],
}
ODD: list[Any] = [
    None, 0, -1, 1.5, True, "", "stop", "refund", "{{", "{{ vars.x }}", "{{ question }}", [], {}, ["stop"],
    {"say": "a"},
    {"if": "true", "then": ["stop"]}, {"ask": {"var": "order_id", "say": "x"}}, "a:b", "json:dumps", "os:path",
    [[[[]]]],
    10**30, "2s", {"stop": None, "say": "a"},
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(deeper for key, part in parts for deeper in places(part, (*path, key)))]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_dialog_changed_anywhere_loads_or_says_where_it_is_wrong(tmp_path: Path, data: st.DataObject) -> None:
    dialog = {"dialog": copy.deepcopy(WHOLE)}
    for _ in range(data.draw(st.integers(1, 3))):
        *way, last = data.draw(st.sampled_from([path for path in places(dialog) if path]))
        node: Any = dialog
        for key in way:
            node = node[key]
        node[last] = copy.deepcopy(data.draw(st.sampled_from(ODD)))
    file = tmp_path / "acme.yaml"
    variables = {"order_id": {"type": "string"}, "count": {"type": "integer", "default": 0}}
    file.write_text(json.dumps({"policy": 1, "vars": variables, **dialog}))
    mistake: PolicyError | None = None
    try:
        lint(load_policy(file))
    except PolicyError as error:
        mistake = error
    assert mistake is None or (mistake.place and mistake.place.line == 1)
