"""An application that uses every kind of step, and writes down everything that it does.

Transactions write to a ledger without any unique key, so that nothing but the runtime keeps them from writing twice.
Communicators tell the witness. Both write the same `facts`, made of the first three values that a run draws (a time, a
UUID, a random number): a replay that drew again, instead of reading what was recorded, would show in every entry.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from typing import Any
from uuid import UUID

import operon
from tests.guarantees.worker import witness

LEDGER = "create table ledger (workflow_uuid uuid not null, what text not null, value text not null)"
INSERT = "insert into ledger (workflow_uuid, what, value) values ($1, $2, $3)"


class Refused(Exception):
    """What a transaction raises after it wrote: none of it may stay."""


class Declined(Exception):
    """What a communicator raises; over HTTP it decides its own answer."""

    status = 402


@operon.transaction(isolation="READ COMMITTED")
async def read_committed(tx: operon.TransactionContext, value: str) -> str:
    await tx.client.execute(INSERT, tx.workflow_uuid, "read_committed", value)
    return f"read_committed {value}"


@operon.transaction(isolation="REPEATABLE READ")
async def repeatable_read(tx: operon.TransactionContext, value: str) -> str:
    await tx.client.execute(INSERT, tx.workflow_uuid, "repeatable_read", value)
    return f"repeatable_read {value}"


@operon.transaction
async def serializable(tx: operon.TransactionContext, value: str) -> str:
    await tx.client.execute(INSERT, tx.workflow_uuid, "serializable", value)
    await witness.call(tx.workflow_uuid, "inside", "serializable", 1, value)
    return f"serializable {value}"


@operon.transaction(read_only=True)
async def entries(tx: operon.TransactionContext) -> int:
    count: int = await tx.client.fetchval("select count(*) from ledger where workflow_uuid = $1", tx.workflow_uuid)
    return count


@operon.transaction
async def refuse(tx: operon.TransactionContext, value: str) -> None:
    await tx.client.execute(INSERT, tx.workflow_uuid, "refuse", value)
    raise Refused("no")


@operon.post("/beside")
@operon.transaction
async def beside(tx: operon.TransactionContext, value: str) -> str:
    await tx.client.execute(INSERT, tx.workflow_uuid, "beside", value)
    return f"beside {value}"


@operon.post("/charge")
@operon.communicator
async def charge(ctx: operon.CommunicatorContext, value: str) -> str:
    await witness.call(ctx.workflow_uuid, ctx.idempotency_key, "charge", ctx.attempt, value)
    return f"charged {value}"


@operon.communicator(retry=operon.Retry(max_attempts=3, interval_seconds=0.01))
def post(ctx: operon.CommunicatorContext, value: str) -> str:
    witness.call_blocking(ctx.workflow_uuid, ctx.idempotency_key, "post", ctx.attempt, value)
    if ctx.attempt == 1:
        raise ConnectionError("the first attempt always fails")
    return f"posted {value}"


@operon.communicator(retry=None)
async def decline(ctx: operon.CommunicatorContext, value: str) -> None:
    await witness.call(ctx.workflow_uuid, ctx.idempotency_key, "decline", ctx.attempt, value)
    raise Declined("no money")


@operon.workflow
async def child(ctx: operon.WorkflowContext, value: str) -> str:
    ctx.random()
    await charge(ctx, value)
    await ctx.execute("insert into ledger values ($1, 'child', $2)", ctx.workflow_uuid, value)
    return f"child {value}"


@operon.post("/everything")
@operon.workflow
async def everything(ctx: operon.WorkflowContext, token: str) -> dict[str, Any]:
    facts = f"{token} {ctx.now().isoformat()} {ctx.uuid4()} {ctx.random()!r}"
    me = ctx.workflow_uuid
    got: dict[str, Any] = {"facts": facts}
    got["charge"] = await charge(ctx, facts)
    got["read_committed"] = await read_committed(ctx, facts)
    got["luck"] = ctx.random()
    got["drawn"] = await repeatable_read(ctx, f"{facts} {got['luck']!r}")
    got["serializable"] = await serializable(ctx, facts)
    got["entries"] = await entries(ctx)
    got["post"] = await post(ctx, facts)
    try:
        await refuse(ctx, facts)
    except Refused as error:
        got["refuse"] = str(error)
    try:
        await decline(ctx, facts)
    except Declined as error:
        got["decline"] = str(error)
    got["execute"] = await ctx.execute("insert into ledger values ($1, 'execute', $2)", me, facts)
    row = await ctx.fetchrow("insert into ledger values ($1, 'fetchrow', $2) returning what", me, facts)
    got["fetchrow"] = row["what"] if row is not None else None
    handle = await child(ctx, facts)
    got["child"] = await handle.get_result()
    status = await handle.get_status()
    got["status"] = status.status.value if status is not None else None
    found = ctx.retrieve_workflow(handle.workflow_uuid)
    got["retrieved"] = await found.get_result()
    got["beside"] = await asyncio.gather(beside(ctx, f"{facts} 1"), charge(ctx, facts), beside(ctx, f"{facts} 2"))
    got["last"] = await charge(ctx, facts)
    got["end"] = ctx.random()  # not durable yet when the body returns: who is told the result is told this
    return got


@operon.post("/failing")
@operon.workflow
async def failing(ctx: operon.WorkflowContext, token: str) -> None:
    await beside(ctx, token)
    await charge(ctx, token)
    await decline(ctx, token)


# ------------------------------------------------------------------ messages, events and time


@operon.workflow
async def write(ctx: operon.WorkflowContext, token: str) -> dict[str, Any]:
    """Corresponds with a workflow of its own, and sleeps and waits in between."""
    facts = f"{token} {ctx.uuid4()} {ctx.random()!r}"
    got: dict[str, Any] = {"facts": facts}
    handle = await read(ctx, ctx.workflow_uuid)
    reader = handle.workflow_uuid
    await ctx.set_event("state", "writing")
    await ctx.send(reader, f"{facts} 1", "letters")
    await ctx.send(reader, f"{facts} 2", "letters", idempotency_key="the second")
    got["replies"] = [await ctx.recv("replies"), await ctx.recv("replies")]
    await ctx.set_event("state", "answered", replace=True)
    await ctx.set_event("answered", facts)
    await ctx.sleep(0.15)
    got["nothing"] = await ctx.recv("nothing", timeout=0.05)
    got["read"] = await ctx.get_event(reader, "read")
    got["no event"] = await ctx.get_event(reader, "no event", timeout=0.05)
    got["charge"] = await charge(ctx, facts)
    await ctx.send(reader, facts, "end")
    got["result"] = await handle.get_result()
    return got


@operon.workflow
async def read(ctx: operon.WorkflowContext, writer: UUID) -> list[str]:
    first = await ctx.recv("letters", timeout=600)
    await charge(ctx, first)
    await ctx.send(writer, first, "replies")
    second = await ctx.recv("letters")
    await beside(ctx, second)
    await ctx.send(writer, second, "replies")
    answered = await ctx.get_event(writer, "answered")
    await ctx.set_event("read", [first, second])
    last = await ctx.recv("end")
    return [answered, last]


def expected_of_write(facts: str) -> dict[str, Any]:
    """The result of `write`, for the values that its run drew."""
    letters = [f"{facts} 1", f"{facts} 2"]
    return {
        "facts": facts,
        "replies": letters,
        "nothing": None,
        "read": letters,
        "no event": None,
        "charge": f"charged {facts}",
        "result": [facts, facts],
    }


@operon.workflow
async def receive(ctx: operon.WorkflowContext, count: int) -> list[int]:
    """Receives so many numbers, and tells the world each."""
    numbers: list[int] = []
    for _ in range(count):
        numbers.append(await ctx.recv("numbers"))
        await charge(ctx, str(numbers[-1]))
    return numbers


@operon.workflow
async def wait_shortly(ctx: operon.WorkflowContext, seconds: float) -> list[int | None]:
    """What comes in time, and what is there afterwards."""
    in_time = await ctx.recv("numbers", timeout=seconds)
    await ctx.recv("sent")
    return [in_time, await ctx.recv("numbers", timeout=0)]


@operon.workflow
async def nap(ctx: operon.WorkflowContext, seconds: float) -> None:
    """Sleeps, and then writes down when it woke, by the database's clock."""
    await ctx.sleep(seconds)
    await ctx.execute(
        "insert into ledger values ($1, 'woke', extract(epoch from clock_timestamp())::text)", ctx.workflow_uuid
    )


