"""Promise: whoever has lost a workflow writes nothing more of it. Each fence alone, without those around it.

Random faults do not prove a fence: behind it a primary key, another predicate or a lock mostly catches what it lets by.
So the statements are taken one by one here, and two sessions meet in the order that is asked about.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

import operon
from operon.database import checkpoints, executors, workflows
from operon.database.batch import Batch
from operon.database.connection import Connection, connect
from operon.database.lease import GRACE_SECONDS, Lease
from operon.database.mail import Park
from operon.database.writer import Revoked, Writer
from operon.errors import Fenced
from operon.runtime.waits import WaitKind
from operon.testing import TestRuntime
from tests.database import one_step
from tests.guarantees.worker.case import until

LEASE_SECONDS = 60.0
COMMUNICATOR, TRANSACTION, SET_EVENT = 1, 0, 12

BLOCKED = """
select count(*) > 0 from pg_stat_activity
where datname = current_database() and application_name = $1 and cardinality(pg_blocking_pids(pid)) > 0
"""

# A flush of the same step has to wait for this one.
IN_THE_WAY = "insert into operon.checkpoints (workflow_uuid, step, kind, name, output) values ($1, 0, 1, 'x', '1')"


@dataclass
class Stage:
    """A database with two registered executors and nothing that runs, and a session to look at it."""

    url: str
    look: Connection
    one: int
    other: int
    writer: Writer
    begun: int = 0

    async def started(self) -> UUID:
        """A workflow that runs in the first executor."""
        uuid = uuid4()
        batch = Batch()
        batch.s_uuid.append(uuid)
        batch.s_name.append("unheard of")  # or the executor of the runtime would claim it, too
        batch.s_inputs.append(b"{}")
        self.begun += 1
        await self.writer.flush(self.one, -self.begun, batch)
        return uuid

    async def session(self, name: str) -> Connection:
        return await connect(self.url, {"application_name": name})

    async def is_blocked(self, name: str) -> bool:
        """Whether a session waits for another one."""
        return bool(await self.look.fetchval(BLOCKED, name))

    async def lease_until(self, number: int) -> Any:
        return await self.look.fetchval("select lease_until from operon.executors where incarnation = $1", number)

    async def steps(self, uuid: UUID) -> list[int]:
        rows = await self.look.fetch("select step from operon.checkpoints where workflow_uuid = $1 order by step", uuid)
        return [row[0] for row in rows]


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with TestRuntime(one_step, check_replay=False) as runtime:
        look = await connect(runtime.database_url)
        one, _ = await executors.register(look, "0", LEASE_SECONDS, GRACE_SECONDS)
        other, _ = await executors.register(look, "0", LEASE_SECONDS, GRACE_SECONDS)
        writer = Writer(runtime.database_url, "0", 10_000)
        yield Stage(runtime.database_url, look, one, other, writer)
        await writer.close()
        await look.close()


def record(uuid: UUID, step: int) -> Batch:
    batch = Batch()
    batch.checkpoint(uuid, step, COMMUNICATOR, "salute", b'"x"', 0.0)
    return batch


def commit(uuid: UUID, owner: int, epoch: int) -> str:
    """The last message of a user's transaction."""
    return checkpoints.commit_with_checkpoint(
        uuid, 0, owner, epoch, "measure", 1, b"1", 0.0, None, None, TRANSACTION, prepared=True
    )


# ------------------------------------------------------------------ flushes


async def test_an_executor_is_not_declared_dead_in_the_middle_of_a_flush(stage: Stage) -> None:
    uuid = await stage.started()
    in_the_way, judge = await stage.session("in the way"), await stage.session("judge")
    await in_the_way.execute("begin")
    await in_the_way.execute(IN_THE_WAY, uuid)
    flush = asyncio.create_task(stage.writer.flush(stage.one, 2, record(uuid, 0)))
    await until(lambda: stage.is_blocked("operon"))  # it has passed its fence

    declared = asyncio.create_task(executors.declare_dead(judge, stage.one, await stage.lease_until(stage.one)))
    await until_blocked_or_done(stage, "judge", declared)
    waited = not declared.done()
    await in_the_way.execute("rollback")
    await asyncio.gather(flush, declared, return_exceptions=True)

    assert waited, "it was declared dead, and its flush went on"
    assert await stage.steps(uuid) == [0]
    for session in (in_the_way, judge):
        await session.close()


