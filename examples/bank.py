"""Move money between accounts. The money is never lost and never made, whatever crashes between the two transactions.

operon start examples.bank
curl localhost:8000/accounts -H 'Content-Type: application/json' -d '{"account": "ada", "cents": 1000}'
curl localhost:8000/accounts -H 'Content-Type: application/json' -d '{"account": "bob", "cents": 0}'
curl localhost:8000/transfers -H 'Content-Type: application/json' -d '{"source": "ada", "target": "bob", "cents": 300}'
curl localhost:8000/accounts/bob
"""

from typing import Annotated

from msgspec import Meta

import operon
from operon import InitializerContext, TransactionContext, WorkflowContext

Deposit = Annotated[int, Meta(ge=0)]
Amount = Annotated[int, Meta(gt=0)]


class UnknownAccount(Exception):
    """No account has this name."""

    status = 404


class InsufficientFunds(Exception):
    """The account holds less than that."""

    status = 409


@operon.initializer
async def setup(ctx: InitializerContext) -> None:
    await ctx.client.execute("create table if not exists accounts (account text primary key, cents bigint not null)")


@operon.post("/accounts")
@operon.transaction
async def open_account(tx: TransactionContext, account: str, cents: Deposit) -> None:
    await tx.client.execute("insert into accounts values ($1, $2)", account, cents)


@operon.get("/accounts/<account>")
@operon.transaction(read_only=True)
async def balance(tx: TransactionContext, account: str) -> int:
    cents: int | None = await tx.client.fetchval("select cents from accounts where account = $1", account)
    if cents is None:
        raise UnknownAccount(account)
    return cents


@operon.transaction
async def debit(tx: TransactionContext, account: str, cents: int) -> None:
    take = "update accounts set cents = cents - $2 where account = $1 returning cents"
    left: int | None = await tx.client.fetchval(take, account, cents)
    if left is None:
        raise UnknownAccount(account)
    if left < 0:
        raise InsufficientFunds(f"{account} holds {left + cents} cents")  # the update is rolled back


@operon.transaction
async def credit(tx: TransactionContext, account: str, cents: int) -> None:
    put = "update accounts set cents = cents + $2 where account = $1"
    if await tx.client.execute(put, account, cents) != "UPDATE 1":
        raise UnknownAccount(account)


@operon.post("/transfers")
@operon.workflow
async def transfer(ctx: WorkflowContext, source: str, target: str, cents: Amount) -> None:
    await debit(ctx, source, cents)
    try:
        await credit(ctx, target, cents)
    except UnknownAccount:
        await credit(ctx, source, cents)
        raise


app = operon.Operon(__name__)
