"""For tests of applications: a private database each, and crashes on demand. Nothing is faked: it is the real runtime.

async def test_checkout_charges_once_wherever_it_crashes() -> None:
    async with TestRuntime(tickets) as runtime:
        async for _crash in runtime.crash_everywhere():     # no crash, then after checkpoint 1, 2, 3, ...
            handle = await checkout(runtime.context, "Hamlet", "A1", card="4242")

            assert await handle.get_result() is True
            assert len(bank.keys) == 1                      # one key, however many attempts

With pytest, `operon_runtime` is such a runtime as a fixture: see `pytest_operon`, and docs/testing.md.
"""

from operon.testing.runtime import FOLDER as FOLDER
from operon.testing.runtime import SERVER as SERVER
from operon.testing.runtime import RepeatableUuids as RepeatableUuids
from operon.testing.runtime import TestRuntime
from operon.testing.runtime import with_database as with_database

__all__ = ["TestRuntime"]
