"""An agent's loop under a policy: a call is judged before it is made, and its result before a model reads it."""

import asyncio
from pathlib import Path

from trackbed.rails import Models, Pipeline, ToolCall, Turn, load_policy

POLICY = Path(__file__).parent / "policies" / "tools.yaml"
TOOLS = {
    "search_orders": lambda customer: f"order 123456 of {customer}, 80 EUR, paid with 4111 1111 1111 1111",
    "refund": lambda order, amount, currency: f"{amount} {currency} of order {order} are on their way",
}
WANTED = [  # what a model would ask for, as its own JSON
    ("search_orders", '{"customer": "ann"}'),
    ("refund", '{"order": "123456", "amount": 800, "currency": "EUR"}'),
    ("refund", '{"order": "123456", "amount": 80, "currency": "EUR"}'),
    ("drop_table", '{"name": "orders"}'),
]


async def main() -> None:
    pipeline, turn = Pipeline(load_policy(POLICY), Models()), Turn("Please refund my last order.")
    for name, arguments in WANTED:
        check = await pipeline.check_call(ToolCall.read(name, arguments), turn)
        if check.to_confirm:
            print(f"  {check.refusal} {check.call.name} {check.call.text} yes")  # here the user would be asked
            turn = Turn(turn.question, confirmed=frozenset({check.call.digest}))
            check = await pipeline.check_call(check.call, turn)
        if check.passes:
            result = TOOLS[name](**check.call.plain())
            check = await pipeline.check_result(check.call, result, turn)
        print(f"{name}: {check.result or check.refusal}")


if __name__ == "__main__":
    asyncio.run(main())