async def test_a_flush_of_a_dead_executor_that_was_lost_did_not_land(stage: Stage) -> None:
    uuid = await stage.started()
    await executors.kill(stage.look, stage.one)

    with pytest.raises(Fenced):
        await stage.writer.landed(stage.one, 2, record(uuid, 0))


async def test_a_flush_that_was_lost_landed_if_its_number_did_also_of_a_dead_executor(stage: Stage) -> None:
    uuid = await stage.started()
    await stage.writer.flush(stage.one, 2, record(uuid, 0))
    await executors.kill(stage.look, stage.one)

    assert await stage.writer.landed(stage.one, 2, record(uuid, 0)) is True


async def test_a_flush_that_had_not_landed_when_it_was_asked_for_never_lands(stage: Stage) -> None:
    uuid = await stage.started()

    asked = [await stage.writer.landed(stage.one, 2, record(uuid, 0)) for _ in range(2)]
    with pytest.raises(asyncpg.UniqueViolationError, match="batches"):  # what was sent of it arrives late
        await stage.writer.flush(stage.one, 2, record(uuid, 0))
    late = await stage.steps(uuid)
    await stage.writer.flush(stage.one, 3, record(uuid, 0))

    assert asked == [False, False]
    assert late == []
    assert await stage.steps(uuid) == [0]


async def test_nothing_of_a_cancelled_workflow_is_flushed(stage: Stage) -> None:
    uuid = await stage.started()
    await workflows.cancel(stage.look, uuid, b"{}")

    with pytest.raises(Revoked) as revoked:
        await stage.writer.flush(stage.one, 2, record(uuid, 0))

    assert revoked.value.workflows == [uuid]
    assert await stage.steps(uuid) == []


async def test_a_message_that_is_gone_is_not_received(stage: Stage) -> None:
    uuid = await stage.started()
    batch = record(uuid, 0)
    batch.letters().received.append((uuid, 1_000_000))

    with pytest.raises(asyncpg.PostgresError, match="removed before it was received"):
        await stage.writer.flush(stage.one, 2, batch)

    assert await stage.steps(uuid) == []


# ------------------------------------------------------------------ transactions


async def test_a_transaction_commits_only_for_the_owner_the_epoch_and_a_workflow_that_runs(stage: Stage) -> None:
    uuid = await stage.started()
    session = await stage.session("a transaction")
    await checkpoints.prepare_checkpoint(session)
    await stage.look.execute("create table written (by text)")

    async def attempt(owner: int, epoch: int) -> bool:
        """Whether it commits."""
        await session.execute("begin")
        await session.execute("insert into written values ('somebody')")
        try:
            await session.execute(commit(uuid, owner, epoch))
        except asyncpg.NotNullViolationError:
            await session.execute("rollback")
            return False
        return True

    assert await attempt(stage.other, 1) is False
    assert await attempt(stage.one, 2) is False
    await stage.look.execute("update operon.workflows set status = 3")
    assert await attempt(stage.one, 1) is False
    await stage.look.execute("update operon.workflows set status = 0")
    assert await stage.look.fetchval("select count(*) from written") == 0
    assert await attempt(stage.one, 1) is True
    assert await stage.steps(uuid) == [0]
    await session.close()


