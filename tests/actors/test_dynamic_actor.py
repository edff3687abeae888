"""Actors by the thousand, each with a Ref of its own."""

from __future__ import annotations

import pytest

from actors import Actor, ActorDead, Backoff, Crashed, DynamicSupervisor, Restart, Shutdown, spawn_actor
from actors.testing import until_restarted
from examples.counter import Add, Counter, Total


async def test_an_actor_can_be_told_things_from_the_moment_it_is_spawned() -> None:
    async with DynamicSupervisor("counters") as counters:
        refs = [spawn_actor(counters, str(number), Counter) for number in range(1_000)]
        for ref in refs:
            ref.tell_nowait(Add(2))

        assert [await ref.ask(Total) for ref in refs] == [2] * 1_000


async def test_a_crash_keeps_the_mailbox() -> None:
    async with DynamicSupervisor("counters", backoff=Backoff(0, 0)) as counters:
        ref = spawn_actor(counters, "a", Counter, restart=Restart.PERMANENT)
        for amount in (1, -1, 5):
            ref.tell_nowait(Add(amount))

        assert await ref.ask(Total) == 5
        await until_restarted(counters, "a")


async def test_stopping_ends_the_actor_and_frees_its_name() -> None:
    async with DynamicSupervisor("counters") as counters:
        ref = spawn_actor(counters, "a", Counter, restart=Restart.PERMANENT)
        ref.stop()

        assert await ref.wait() == Shutdown()
        assert "a" not in counters
        with pytest.raises(ActorDead):
            await ref.ask(Total)


async def test_a_temporary_actor_ends_with_its_first_crash() -> None:
    async with DynamicSupervisor("counters") as counters:
        ref = spawn_actor(counters, "a", Counter, restart=Restart.TEMPORARY)
        ref.tell_nowait(Add(-1))

        assert isinstance(await ref.wait(), Crashed)


async def test_a_start_hook_that_fails_is_a_crash() -> None:
    class Broken(Actor[str]):
        async def started(self) -> None:
            raise OSError

    async with DynamicSupervisor("broken") as broken:
        assert isinstance(await spawn_actor(broken, "a", Broken, restart=Restart.TEMPORARY).wait(), Crashed)
