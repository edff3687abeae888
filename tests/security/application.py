"""An application with secrets wherever one can be: served by `operon start`, and besieged."""

from __future__ import annotations

import os
from typing import Annotated, Any

import operon
from operon.authorization import Authenticated, MiddlewareContext


def who(ctx: MiddlewareContext) -> Authenticated | None:
    token = ctx.request.headers.get("authorization", "")
    if token and not token.startswith("Bearer "):
        raise operon.NotAuthorizedError(f"this is no bearer token: Authorization: {token}", status=401)
    return Authenticated("ada", ("clerk",)) if token else None


def how_it_reads() -> list[str]:
    """The words in which drivers and libraries quote secrets."""
    secret = os.environ.get("CANARY_ERROR", "")
    return [
        f"connection to postgresql://app:{secret}@db.internal/shop failed",
        f"FATAL: password={secret} is wrong",
        f"{{'api_key': '{secret}', 'amount': 3}}",
        f"401 for GET / with Authorization: Bearer {secret}",
        f"Cookie: session={secret}; other={secret}\nX-API-Key: {secret}",
    ]


class Declined(Exception):
    """An error that decides its own answer, and carries too much."""

    status = 402

    def __init__(self, message: str) -> None:
        super().__init__(message, {"client_secret": os.environ.get("CANARY_ERROR", "")})
        self.password = os.environ.get("CANARY_ERROR", "")

    def __str__(self) -> str:
        return str(self.args[0])


@operon.communicator(retry=None)
async def charge(ctx: operon.CommunicatorContext, card: Annotated[str, operon.Masked], how: str) -> int:
    if how == "declined":
        raise Declined(" and ".join(how_it_reads()))
    if how == "group":
        raise ExceptionGroup("several", [ValueError(text) for text in how_it_reads()])
    return len(card)


@operon.transaction
async def book(tx: operon.TransactionContext, card: Annotated[str, operon.Masked]) -> int:
    return int(await tx.client.fetchval("select length($1)", card))


@operon.workflow
async def ship(ctx: operon.WorkflowContext, card: Annotated[str, operon.Masked]) -> int:
    return await book(ctx, card)


@operon.required_roles()
@operon.post("/buy")
@operon.workflow
async def buy(ctx: operon.WorkflowContext, card: Annotated[str, operon.Masked], how: str) -> int:
    ctx.logger.info("buying: %s", " and ".join(how_it_reads()))
    if how == "unstorable":
        raise RuntimeError(object(), how_it_reads())
    paid = await charge(ctx, card, how)
    return paid + await (await ship(ctx, card)).get_result()


@operon.required_roles()
@operon.get("/fail")
async def fail(ctx: operon.HandlerContext) -> None:
    try:
        raise OSError(how_it_reads()[0])
    except OSError as error:
        raise RuntimeError(" and ".join(how_it_reads())) from error


@operon.required_roles()
@operon.get("/status")
async def status(ctx: operon.HandlerContext, which: str) -> Any:
    return await ctx.retrieve_workflow(which).get_status()


@operon.required_roles("admin")
@operon.get("/admin")
async def admin(ctx: operon.HandlerContext) -> None: ...


@operon.required_roles()
@operon.get("/hello")
async def hello(ctx: operon.HandlerContext) -> str:
    return "hello"


@operon.required_roles()
@operon.post("/value")
@operon.communicator(retry=None)
async def value(ctx: operon.CommunicatorContext, v: Any) -> Any:
    return v


@operon.required_roles()
@operon.get("/named")
async def named(ctx: operon.HandlerContext, name: str) -> Any:
    return name, 200, {"x-name": name}


app = operon.Operon(__name__, authentication=who)
