"""Sell a seat: reserve it, charge the card, and give it back if the card says no.

    operon start examples.tickets
    curl localhost:8000/shows/Hamlet/seats/A1 -H 'Content-Type: application/json' -d '{"card": "4242"}'
    curl localhost:8000/shows/Hamlet/seats/A2 -H 'Content-Type: application/json' -d '{"card": "declined"}'
    curl localhost:8000/shows/Hamlet/sold
    cat .operon/ledger.txt

The bank takes five seconds to answer. Whenever the process is killed, it goes on from there when it is started again.
"""

from pathlib import Path

import operon
from examples.pretend_bank import PretendBank
from operon import CommunicatorContext, InitializerContext, TransactionContext, WorkflowContext

bank = PretendBank(Path(".operon/ledger.txt"), answer_seconds=5)


@operon.initializer
async def setup(ctx: InitializerContext) -> None:
    await ctx.client.execute(
        "create table if not exists seats (show text, seat text, buyer uuid, primary key (show, seat))"
    )
    await ctx.client.execute(
        "insert into seats select 'Hamlet', 'A' || n from generate_series(1, 9) n on conflict do nothing"
    )


@operon.transaction
async def reserve(tx: TransactionContext, show: str, seat: str) -> bool:
    take = "update seats set buyer = $3 where (show, seat) = ($1, $2) and buyer is null"
    return await tx.client.execute(take, show, seat, tx.workflow_uuid) == "UPDATE 1"


@operon.transaction
async def release(tx: TransactionContext, show: str, seat: str) -> None:
    await tx.client.execute("update seats set buyer = null where (show, seat) = ($1, $2)", show, seat)


@operon.communicator(retry=operon.Retry(max_attempts=5))
async def charge(ctx: CommunicatorContext, card: str, cents: int) -> bool:
    # Runs at least once. The key is the same on every attempt, so the bank charges once.
    return await bank.charge(card, cents, key=ctx.idempotency_key)


@operon.post("/shows/<show>/seats/<seat>")  # runs the workflow and answers with its result
@operon.workflow
async def checkout(ctx: WorkflowContext, show: str, seat: str, card: str) -> bool:
    if not await reserve(ctx, show, seat):
        return False
    if await charge(ctx, card, cents=50_00):
        return True
    await release(ctx, show, seat)
    return False


@operon.get("/shows/<show>/sold")
@operon.transaction(read_only=True)
async def sold(tx: TransactionContext, show: str) -> list[str]:
    rows = await tx.client.fetch("select seat from seats where show = $1 and buyer is not null order by seat", show)
    return [row["seat"] for row in rows]


app = operon.Operon(__name__)
