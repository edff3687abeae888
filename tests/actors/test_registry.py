"""Unique names for what is alive."""

from __future__ import annotations

from typing import Never

import pytest

from actors import ActorDead, NameTaken, Ref, Registry, Supervisor
from tests.actors.stage import Stage


async def test_a_name_finds_its_ref_until_that_ends() -> None:
    stage = Stage()
    registry = Registry[Ref[Never]]()
    async with Supervisor("test") as root:
        ref = await root.start(stage.child("a"))
        registry.register(ref)
        registry.register(ref, "other name")

        assert registry.find("a") is ref
        assert list(registry) == ["a", "other name"]
        await root.stop("a")

    assert registry.find("a") is None
    assert len(registry) == 0


async def test_a_name_is_taken_while_its_owner_lives() -> None:
    stage = Stage()
    registry = Registry[Ref[Never]]()
    async with Supervisor("test") as root:
        first, second = [await root.start(stage.child(name)) for name in "ab"]
        registry.register(first, "name")

        with pytest.raises(NameTaken, match="'name' is registered already"):
            registry.register(second, "name")
        await root.stop("a")

        registry.register(second, "name")
        assert registry.find("name") is second


async def test_the_dead_cannot_be_registered() -> None:
    stage = Stage()
    async with Supervisor("test") as root:
        ref = await root.start(stage.child("a"))

    with pytest.raises(ActorDead):
        Registry[Ref[Never]]().register(ref)


async def test_the_end_of_a_former_owner_leaves_the_name_to_the_present_one() -> None:
    stage = Stage()
    registry = Registry[Ref[Never]]()
    async with Supervisor("test") as root:
        former, present = [await root.start(stage.child(name)) for name in "ab"]
        registry.register(former, "name")
        registry.unregister("name")
        registry.register(present, "name")

        await root.stop("a")

        assert "name" in registry
