"""Rule: a call that does not meet what the policy requires of it, as a condition over its arguments."""

from typing import ClassVar

from pydantic import Field, PrivateAttr

from trackbed.rails.config import RailConfig
from trackbed.rails.errors import Place, PolicyError, RailFailed, TemplateFailed
from trackbed.rails.template import Condition, Names, compile_condition
from trackbed.rails.types import Models, Stage, Then, Turn, Verdict

OWN = ("vars", "question")  # what a condition reads of the turn; an argument of that name is out of its reach
TAKEN = {"self", "super", "loop", "caller", "varargs", "kwargs"}  # words that mean something else to Jinja


class Rule:
    """Blocks a call of one tool where a condition over its arguments is not true.

    What is missing, or is compared with a value of another type, makes no condition true.
    """

    stages: ClassVar[frozenset[Stage]] = frozenset({"tools"})
    actions: ClassVar[frozenset[Then]] = frozenset({"block"})

    class Config(RailConfig):
        """The tool and the condition."""

        tool: str = Field(min_length=1, description="The tool whose calls are judged.")
        require: str = Field(
            min_length=1,
            description="What must be true: a condition over the call's arguments by their names, vars and question, "
            "such as amount <= 100 and currency in ['EUR', 'USD'].",
        )
        _condition: Condition | None = PrivateAttr(None)

        @property
        def condition(self) -> Condition:
            """The condition, ready to be asked."""
            if self._condition is None:
                raise RailFailed("a rule's condition is compiled by who reads the policy")
            return self._condition

        def compiled(self, place: Place, names: Names) -> "Rule.Config":
            """The same with its condition ready; `names` are those that it may read. Raises PolicyError."""
            condition = compile_condition(self.require, place, names, typed=True)
            if taken := sorted(condition.reads & TAKEN):
                raise PolicyError(f"{taken[0]!r} cannot be the name of an argument in a condition", place)
            made = self.model_copy()
            made._condition = condition
            return made

    def __init__(self, config: Config, models: Models) -> None:
        self.tool = config.tool
        self.condition = config.condition

    async def check(self, turn: Turn) -> Verdict:
        """Block unless the condition is true for sure."""
        if turn.call is None or turn.result is not None:
            raise RailFailed("a rule judges calls; there is none")
        if turn.call.name != self.tool:
            return Verdict.allow()
        given = turn.call.plain()
        read = {name: given[name] for name in self.condition.reads if name in given}
        try:
            given_own = read.keys() & OWN
            holds = not given_own and self.condition.value(**read, vars=turn.vars, question=turn.question) is True
        except TemplateFailed:  # something is missing, or of another type
            holds = False
        return Verdict.allow() if holds else Verdict.block(detail="what the policy requires of this call")
