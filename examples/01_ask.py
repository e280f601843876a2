"""Ask the shipped pages a question: rails, search, answer, rails, citations."""

import asyncio

from trackbed.apps.build import build
from trackbed.apps.settings import load_settings
from trackbed.rails import Turn, load_policy


async def main() -> None:
    with build(load_settings(), load_policy("default")) as pipeline:
        reply = await pipeline.respond(Turn("How do I observe a rail without enforcing it?"))
        print(reply.text)
        for citation in reply.citations:
            print(f"  [{citation.n}] {citation.source}, characters {citation.start} to {citation.end}")

        # The next turn of the conversation; what was judged is not judged again.
        reply = await pipeline.respond(reply.next("What is the capital of Peru?"))
        print(reply.text)


asyncio.run(main())
