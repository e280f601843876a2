"""A rail of one's own, which a policy names by its import path. Nothing has to be registered."""

import asyncio
import re
import sys
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from trackbed.rails import Models, Pipeline, Turn, Verdict, load_policy
from trackbed.rails.config import RailConfig
from trackbed.rails.types import Finding, Stage, Then


class Competitors:
    """Finds the names of competitors."""

    stages: ClassVar[frozenset[Stage]] = frozenset({"input", "output"})
    actions: ClassVar[frozenset[Then]] = frozenset({"block", "mask"})

    class Config(RailConfig):
        """Whom not to speak of."""

        names: list[str] = Field(min_length=1, description="The competitors' names.")

    def __init__(self, config: Config, models: Models) -> None:
        self.names = re.compile("|".join(map(re.escape, config.names)), re.IGNORECASE)

    async def check(self, turn: Turn) -> Verdict:
        """Find every name, everywhere in the text that is judged."""
        findings = tuple(Finding("COMPETITOR", *found.span()) for found in self.names.finditer(turn.text))
        return Verdict.block(detail="a competitor", findings=findings) if findings else Verdict.allow()


if __name__ == "__main__":
    sys.modules["competitors"] = sys.modules["__main__"]  # so that the policy below finds this file's class
    policy = load_policy(Path(__file__).parent / "policies" / "competitors.yaml")
    verdict, _ = asyncio.run(
        Pipeline(policy, Models()).check("input", "Is Initech any better than Globex? Is INITECH?")
    )
    print(verdict.action, verdict.text)