async def test_a_takeover_waits_for_a_transaction_that_has_passed_its_fence(stage: Stage) -> None:
    uuid = await stage.started()
    session, heir = await stage.session("a transaction"), await stage.session("heir")
    await checkpoints.prepare_checkpoint(session)
    await session.execute("begin")
    await session.execute(commit(uuid, stage.one, 1).removesuffix("; commit"))
    await executors.kill(stage.look, stage.one)

    claimed = asyncio.create_task(workflows.claim(heir, stage.other, [uuid]))
    await until_blocked_or_done(stage, "heir", claimed)
    waited = not claimed.done()
    await session.execute("commit")
    (claim,) = await claimed

    assert waited, "it was claimed, and the transaction of its last owner could still commit"
    assert claim.epoch == 2
    assert await stage.steps(uuid) == [0]  # which the new owner reads
    for each in (session, heir):
        await each.close()


# ------------------------------------------------------------------ ownership


async def test_nothing_is_claimed_of_a_living_executor(stage: Stage) -> None:
    uuid = await stage.started()

    before = await workflows.claim(stage.look, stage.other, [uuid])
    await executors.kill(stage.look, stage.one)
    after = await workflows.claim(stage.look, stage.other, [uuid])

    assert before == []
    assert [(claim.workflow_uuid, claim.epoch) for claim in after] == [(uuid, 2)]


async def test_a_dead_executor_claims_nothing(stage: Stage) -> None:
    uuid = await stage.started()
    await executors.kill(stage.look, stage.one)
    await executors.kill(stage.look, stage.other)

    assert await workflows.claim(stage.look, stage.other, [uuid]) == []


async def test_what_was_cancelled_and_resumed_is_not_claimed_by_who_has_not_dropped_it(stage: Stage) -> None:
    uuid = await stage.started()
    await workflows.cancel(stage.look, uuid, b"{}")
    await workflows.resume(stage.look, uuid)

    assert await workflows.claim(stage.look, stage.one, [uuid]) == []
    await executors.forget_revoked(stage.look, stage.one, [uuid])
    (claim,) = await workflows.claim(stage.look, stage.one, [uuid])
    assert claim.epoch == 3


async def test_a_cancel_waits_for_a_flush_that_is_under_way_and_sees_the_child_that_it_starts(stage: Stage) -> None:
    uuid, child = await stage.started(), uuid4()
    in_the_way, canceller = await stage.session("in the way"), await stage.session("canceller")
    await in_the_way.execute("begin")
    await in_the_way.execute(IN_THE_WAY, uuid)
    batch = record(uuid, 0)
    batch.s_uuid, batch.s_name, batch.s_inputs = [child], ["unheard of"], [b"{}"]
    batch.s_parent, batch.s_parent_step = {0: uuid}, {0: 0}
    flush = asyncio.create_task(stage.writer.flush(stage.one, 2, batch))
    await until(lambda: stage.is_blocked("operon"))

    cancelled = asyncio.create_task(workflows.cancel(canceller, uuid, b"{}"))
    await until_blocked_or_done(stage, "canceller", cancelled)
    waited = not cancelled.done()
    await in_the_way.execute("rollback")
    await asyncio.gather(flush, cancelled, return_exceptions=True)

    assert waited, "the cancel returned, and a flush went on"
    assert set(cancelled.result()) == {uuid, child}
    assert await stage.steps(uuid) == [0]
    for session in (in_the_way, canceller):
        await session.close()


async def test_an_executor_that_has_renewed_since_the_look_is_not_declared_dead(stage: Stage) -> None:
    seen = await stage.lease_until(stage.one)
    await executors.renew(stage.look, stage.one, LEASE_SECONDS, False)

    assert await executors.declare_dead(stage.look, stage.one, seen) is False
    assert await executors.declare_dead(stage.look, stage.one, await stage.lease_until(stage.one)) is True


