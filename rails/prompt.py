"""What the model is asked: the policy's prompt with its numbered passages, the conversation, and the question.

This file knows the order of messages. It knows nothing of tokens: that what a user or a passage says can
never become a special token is the tokenizer's promise.
"""

from typing import TYPE_CHECKING

from trackbed.llm.types import Message
from trackbed.rails.types import Turn

if TYPE_CHECKING:
    from trackbed.rails.policy import Policy


def render_prompt(turn: Turn, policy: "Policy") -> tuple[Message, ...]:
    """The messages for the chat model: what the policy says as the system, the latest history, and the prompt.

    Passages stand in the last message, not in the system's: whoever wrote them does not speak for the policy.
    """
    generation = policy.generation
    shown = turn.history[-generation.history :] if generation.history else ()
    history = tuple(Message("user", m.content) if m.role == "system" else m for m in shown)
    own = policy.dialog.prompts.get(turn.step) if policy.dialog else None
    prompt = (own or generation.prompt).render(
        question=turn.question,
        history=[{"role": m.role, "content": m.content} for m in history],
        passages=[
            {"n": n, "text": _prose(p.text), "source": p.source, "heading": p.heading}
            for n, p in enumerate(turn.passages, start=1)
        ],
        vars=turn.vars,
    )
    system = (Message("system", generation.system),) if generation.system else ()
    return (*system, *history, Message("user", prompt.strip()))


def _prose(text: str) -> str:
    """A passage without the heading lines that it begins with: they have a name of their own in the template."""
    lines = text.strip().splitlines()
    while lines and (not lines[0].strip() or lines[0].startswith("#")):
        del lines[0]
    return "\n".join(lines) or text.strip()
