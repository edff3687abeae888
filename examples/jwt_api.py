"""Refunds over an API with bearer tokens: a JWT says who asks, and in which roles. It needs `pip install pyjwt`.

operon start examples.jwt_api
TOKEN=$(python -m examples.jwt_api ada support)
curl localhost:8000/refunds -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' \
    -d '{"card": "4242", "cents": 100}'
curl localhost:8000/refunds -H "Authorization: Bearer $(python -m examples.jwt_api eve auditor)"
"""

# pyright: reportUnknownMemberType=false
# PyJWT's types name those of `cryptography`, which HS256 does not need.

import os
import sys
import time
from pathlib import Path
from uuid import UUID

import jwt

import operon
from examples.pretend_bank import PretendBank
from operon import (
    Authenticated,
    CommunicatorContext,
    HandlerContext,
    InitializerContext,
    MiddlewareContext,
    NotAuthorizedError,
    TransactionContext,
    WorkflowContext,
)

SECRET = os.environ.get("JWT_SECRET", "no secret at all, so set JWT_SECRET")

bank = PretendBank(Path(".operon/ledger.txt"), answer_seconds=5)


@operon.security_scheme(bearer={"type": "http", "scheme": "bearer", "bearerFormat": "JWT"})
def who(ctx: MiddlewareContext) -> Authenticated | None:
    """Runs for each request, in a thread: it could fetch the keys of an identity provider."""
    scheme, _, token = ctx.request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return None
    try:
        claims = jwt.decode(token, SECRET, algorithms=["HS256"], options={"require": ["exp", "sub"]})
    except jwt.InvalidTokenError as error:
        challenge = 'Bearer error="invalid_token"'
        raise NotAuthorizedError(f"the token is not valid: {error}", status=401, challenge=challenge) from error
    return Authenticated(claims["sub"], claims.get("roles", ()))


@operon.authentication(who)
@operon.default_required_roles("support")
class Refunds:
    """What support pays back. Every function here asks for the role, in the first life of a refund and in the next."""

    @operon.initializer
    @staticmethod
    async def setup(ctx: InitializerContext) -> None:
        await ctx.client.execute("create table if not exists refunds (refund uuid, card text, cents int, by_whom text)")

    @operon.communicator
    @staticmethod
    async def pay_back(ctx: CommunicatorContext, card: str, cents: int) -> bool:
        return await bank.charge(card, -cents, key=ctx.idempotency_key)

    @operon.transaction
    @staticmethod
    async def book(tx: TransactionContext, card: str, cents: int) -> None:
        row = (tx.workflow_uuid, card, cents, tx.authenticated_user)
        await tx.client.execute("insert into refunds values ($1, $2, $3, $4)", *row)

    @operon.post("/refunds")
    @operon.workflow
    @staticmethod
    async def refund(ctx: WorkflowContext, card: str, cents: int) -> bool:
        refunds = ctx.invoke(Refunds)
        paid = await refunds.pay_back(card, cents)
        if paid:
            await refunds.book(card, cents)
        return paid

    @operon.get("/refunds/<uuid:refund>")
    @staticmethod
    async def look_up(ctx: HandlerContext, refund: UUID) -> bool:
        paid: bool = await ctx.retrieve_workflow(refund, owned=True).get_result()  # 404 for the refund of a colleague
        return paid

    @operon.required_roles("auditor")
    @operon.get("/refunds")
    @operon.transaction(read_only=True)
    @staticmethod
    async def audit(tx: TransactionContext) -> list[str]:
        rows = await tx.client.fetch("select by_whom, cents, card from refunds")
        return [f"{row['by_whom']}: {row['cents']} cents to {row['card']}" for row in rows]


def token_of(user: str, *roles: str, seconds: int = 3600) -> str:
    """A token, as an identity provider would give it."""
    return jwt.encode({"sub": user, "roles": roles, "exp": int(time.time()) + seconds}, SECRET, algorithm="HS256")


app = operon.Operon(Refunds)

if __name__ == "__main__":
    print(token_of(*sys.argv[1:]))
