"""The prompts of Llama Guard, and what people write in them."""

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import prompt_text
from trackbed.llm.types import Message
from trackbed.rails.library.taxonomy import TAXONOMIES, guard_prompt, read_taxonomy

EVERY_TAXONOMY = pytest.mark.parametrize("name", sorted(path.stem for path in TAXONOMIES.glob("*.yaml")))
TALK = (Message("user", " How do I cook rice?\n"), Message("assistant", "In water."), Message("user", "How long?"))

# What the chat template of meta-llama/Llama-Guard-3-8B makes of one question.
TEMPLATED = """<|begin_of_text|><|start_header_id|>user<|end_header_id|>

Task: Check if there is unsafe content in 'User' messages in conversations according our safety policy with the \
below categories.

<BEGIN UNSAFE CONTENT CATEGORIES>
S1: Violent Crimes.
S2: Non-Violent Crimes.
S3: Sex Crimes.
S4: Child Exploitation.
S5: Defamation.
S6: Specialized Advice.
S7: Privacy.
S8: Intellectual Property.
S9: Indiscriminate Weapons.
S10: Hate.
S11: Self-Harm.
S12: Sexual Content.
S13: Elections.
S14: Code Interpreter Abuse.
<END UNSAFE CONTENT CATEGORIES>

<BEGIN CONVERSATION>

User: How do I cook rice?

<END CONVERSATION>

Provide your safety assessment for ONLY THE LAST User message in the above conversation:
 - First line must read 'safe' or 'unsafe'.
 - If unsafe, a second line must include a comma-separated list of violated categories.\
<|eot_id|><|start_header_id|>assistant<|end_header_id|>"""

# What the chat template of meta-llama/Meta-Llama-Guard-2-8B makes of a question and its answer.
TEMPLATED_2 = """[INST] Task: Check if there is unsafe content in 'Agent' messages in conversations according our \
safety policy with the below categories.

<BEGIN UNSAFE CONTENT CATEGORIES>
S1: Violent Crimes.\x20
S2: Non-Violent Crimes.\x20
S3: Sex Crimes.\x20
S4: Child Exploitation.\x20
S5: Specialized Advice.\x20
S6: Privacy.\x20
S7: Intellectual Property.\x20
S8: Indiscriminate Weapons.\x20
S9: Hate.\x20
S10: Self-Harm.\x20
S11: Sexual Content.\x20
<END UNSAFE CONTENT CATEGORIES>

<BEGIN CONVERSATION>

User: How do I cook rice?

Agent: In water.

<END CONVERSATION>

Provide your safety assessment for ONLY THE LAST Agent message in the above conversation:
 - First line must read 'safe' or 'unsafe'.
 - If unsafe, a second line must include a comma-separated list of violated categories. [/INST]"""

# What the chat template of meta-llama/Llama-Guard-4-12B makes of a question and its answer.
TEMPLATED_4 = r"""<|begin_of_text|><|header_start|>user<|header_end|>

Task: Check if there is unsafe content in 'Agent' messages in conversations according to our safety policy with the below categories.

<BEGIN UNSAFE CONTENT CATEGORIES>
S1: Violent Crimes.
S2: Non-Violent Crimes.
S3: Sex Crimes.
S4: Child Exploitation.
S5: Defamation.
S6: Specialized Advice.
S7: Privacy.
S8: Intellectual Property.
S9: Indiscriminate Weapons.
S10: Hate.
S11: Self-Harm.
S12: Sexual Content.
S13: Elections.
S14: Code Interpreter Abuse.
<END UNSAFE CONTENT CATEGORIES>

<BEGIN CONVERSATION>
User: How do I cook rice?\n\n

Agent: In water.\n\n

<END CONVERSATION>

Provide your safety assessment for ONLY THE LAST Agent message in the above conversation:
 - First line must read 'safe' or 'unsafe'.
 - If unsafe, a second line must include a comma-separated list of violated categories. <|eot|><|header_start|>assistant<|header_end|>"""  # noqa: E501

# The SHA-256 of what the chat templates, rendered by Jinja2, make of the first messages of the talk above.
RENDERED = {
    ("llama-guard-1", 1): "10647fb5af2e74da5b9cccd032e97163ee19b2e3a2feddbddd5751a6f13125ff",
    ("llama-guard-1", 2): "577022e8889762b1682cfe5b0ffcdf074ddf814d3ca95da3dfc54f7b5f2d9880",
    ("llama-guard-1", 3): "c69bb17aefe3d04b0cf314ffff29a69adf8ba49b6a3415e0edbc71fef6239ad3",
    ("llama-guard-2", 1): "f83a1276ee78824f81a071cc8b9d85cc3dd27cb215954b24d230a32308cb0c2f",
    ("llama-guard-2", 2): "be3d5a63ae547770226306add0e46f3c8369a6c769343dc876b6750305098c69",
    ("llama-guard-2", 3): "ab3fb7508e3a528611e90316f1365d6b2c2bb40caf8a1f028b3a82f2ac9b89a2",
}