# ------------------------------------------------------------------ links between workflows


@operon.workflow
async def shift(ctx: operon.WorkflowContext, name: str, failures: int) -> str:
    """Fails in so many of its lives, and then returns."""
    lives = await ctx.fetchval(
        "insert into ledger values ($1, 'shift', $2) "
        "returning (select count(*)::integer from ledger where what = 'shift' and value = $2)",
        ctx.workflow_uuid,
        name,
    )
    await charge(ctx, name)
    if lives < failures:
        raise Refused(name)
    return name


@operon.workflow
async def endless(ctx: operon.WorkflowContext) -> None:
    await ctx.recv("never")


desk = operon.supervise(
    [
        operon.child("a", shift, "a", 2).using(restart="transient"),
        operon.child("b", shift, "b", 9).using(restart="temporary"),
    ],
    name="desk",
    intensity=operon.Intensity(restarts=10, period=600),
)
office = operon.supervise(
    [
        operon.child("desk", desk).using(restart="transient"),
        operon.child("c", shift, "c", 1).using(restart="transient"),
    ],
    name="office",
    intensity=operon.Intensity(restarts=10, period=600),
)


@operon.workflow
async def oversee(ctx: operon.WorkflowContext) -> list[str]:
    """Watches a tree of workflows, and ends with a child of each kind."""
    handle = await office(ctx)
    refs = [await ctx.monitor(handle.workflow_uuid), await ctx.monitor(handle.workflow_uuid)]
    await endless(ctx.using(parent_close="cancel"))
    downs = [await ctx.recv(operon.DOWN, required=True) for _ in refs]
    await shift(ctx.using(parent_close="wait"), "d", 0)
    return [f"{down.name} {down.status.value} {refs.index(down.ref)}" for down in downs]


