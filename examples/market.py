"""A market whose stalls are workflows: one that breaks down is opened again, by a supervisor that is a workflow too.

operon start examples.market
curl -X POST localhost:8000/market                 # opens it; a second time it is open already
curl localhost:8000/market/apples -H 'Content-Type: application/json' -d '{"count": 3}'
curl localhost:8000/market/apples                  # 7 are left
kill -9 $(pgrep -f 'operon start')                 # and start it again: still 7
curl localhost:8000/market/apples -H 'Content-Type: application/json' -d '{"count": 100}'
curl localhost:8000/market/apples                  # too many: it broke down, and there are 10 again
"""

from uuid import UUID

import operon
from operon import HandlerContext, Intensity, WorkflowContext

ORDER = operon.Topic("order", int)
STOCK = operon.EventKey("stock", int)
MARKET = UUID("0199a0c8-1f00-7000-8000-6d61726b6574")  # there is one


@operon.workflow
async def stall(ctx: WorkflowContext, fruit: str, stock: int) -> None:
    """Sells until nothing is left. Nobody has thought of orders that are too large."""
    await ctx.set_event(STOCK, stock)
    while stock:
        count = await ctx.recv(ORDER, required=True)
        if count > stock:
            raise LookupError(f"there are no {count} {fruit}")
        stock -= count
        await ctx.set_event(STOCK, stock, replace=True)


market = operon.supervise(
    [operon.child("apples", stall, "apples", 10), operon.child("pears", stall, "pears", stock=5)],
    name="market",
    intensity=Intensity(restarts=5, period=60),
)


@operon.post("/market")
async def open_market(ctx: HandlerContext) -> None:
    await market(ctx.using(workflow_uuid=MARKET))


async def find(ctx: HandlerContext, fruit: str) -> UUID:
    """The present life of a stall: its supervisor publishes it."""
    uuid = await ctx.get_event(MARKET, operon.EventKey(fruit, UUID), timeout=1)
    if uuid is None:
        raise operon.NonExistentWorkflowError(f"nobody sells {fruit}")
    return uuid


@operon.post("/market/<fruit>")
async def buy(ctx: HandlerContext, fruit: str, count: int) -> None:
    await ctx.send(await find(ctx, fruit), count, ORDER)


@operon.get("/market/<fruit>")
async def left(ctx: HandlerContext, fruit: str) -> int | None:
    return await ctx.get_event(await find(ctx, fruit), STOCK, timeout=5)


app = operon.Operon(__name__)
