"""Lets time pass at once: the clock of the private database is put forward, from one deadline to the next.

Nothing that is due on the way is skipped: the clock stops at each deadline (a sleep, the timeout of a recv or of a
workflow) until every workflow has come to rest again, so one that sleeps a day three times wakes three times in three
days. To rest is to wait durably or between the attempts of a communicator, or to have ended. What is measured by other
clocks goes on as ever: `timeout_seconds` of a communicator, `timeout` of a handle, `asyncio.sleep`.
"""

from __future__ import annotations

import asyncio

from operon.database import executors, testbed, workflows
from operon.errors import InvocationError, OperonError
from operon.runtime.executor import Executor

# For steps that are under way: as long as somebody may wait for a loaded machine.
REST_SECONDS = 30.0
LOOK_SECONDS = 0.001
# Deadlines are rounded on their way through the database; a clock that is a little further has met them.
PAST_SECONDS = 0.001


async def rest(executor: Executor, timeout: float = REST_SECONDS) -> None:
    """Waits until every workflow waits durably or has ended. OperonError if one does not, in so many seconds."""
    begun = asyncio.get_running_loop().time()
    while not executor.resting:
        if asyncio.get_running_loop().time() - begun > timeout:
            busy = [actor for actor in executor.incarnation.live.values() if not actor.resting]
            named = ", ".join(f"{actor.operation.name} {actor.workflow_uuid} ({actor.journal!r})" for actor in busy[:5])
            raise OperonError(
                f"after {timeout:g} s there is still something under way: {named or executor.incarnation!r}",
                hint="time does not pass for a step that runs: let it end, or put a double in its place",
            )
        await asyncio.sleep(LOOK_SECONDS)


async def advance(executor: Executor, seconds: float) -> None:
    """Lets so much time pass. When it returns, all that was due has been woken, and has come to rest again."""
    if not seconds > 0:
        raise InvocationError(f"time cannot be advanced by {seconds:g} s", hint="it only goes forward: days=3")
    await rest(executor)
    pool = executor.incarnation.look_ups
    moment = await pool.ask(executors.clock)
    end = moment + seconds
    while moment < end:
        moment = min(end, (await next_deadline(executor, moment) or end) + PAST_SECONDS)
        async with pool.connection() as connection:
            left = moment - await executors.clock(connection)
            if left > 0:
                await testbed.move_clock(connection, left)
        await executor.incarnation.look_at_the_clock()
        await rest(executor)


async def next_deadline(executor: Executor, moment: float) -> float | None:
    """The first deadline after a moment, of a workflow in memory or of a parked one."""
    incarnation = executor.incarnation
    parked = await incarnation.look_ups.ask(lambda connection: workflows.next_wake(connection, moment))
    deadlines = [deadline for deadline in (incarnation.timers.after(moment), parked) if deadline is not None]
    return min(deadlines, default=None)
