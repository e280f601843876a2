"""Policies that mean harm: each is refused within a second and says where, or runs and stays small."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes import ScriptedGenerator
from trackbed.llm.types import Message
from trackbed.rails.errors import Place, PolicyError
from trackbed.rails.pipeline import Pipeline
from trackbed.rails.policy import Policy, load_policy
from trackbed.rails.template import MAX_RENDERED, Shape, compile_template
from trackbed.rails.types import Models, Turn

Load = Callable[[str | bytes], Policy]
CODE = "{{ [" + "[]," * 9000 + "] }}"
PLACE = Place("acme.yaml", 1, 1)
NAMES = {"question": Shape(), "history": Shape(items=frozenset({"role", "content"}))}


@pytest.fixture
def load(tmp_path: Path) -> Load:
    load_policy("strict")  # what is imported with the first policy is no part of another one's second

    def load(text: str | bytes) -> Policy:
        file = tmp_path / "acme.yaml"
        file.write_bytes(b"policy: 1\n" + (text.encode() if isinstance(text, str) else text))
        return load_policy(file)

    return load


def refused(load: Load, text: str | bytes) -> str:
    started = time.process_time()
    with pytest.raises(PolicyError) as caught:
        load(text)
    assert time.process_time() - started < 1
    for mistake in (caught.value, *caught.value.others):
        assert mistake.place is not None
        assert mistake.place.line >= 1
    return str(caught.value)


def rails(keys: str) -> str:
    """Stages full of rails, told apart by their ids."""
    return "".join(
        f"{stage}:\n"
        + "".join(f"- {{rail: regex, id: r{i}, {keys.replace('#', f'{stage}{i}')}}}\n" for i in range(100))
        for stage in ("input", "output", "retrieval")
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # what YAML can do
        ("vars: [" + "a," * 21_000 + "]", "more than 20000 values"),
        ("name: " + "x" * 200_000, "it should have at most 100 characters"),
        ("refuse: {default: " + "x" * 300_000 + "}", "a policy is at most 256 KiB"),
        ("x" * 900 + ": 1", "a key of 900 characters"),
        ("vars: " + "{a: " * 40 + "1" + "}" * 40, "nested deeper than 32"),
        ("models: &a {chat: hf:a/b}\nrefuse: {<<: *a}", "'refuse.<<' is a mapping"),
        ("input:\n- &a {rail: length, max_chars: 3}\n- <<: *a\n  id: b", "'rail' is missing from a rail"),
        ("input:\n- &a {rail: length, max_chars: 3}\n- {<<: *a, rail: length}", "'<<' is not a key of rail 'length'"),
        ("name: a\nname: b", "'name' is given twice"),
        ("name: !!python/name:os.system x", "is not a tag of a policy"),
        ("name: !include acme.yaml", "'acme.yaml' includes itself"),
        (b"name: \xff\xfe", "the file is not UTF-8 text"),
        (b"name: a\x00b", "a character that YAML does not allow"),
        ('name: "a\\ud800"', "not YAML"),
        # a line that a reviewer would not see
        ("name: a # \u2028input: []", "U+2028 ends a line for YAML and not in an editor"),
        (b"name: a # \rinput: []", "U+000D ends a line for YAML and not in an editor"),
        ("name: a # \x85input: []", "U+0085 ends a line for YAML and not in an editor"),
        # paths
        ("extends: ../../etc/passwd", "is outside the policy's folder"),
        ("extends: /etc", "is outside the policy's folder"),
        ("extends: acme.yaml", "extends this policy in turn"),
        ("extends: pipe", "there is no policy at"),
        ("extends: circle/a", "cannot be the name of a file"),
        (f"extends: {'x' * 300}", "cannot be the name of a file"),
        ('extends: "a\\0b"', "cannot be the name of a file"),
        ("name: !include pipe", "there is no file"),
        ("name: !include pipe.yaml", "there is no file"),
        ("name: !include device", "is outside the policy's folder"),
        ("name: !include circle", "cannot be the name of a file"),
        (f"name: !include {'x' * 300}", "cannot be the name of a file"),
        ("name: !include huge.yaml", "a policy is at most 256 KiB"),
        ("name: !include .", "there is no file"),
        ('name: !include "a\\0b"', "cannot be the name of a file"),
        ('models: {chat: "a/\\0"}', "cannot be the path of a file or folder"),
        ("models: {chat: ~no-such-user/x}", "cannot be the path of a file or folder"),
        # templates and conditions
        ("refuse: {default: '{{ \"\".__class__.__mro__ }}'}", "'__mro__' is private"),
        ("refuse: {default: '{{ verdict | attr(\"stage\") }}'}", "'attr' is not a filter"),
        ("refuse: {default: '{{ verdict[\"__class__\"] }}'}", "'__class__' is not a part of 'verdict'"),
        ("refuse: {default: '{{ \"{0.__class__}\".format(verdict) }}'}", "cannot use Jinja's 'call'"),
        ("refuse: {default: '{{ \"%s\" | format(verdict) }}'}", "'format' is not a filter"),
        ("refuse: {default: '{{ 9 ** 9 ** 9 }}'}", "cannot use Jinja's 'pow'"),
        ("refuse: {default: '{% for a in \"ab\" recursive %}{{ loop(a) }}{% endfor %}'}", "cannot use Jinja's 'call'"),
        ("input: [{rail: length, max_chars: 1, when: 'text * 9999999'}]", "cannot use Jinja's 'mul'"),
        ("input: [{rail: length, max_chars: 1, when: 'text.__class__'}]", "'__class__' is"),
        ("input: [{rail: length, max_chars: 1, when: '[].append(1)'}]", "cannot use Jinja's 'call'"),
        ("input: [{rail: length, max_chars: 1, when: 'text | attr(\"x\")'}]", "'attr' is not a filter"),
        ("input: [{rail: length, max_chars: 1, when: '" + "(" * 9000 + "'}]", "it nests too deep"),
        (f"refuse:\n  default: &a '{CODE}'\n  error: *a\n  timeout: *a", "templates and conditions of more than"),
        (
            "vars: {a: &a '" + "1 + " * 900 + "1'}\n" + rails("patterns: [a], when: *a"),
            "templates and conditions of more",
        ),
        # patterns
        ("input: [{rail: regex, patterns: ['(a{1000}){1000}']}]", "invalid repetition size"),
        ("input: [{rail: regex, patterns: ['((a{30}){30}){30}']}]", "invalid repetition size"),
        (r"input: [{rail: regex, patterns: ['(\pL\pN){300}']}]", "pattern too large"),
        (r"vars: {a: {type: string, pattern: '(\pL\pN){300}'}}", "pattern too large"),
        ("input: [{rail: regex, patterns: ['(a+)+$', '(?<=a)b']}]", "invalid perl operator"),
        (rails(r"patterns: ['\pL{20}#']"), "too large together"),
        (
            "vars:\n" + "".join(rf"  a{i}: {{type: string, pattern: '\pL{{20}}{i}'}}" + "\n" for i in range(900)),
            "together",
        ),
    ],
)
def test_what_means_harm_is_refused_at_once(load: Load, tmp_path: Path, text: str | bytes, expected: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    with (tmp_path / "huge.yaml").open("wb") as huge:
        huge.truncate(1 << 40)
    assert expected in refused(load, text)


def test_all_that_a_policy_extends_is_bounded_together(load: Load, tmp_path: Path) -> None:
    for i in range(4):
        (tmp_path / f"p{i}.yaml").write_text(f"policy: 1\nextends: p{i + 1}.yaml\nname: '{'x' * 80_000}'\n")
    assert "a policy is at most 256 KiB" in refused(load, "extends: p0.yaml")


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    (tmp_path / "acme.yaml").write_bytes(b"\xef\xbb\xbfpolicy: 1\nname: x\n")
    assert load_policy(tmp_path / "acme.yaml").name == "x"


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "/dev/zero", "", "."])
def test_a_name_that_leads_to_no_policy_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PolicyError, match="there is no policy at"):
        load_policy(name)


def test_a_mistake_quotes_no_more_than_anybody_reads(load: Load) -> None:
    assert len(refused(load, f"extends: ../{'x/' * 50_000}")) < 5000


@pytest.mark.parametrize(
    "source",
    [
        "{% for m in history %}" + "{{ m.content }}" * 20 + "{% endfor %}",
        "{{ question }}" * 2000,
    ],
    ids=["a loop", "many places"],
)
def test_a_template_makes_no_more_than_a_model_could_read(source: str) -> None:
    """Over that, it fails, and a turn whose prompt fails is refused."""
    template = compile_template(source, PLACE, NAMES)
    history = [{"role": "user", "content": "x" * 1000}] * 1000
    with pytest.raises(Exception, match=f"more than {MAX_RENDERED} characters"):
        template.render(question="x" * 1000, history=history)


@pytest.mark.parametrize("sign", ["~", "+"])
def test_what_one_expression_puts_together_is_bounded(sign: str) -> None:
    source = "{{ (" + ") ~ (".join([f" {sign} ".join(["question"] * 30)] * 10) + ") }}"
    with pytest.raises(PolicyError, match="more than 100 parts together"):
        compile_template(source, PLACE, NAMES)


def test_what_runs_for_each_message_is_bounded() -> None:
    source = "{% for m in history %}" + "{% if m.content | upper == 'A' %}{% endif %}" * 99 + "{% endfor %}"
    with pytest.raises(PolicyError, match="loops have more than 400 parts"):
        compile_template(source, PLACE, NAMES)


async def test_a_long_history_keeps_a_turn_small(load: Load) -> None:
    prompt = "{% for m in history %}" + "{{ m.content | upper }}" * 50 + "{% endfor %}{{ question }}"
    policy = load(f"generation: {{history: 1000, prompt: '{prompt}'}}")
    history = tuple(Message("user", "x" * 2000) for _ in range(2000))
    reply = await Pipeline(policy, Models({"chat": ScriptedGenerator("a")})).respond(Turn("hello", history))
    assert (reply.verdict.action, reply.verdict.reason, reply.text) == ("block", "error", "I can't help with that.")


async def test_a_prompt_whose_variable_is_missing_refuses_the_turn(load: Load) -> None:
    policy = load("vars: {tier: {type: string}}\ngeneration: {prompt: '{{ vars.tier }}'}\nrefuse: {error: Not now.}")
    model = ScriptedGenerator("a")
    reply = await Pipeline(policy, Models({"chat": model})).respond(Turn("hello"))
    assert (reply.verdict.reason, reply.text, model.prompts) == ("error", "Not now.", [])
