"""Tools between a policy's rails, in LangChain and in LlamaIndex."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain_core.tools import tool as langchain_tool
from llama_index.core.tools import FunctionTool

from trackbed.apps.adapters.langchain import Rails
from trackbed.apps.adapters.llamaindex import guarded_tool
from trackbed.apps.settings import Settings
from trackbed.rails.pipeline import Pipeline
from trackbed.rails.policy import load_policy
from trackbed.rails.types import Models, ToolCall

POLICY = """
policy: 1
tools:
  allow: [refund]
  confirm: [refund]
  calls:
    - {rail: rule, tool: refund, require: amount <= 100}
    - {rail: pii, then: mask}
  results:
    - {rail: regex, patterns: [hidden]}
    - {rail: pii, id: personal, then: mask}
refuse: {default: "No.", confirm: "Sure?"}
"""

Confirm = Callable[[ToolCall], bool] | None
Use = Callable[..., Any]
made: list[tuple[int, str]] = []


def refund(amount: int, note: str = "") -> str:
    """Give money back."""
    made.append((amount, note))
    return f"{amount} to ann@example.org, {'hidden' if note == 'h' else 'done'}"


@pytest.fixture(params=["langchain", "llamaindex"])
def use(request: pytest.FixtureRequest, tmp_path: Path) -> Use:
    """The tool in a framework, as a function of the user's answer and of the arguments."""
    made.clear()
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY)
    if request.param == "langchain":
        rails = Rails.from_policy(file, Settings(cache=tmp_path, data=tmp_path))
        return lambda confirm, **given: rails.tool(langchain_tool(refund), confirm).invoke(given)
    pipeline = Pipeline(load_policy(file), Models())
    ours = FunctionTool.from_defaults(refund)
    return lambda confirm, **given: guarded_tool(pipeline, ours, confirm).call(**given).content


def test_a_call_is_made_as_the_rails_left_it_and_its_result_is_read_so(use: Use) -> None:
    asked: list[ToolCall] = []
    said = use(lambda call: asked.append(call) or True, amount=7, note="for bob@example.org")
    assert said == "7 to <EMAIL_ADDRESS>, done"
    assert made == [(7, "for <EMAIL_ADDRESS>")]
    assert [call.plain() for call in asked] == [{"amount": 7, "note": "for <EMAIL_ADDRESS>"}]


@pytest.mark.parametrize(
    ("confirm", "given", "said"),
    [
        (None, {"amount": 7}, "Sure?"),
        (lambda call: False, {"amount": 7}, "Sure?"),
        (lambda call: "no", {"amount": 7}, "Sure?"),
        (lambda call: True, {"amount": 700}, "No."),
        (lambda call: True, {"amount": "7"}, "No."),
    ],
)
def test_a_call_that_is_refused_is_not_made(use: Use, confirm: Confirm, given: dict[str, Any], said: str) -> None:
    assert (use(confirm, **given), made) == (said, [])


def test_a_result_that_is_blocked_is_not_read(use: Use) -> None:
    assert use(lambda call: True, amount=7, note="h") == "No."


async def test_a_guarded_tool_can_be_awaited(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY)
    rails = Rails.from_policy(file, Settings(cache=tmp_path, data=tmp_path))
    guarded = rails.tool(langchain_tool(refund), lambda call: True)
    call = {"name": "refund", "args": {"amount": 7}, "id": "1", "type": "tool_call"}
    assert (await guarded.ainvoke(call)).content == "7 to <EMAIL_ADDRESS>, done"
    assert set(guarded.args) == {"amount", "note"}
    ours = guarded_tool(rails.pipeline, FunctionTool.from_defaults(refund), lambda call: True)
    assert (await ours.acall(amount=8)).content == "8 to <EMAIL_ADDRESS>, done"
