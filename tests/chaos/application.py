"""What the executors run: a bank, a post office and trees of children. What each must come to is known beforehand.

Nothing here helps the runtime: the ledger has no unique key, so a step that ran twice shows as two rows. Communicators
are not retried, and tell the witness when they were entered.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from uuid import UUID

import msgspec

import operon

ACCOUNTS = 20
BALANCE = 1_000
TOPICS = ("bills", "cards", "parcels")

TABLES = f"""
create table accounts (id integer primary key, balance bigint not null check (balance >= 0));
create table ledger (workflow_uuid uuid not null, what text not null, account integer, amount bigint not null);
create index on ledger (workflow_uuid);
insert into accounts select n, {BALANCE} from generate_series(0, {ACCOUNTS - 1}) as n;
create function credit() returns trigger language plpgsql as
'begin update accounts set balance = balance + new.amount where id = new.account; return new; end';
create trigger credit after insert on ledger for each row when (new.what = 'credit') execute function credit();
"""
LEDGER = "insert into ledger (workflow_uuid, what, account, amount) values ($1, $2, $3, $4)"


class Call(msgspec.Struct, frozen=True):
    """What a communicator tells the witness. `entered`: when its first line ran, by the clock of the machine."""

    key: str
    pid: int
    entered: float


@operon.communicator(retry=None)
async def call(ctx: operon.CommunicatorContext) -> str:
    """The outside world: it takes as long as the witness likes."""
    entered = time.time()
    reader, writer = await asyncio.open_unix_connection(os.environ["WITNESS"])
    try:
        writer.write(msgspec.json.encode(Call(ctx.idempotency_key, os.getpid(), entered)) + b"\n")
        answer = await reader.readline()
    finally:
        writer.close()
    return answer.decode().strip()


# ------------------------------------------------------------------ the bank


@operon.transaction
async def withdraw(tx: operon.TransactionContext, account: int, amount: int) -> bool:
    take = "update accounts set balance = balance - $2 where id = $1 and balance >= $2"
    if await tx.client.execute(take, account, amount) != "UPDATE 1":
        return False
    await tx.client.execute(LEDGER, tx.workflow_uuid, "withdraw", account, -amount)
    return True


@operon.transaction(isolation="READ COMMITTED")
async def deposit(tx: operon.TransactionContext, account: int, amount: int) -> None:
    await tx.client.execute("update accounts set balance = balance + $2 where id = $1", account, amount)
    await tx.client.execute(LEDGER, tx.workflow_uuid, "deposit", account, amount)


@operon.workflow
async def transfer(ctx: operon.WorkflowContext, source: int, target: int, amount: int) -> bool:
    """Two transactions and a call between them; every other deposit is one statement in the group commit."""
    if not await withdraw(ctx, source, amount):
        return False
    await call(ctx)
    if amount % 2:
        await deposit(ctx, target, amount)
    else:
        await ctx.execute(LEDGER, ctx.workflow_uuid, "credit", target, amount)
    await ctx.set_event("moved", amount)
    return True


# ------------------------------------------------------------------ the post office


@operon.workflow
async def collect(ctx: operon.WorkflowContext, count: int) -> list[tuple[int, int]]:
    """Receives so many numbered letters, in the order in which they come."""
    await ctx.set_event("open", True)
    letters: list[tuple[int, int]] = []
    for _ in range(count):
        received = await ctx.recv_any(*TOPICS, required=True)
        sender, number = received.message
        letters.append((sender, number))
        if number % 4 == 3:
            await call(ctx)
    return letters


@operon.workflow
async def post(ctx: operon.WorkflowContext, reader: UUID, sender: int, count: int) -> None:
    """Sends so many numbered letters, once the reader is open."""
    await ctx.get_event(reader, "open")
    for number in range(count):
        await ctx.send(reader, (sender, number), topic_of(sender))
        if number % 3 == 2:
            await ctx.sleep(0.02 * sender)


@operon.workflow
async def correspondence(ctx: operon.WorkflowContext, senders: int, count: int) -> list[tuple[int, int]]:
    """Some workflows write to one reader; so does somebody outside, who is `senders`."""
    reader = await collect(ctx, (senders + 1) * count)
    await ctx.set_event("reader", str(reader.workflow_uuid))
    posts = [await post(ctx, reader.workflow_uuid, sender, count) for sender in range(senders)]
    letters = await reader.get_result()
    for handle in posts:
        await handle.get_result()
    return letters


def topic_of(sender: int) -> str:
    return TOPICS[sender % len(TOPICS)]


# ------------------------------------------------------------------ trees


class Refused(Exception):
    """What a transaction raises after it wrote: none of it may stay."""


@operon.transaction
async def add(tx: operon.TransactionContext) -> int:
    await tx.client.execute(LEDGER, tx.workflow_uuid, "add", None, 1)
    return 1


@operon.transaction
async def refuse(tx: operon.TransactionContext) -> None:
    await tx.client.execute(LEDGER, tx.workflow_uuid, "refused", None, 1)
    raise Refused("no")


@operon.workflow
async def tree(ctx: operon.WorkflowContext, seed: int, depth: int) -> int:
    """Does what its seed says; gives how often it and its children have added one."""
    total = 0
    for action, number in actions(seed, depth):
        match action:
            case "add":
                total += await add(ctx)
            case "statement":
                await ctx.execute(LEDGER, ctx.workflow_uuid, "add", None, 1)
                total += 1
            case "call":
                await call(ctx)
            case "sleep":
                await ctx.sleep(number / 1000)
            case "refuse":
                try:
                    await refuse(ctx)
                except Refused:
                    total += 1
            case "child":
                handle = await tree(ctx, number, depth - 1)
                total += await handle.get_result()
            case "branch":
                total += sum(await asyncio.gather(add(ctx), grow(ctx, number, depth), add(ctx)))
            case _:
                raise AssertionError(action)
    return total


async def grow(ctx: operon.WorkflowContext, seed: int, depth: int) -> int:
    handle = await tree(ctx, seed, depth - 1)
    await call(ctx)
    return await handle.get_result()


def actions(seed: int, depth: int) -> list[tuple[str, int]]:
    """What a tree of this seed does: each with a number, which is a seed for a child and milliseconds for a sleep."""
    rng = random.Random(seed)
    kinds = ("add", "statement", "call", "sleep", "refuse", *(("child", "branch") if depth else ()))
    return [
        (kind, rng.randrange(300) if kind == "sleep" else rng.getrandbits(31))
        for kind in rng.choices(kinds, k=rng.randint(1, 4))
    ]


def expected(seed: int, depth: int) -> int:
    """What `tree` has to give."""
    worth = {"add": 1, "statement": 1, "refuse": 1, "branch": 2}
    return sum(
        worth.get(action, 0) + (expected(number, depth - 1) if action in ("child", "branch") else 0)
        for action, number in actions(seed, depth)
    )
