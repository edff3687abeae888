"""Promise: a database that goes away while an application starts ends the start with an error that says so."""

from __future__ import annotations

import types

import pytest

import operon
from operon.errors import DatabaseUnavailable
from operon.testing import TestRuntime


async def test_a_database_that_goes_away_at_the_start_is_an_error_that_says_so() -> None:
    @operon.initializer
    async def cut(ctx: operon.InitializerContext) -> None:
        await ctx.client.execute("select pg_terminate_backend(pg_backend_pid())")

    module = types.ModuleType("cut")
    vars(module)["cut"] = cut

    with pytest.raises(DatabaseUnavailable, match="went away at the start"):
        async with TestRuntime(module):
            pass


async def test_an_initializer_that_fails_by_itself_ends_the_start_with_its_own_error() -> None:
    @operon.initializer
    async def broken(ctx: operon.InitializerContext) -> None:
        raise LookupError("there is no such file")

    module = types.ModuleType("broken")
    vars(module)["broken"] = broken

    with pytest.raises(LookupError, match="there is no such file"):
        async with TestRuntime(module):
            pass