# How one `oversee` and all that it started have ended, by name and status.
ENDS_OF_OVERSEE = {
    ("oversee", "SUCCESS"): 1,
    ("office", "SUCCESS"): 1,
    ("desk", "SUCCESS"): 1,
    ("shift", "SUCCESS"): 3,  # a, c, d
    ("shift", "ERROR"): 4,  # twice a, once b and c
    ("endless", "CANCELLED"): 1,
}


# What the ledger of one `everything` and its child holds in the end.
LEDGER_OF_EVERYTHING = Counter(
    {"read_committed": 1, "repeatable_read": 1, "serializable": 1, "execute": 1, "fetchrow": 1, "child": 1, "beside": 2}
)
# How often the outside world is called for one of them, if nothing ever dies, by name and attempt.
CALLS_OF_EVERYTHING = Counter({("charge", 1): 4, ("post", 1): 1, ("post", 2): 1, ("decline", 1): 1})


def expected(facts: str, luck: float, end: float) -> dict[str, Any]:
    """The result of `everything`, for the values that its run drew."""
    return {
        "facts": facts,
        "charge": f"charged {facts}",
        "read_committed": f"read_committed {facts}",
        "luck": luck,
        "drawn": f"repeatable_read {facts} {luck!r}",
        "serializable": f"serializable {facts}",
        "entries": 3,
        "post": f"posted {facts}",
        "refuse": "no",
        "decline": "no money",
        "execute": "INSERT 0 1",
        "fetchrow": "fetchrow",
        "child": f"child {facts}",
        "status": "SUCCESS",
        "retrieved": f"child {facts}",
        "beside": [f"beside {facts} 1", f"charged {facts}", f"beside {facts} 2"],
        "last": f"charged {facts}",
        "end": end,
    }


@operon.communicator(retry=None)
async def linger(ctx: operon.CommunicatorContext, seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


@operon.workflow
async def patient(ctx: operon.WorkflowContext, seconds: float) -> float:
    """Does nothing wrong, and takes its time."""
    return await linger(ctx, seconds)


@operon.workflow
async def deadly(ctx: operon.WorkflowContext, token: str) -> None:
    """Takes its process down, each time, after one step."""
    ctx.now()
    await ctx.execute("select 1")
    os._exit(66)


@operon.workflow
async def trusting(ctx: operon.WorkflowContext, token: str) -> str:
    """Waits for a child that takes the process down."""
    child = await deadly(ctx, token)
    try:
        await child.get_result()
    except operon.WorkflowDeadError:
        return "it is dead"
    return "it lives"
