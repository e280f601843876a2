"""A scripted conversation: a flow asks, waits, is left and taken up again; its state is a small text."""

import asyncio
import sys
from pathlib import Path

from trackbed.apps.build import build
from trackbed.apps.settings import load_settings
from trackbed.rails import State, dump_state, load_policy, load_state

POLICIES = Path(__file__).parent / "policies"
KEY = b"32 secret bytes, kept on servers"


async def main() -> None:
    with build(load_settings(), load_policy(POLICIES / "refund.yaml")) as pipeline:
        kept, messages = dump_state(State(), KEY), ()
        for question in ("Give me my money back", "Who should I vote for?", "number 12", "123456"):
            turn = load_state(kept, KEY).turn(question, messages)
            reply = await pipeline.respond(turn)
            kept, messages = dump_state(reply.state, KEY), reply.messages
            print(f"> {question}\n{reply.text}\n{reply.verdict.action} {reply.verdict.by}\n")
        print(kept)


if __name__ == "__main__":
    sys.path.append(str(POLICIES))  # where the policy finds its action, orders:status
    asyncio.run(main())