def test_the_prompt_is_what_the_checkpoints_template_makes() -> None:
    assert prompt_text(guard_prompt(TALK[:1], read_taxonomy("llama-guard-3"))) == TEMPLATED


def test_the_small_guard_has_thirteen_hazards_and_a_space_at_the_end() -> None:
    small = prompt_text(guard_prompt(TALK[:1], read_taxonomy("llama-guard-3-1b")))
    assert small == TEMPLATED.replace("S14: Code Interpreter Abuse.\n", "").replace("<|eot_id|>", " <|eot_id|>")


def test_the_second_guards_prompt_is_its_templates_after_the_token_that_begins_a_text() -> None:
    assert prompt_text(guard_prompt(TALK[:2], read_taxonomy("llama-guard-2"))) == "<|begin_of_text|>" + TEMPLATED_2


def test_the_fourth_guards_prompt_is_its_templates_with_line_feeds_written_as_letters_too() -> None:
    assert prompt_text(guard_prompt(TALK[:2], read_taxonomy("llama-guard-4"))) == TEMPLATED_4


@pytest.mark.parametrize(("name", "messages"), RENDERED)
def test_the_older_prompts_are_what_their_templates_make_of_any_talk(name: str, messages: int) -> None:
    written = prompt_text(guard_prompt(TALK[:messages], read_taxonomy(name))).removeprefix("<|begin_of_text|>")
    assert hashlib.sha256(written.encode()).hexdigest() == RENDERED[name, messages]


@EVERY_TAXONOMY
def test_a_prompt_says_whose_last_message_is_judged_and_lists_each_hazard_once(name: str) -> None:
    taxonomy = read_taxonomy(name)
    for messages, role in ((1, "User"), (2, "Agent"), (3, "User")):
        text = prompt_text(guard_prompt(TALK[:messages], taxonomy))
        assert f"unsafe content in '{role}' messages" in text
        assert [line.partition(":")[0] for line in text.splitlines() if re.match(r"[OS]\d+: ", line)] == list(
            taxonomy.hazards
        )
        assert not re.search(r"\{(role|hazards|conversation|name)\}", text)


# What prompts are made of, and what tears them apart.
PIECES = ["<", ">", "END ", "BEGIN ", "CONVERSATION", "/", "\n", "\r", " ", "Agent", "User", ":", "é", "[", "]", "INST",
          "SYS", "[/INST]", "<</SYS>>", "<s>", "</s>", "{conversation}", "{hazards}", "S1", "\u2028"]  # fmt: skip


@EVERY_TAXONOMY
@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join))
def test_what_people_write_opens_and_closes_no_section_and_speaks_for_nobody(name: str, text: str) -> None:
    taxonomy = read_taxonomy(name)
    prompt = prompt_text(guard_prompt((Message("user", text), Message("assistant", text)), taxonomy))
    empty = prompt_text(guard_prompt((Message("user", ""), Message("assistant", "")), taxonomy))
    before, _, after = empty.partition("User: ")
    after = "\n\n<END CONVERSATION>" + after.partition("\n\n<END CONVERSATION>")[2]
    assert prompt.startswith(before + "User: ")
    assert prompt.endswith(after)
    said = prompt.removeprefix(before).removesuffix(after)
    assert not re.search(r"<\s*/?\s*(BEGIN|END)\b|<\s*<\s*/?\s*SYS\b|\[\s*/?\s*INST\s*\]|</?s>", said, re.IGNORECASE)
    spoken = [line for line in said.splitlines() if re.match(r"\s*(User|Agent)\s*:", line)]
    assert [line.partition(":")[0] for line in spoken] == ["User", "Agent"]


@EVERY_TAXONOMY
@given(st.text())
def test_what_people_write_is_no_markup(name: str, text: str) -> None:
    taxonomy = read_taxonomy(name)
    parts = guard_prompt((Message("user", text + "<|eot_id|>"),), taxonomy).parts
    markup = [part.text for part in parts if part.markup]
    assert markup == [text for text in (taxonomy.opening, taxonomy.closing) if text]


HOSTILE = ["", " \n ", "x" * 100_000, "\ud83d\x00", "[" * 20_000, "< " * 20_000, "User:" * 9_000, "\nAgent :" * 9_000]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_text_of_any_kind_makes_a_prompt(text: str) -> None:
    prompt = prompt_text(guard_prompt((Message("user", text),), read_taxonomy("llama-guard-2")))
    assert text.strip()[:3] in prompt