async def test_a_session_lock_from_before_the_last_start_of_the_server_says_nothing(stage: Stage) -> None:
    """Every lock is free after a restart, and no process is gone for that."""

    async def is_gone() -> bool:
        others = await executors.others(stage.look, stage.other)
        return next(other.gone for other in others if other.incarnation == stage.one)

    never_held = await is_gone()
    await stage.look.execute(LOCKED_AT, stage.one, "1 second")
    held_since = await is_gone()
    await stage.look.execute(LOCKED_AT, stage.one, "-1 second")
    held_before = await is_gone()

    assert (never_held, held_since, held_before) == (False, True, False)


# When its session lock was last known to be held, counted from the start of the server.
LOCKED_AT = """
update operon.executors set session_locked_at = pg_postmaster_start_time() + $2::text::interval where incarnation = $1
"""

# It has renewed its lease since it took its session lock, which it does at once.
RENEWED = "select session_locked_at is not null from operon.executors where incarnation = $1"

lease: list[Lease] = []
believed: list[bool] = []


@operon.communicator(retry=None)
async def believe(ctx: operon.CommunicatorContext) -> bool:
    believed.append(lease[-1].certain)
    return believed[-1]


async def test_no_communicator_is_called_while_the_lease_is_in_doubt() -> None:
    believed.clear()
    async with TestRuntime(__name__) as runtime:
        lease.append(runtime.executor.incarnation.lease)
        await until(lambda: runtime.fetchval(RENEWED, lease[-1].incarnation))  # the next one is two seconds away
        lease[-1]._until = 0.0  # pyright: ignore[reportPrivateUsage] - as if no renewal had gone through

        assert await believe(runtime.context) is True

    assert believed == [True]


@operon.communicator(retry=None)
def believe_in_a_thread(ctx: operon.CommunicatorContext) -> bool:
    believed.append(lease[-1].certain)
    return believed[-1]


async def test_no_call_in_a_thread_is_made_that_was_certain_only_before_it_waited_for_one() -> None:
    believed.clear()
    async with TestRuntime(__name__) as runtime:
        incarnation = runtime.executor.incarnation
        lease.append(incarnation.lease)
        await until(lambda: runtime.fetchval(RENEWED, lease[-1].incarnation))
        incarnation.threads.total_tokens = 1
        async with incarnation.threads:
            call = asyncio.create_task(believe_in_a_thread(runtime.context))
            await until(lambda: asyncio.sleep(0, incarnation.threads.statistics().tasks_waiting == 1))
            lease[-1]._until = 0.0  # pyright: ignore[reportPrivateUsage] - as if no renewal had gone through
        await until(lambda: asyncio.sleep(0, incarnation.threads.statistics().borrowed_tokens == 0))
        lease[-1].nudge()

        assert await call is True

    assert believed == [True]


async def until_blocked_or_done(stage: Stage, name: str, task: asyncio.Task[Any]) -> None:
    """Waits until a session waits for another one, or has not had to."""

    async def happened() -> bool:
        return task.done() or await stage.is_blocked(name)

    await until(happened)


# ------------------------------------------------------------------ parking


async def test_whoever_parks_again_and_finds_what_it_waits_for_is_not_left_parked(stage: Stage) -> None:
    """It was rung for before it left memory, and looked once more. Left parked, nothing would ever wake it again."""
    reader, target = await stage.started(), await stage.started()
    first, second = Batch(), Batch()
    for batch in (first, second):
        batch.letters().parks[reader] = Park(reader, WaitKind.EVENT, "event", (), None, [(target, "key")])
    second.checkpoint(target, 0, SET_EVENT, "key", b"", 0.0)
    second.letters().events[target, "key"] = (0, b'"value"')

    await stage.writer.flush(stage.one, 2, first)
    parked = await stage.look.fetchval(WAIT, reader)
    await stage.writer.flush(stage.one, 3, second)

    assert parked == WaitKind.EVENT
    assert second.letters().parks[reader].parked is False
    assert await stage.look.fetchval(WAIT, reader) is None
    assert await stage.look.fetchval("select count(*) from operon.waits") == 0


WAIT = "select wait_kind from operon.workflows where workflow_uuid = $1"
