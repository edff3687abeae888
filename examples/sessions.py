"""Notes behind a login: Quart's own signed session cookie says who asks.

operon start examples.sessions
curl -c jar localhost:8000/login -H 'Content-Type: application/json' -d '{"user": "ada", "password": "lovelace"}'
curl -b jar localhost:8000/notes -H 'Content-Type: application/json' -d '{"text": "buy milk"}'
curl -b jar localhost:8000/notes
curl -b jar -X DELETE localhost:8000/notes       # ada is an editor; bob, whose password is builder, gets 403
"""

import asyncio
import os
import secrets

from quart import Quart, session
from werkzeug.security import check_password_hash, generate_password_hash

import operon
from operon import Authenticated, HandlerContext, InitializerContext, MiddlewareContext, TransactionContext

# A real shop has a table, and asks `await ctx.query("select ... from users where name = $1", user)`.
USERS = {
    "ada": (generate_password_hash("lovelace"), ("editor",)),
    "bob": (generate_password_hash("builder"), ()),
}


@operon.security_scheme(session={"type": "apiKey", "in": "cookie", "name": "session"})
async def who(ctx: MiddlewareContext) -> Authenticated | None:
    """Runs for each request. The roles are looked up, so that they can be taken away from who is logged in."""
    user = session.get("user")
    return Authenticated(user, USERS[user][1]) if user in USERS else None


@operon.post("/login")
@operon.required_roles()  # open: everything else asks for a known user
async def login(ctx: HandlerContext, user: str, password: str) -> str:
    # A plain handler, because what it is given is recorded nowhere.
    known, _ = USERS.get(user, USERS["bob"])
    if not await asyncio.to_thread(check_password_hash, known, password) or user not in USERS:
        raise operon.NotAuthorizedError("wrong user or password", status=401)
    session["user"] = user
    return f"Welcome, {user}!"


@operon.post("/logout")
async def logout(ctx: HandlerContext) -> None:
    session.clear()


@operon.initializer
async def setup(ctx: InitializerContext) -> None:
    await ctx.client.execute("create table if not exists notes (id serial primary key, author text, text text)")


@operon.post("/notes")
@operon.transaction
async def add(tx: TransactionContext, text: str) -> None:
    await tx.client.execute("insert into notes (author, text) values ($1, $2)", tx.authenticated_user, text)


@operon.get("/notes")
@operon.transaction(read_only=True)
async def mine(tx: TransactionContext) -> list[str]:
    rows = await tx.client.fetch("select text from notes where author = $1 order by id", tx.authenticated_user)
    return [row["text"] for row in rows]


@operon.delete("/notes")
@operon.required_roles("editor")
@operon.transaction
async def clear(tx: TransactionContext) -> str:
    return await tx.client.execute("delete from notes")


quart = Quart(__name__)
quart.secret_key = os.environ.get("SECRET_KEY") or secrets.token_hex()  # a new one logs everybody out
quart.config["SESSION_COOKIE_SAMESITE"] = "Lax"  # and SESSION_COOKIE_SECURE = True where there is TLS

app = operon.Operon(__name__, authentication=who, quart=quart)
