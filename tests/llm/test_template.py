import pytest

from trackbed.llm.errors import LLMError, ModelLoadError
from trackbed.llm.template import ChatTemplate
from trackbed.llm.types import Message

ASKED = [Message("user", "secret words")]


def render(source: str, **special_tokens: str) -> str:
    return ChatTemplate(source, special_tokens).render(ASKED)


def test_a_template_has_what_transformers_gives_it() -> None:
    assert render("{{ bos_token }}{{ eos_token }}{{ messages[0] | tojson }}", bos_token="<s>") == (
        '<s>{"role": "user", "content": "secret words"}'
    )
    assert render("{% if tools is none and documents is none and add_generation_prompt %}yes{% endif %}") == "yes"
    assert len(render("{{ strftime_now('%Y-%m-%d') }}")) == 10
    assert render("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}") == "01"
    assert render("{%- if true %}\n    a\n    {%- endif %}\nb") == "    ab"


def test_a_template_can_refuse_the_messages() -> None:
    with pytest.raises(LLMError, match="does not take these messages: roles must alternate"):
        render("{{ raise_exception('roles must alternate') }}")


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ 'x' * 10**10 }}",
        "{{ 9**9**9 }}",
        "{{ [0] * 1000000000 }}",
        "{% for i in range(100000000) %}{% endfor %}",
        "{% for i in range(99999) %}{{ messages[0].content }}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ 1 / 0 }}",
        "{{ nothing.at.all }}",
    ],
)
def test_a_template_that_goes_too_far_is_an_error_without_the_users_words(source: str) -> None:
    with pytest.raises(LLMError) as caught:
        render(source)
    assert "secret" not in str(caught.value)


def test_a_template_that_cannot_be_read_is_found_at_load() -> None:
    with pytest.raises(ModelLoadError, match="cannot be read: Encountered unknown tag 'frob'"):
        ChatTemplate("{% frob %}", {})
    with pytest.raises(ModelLoadError, match="the limit is 131072"):
        ChatTemplate("x" * 200_000, {})
