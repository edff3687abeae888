"""The ticket shop again, with its operations grouped in a class; `ctx.invoke(Ticket)` hands the context on.

operon start examples.tickets_class
curl localhost:8000/shows/Macbeth/seats/A1 -H 'Content-Type: application/json' -d '{"card": "4242"}'
"""

from pathlib import Path

import operon
from examples.pretend_bank import PretendBank
from operon import CommunicatorContext, InitializerContext, TransactionContext, WorkflowContext

bank = PretendBank(Path(".operon/ledger.txt"), answer_seconds=5)


class Ticket:
    """A seat of a show. The operation decorator goes above `@staticmethod`, the route above both."""

    @operon.initializer
    @staticmethod
    async def setup(ctx: InitializerContext) -> None:
        await ctx.client.execute(
            "create table if not exists seats (show text, seat text, buyer uuid, primary key (show, seat))"
        )
        await ctx.client.execute(
            "insert into seats select 'Macbeth', 'A' || n from generate_series(1, 9) n on conflict do nothing"
        )

    @operon.transaction
    @staticmethod
    async def reserve(tx: TransactionContext, show: str, seat: str) -> bool:
        take = "update seats set buyer = $3 where (show, seat) = ($1, $2) and buyer is null"
        return await tx.client.execute(take, show, seat, tx.workflow_uuid) == "UPDATE 1"

    @operon.transaction
    @staticmethod
    async def release(tx: TransactionContext, show: str, seat: str) -> None:
        await tx.client.execute("update seats set buyer = null where (show, seat) = ($1, $2)", show, seat)

    @operon.communicator(retry=operon.Retry(max_attempts=5))
    @staticmethod
    async def charge(ctx: CommunicatorContext, card: str, cents: int) -> bool:
        return await bank.charge(card, cents, key=ctx.idempotency_key)

    @operon.post("/shows/<show>/seats/<seat>")
    @operon.workflow
    @staticmethod
    async def checkout(ctx: WorkflowContext, show: str, seat: str, card: str) -> bool:
        ticket = ctx.invoke(Ticket)
        if not await ticket.reserve(show, seat):
            return False
        if await ticket.charge(card, cents=50_00):
            return True
        await ticket.release(show, seat)
        return False


app = operon.Operon(Ticket)
