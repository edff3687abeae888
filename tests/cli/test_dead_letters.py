"""`operon dead-letters`: what nobody received is looked at, sent again once, or purged."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

import pytest

import operon
from operon import WorkflowFinishedError
from operon.testing import TestRuntime
from tests.cli.calls import Result, call


@operon.workflow
async def collects(ctx: operon.WorkflowContext, count: int) -> list[str]:
    return [await ctx.recv("words") for _ in range(count)]


@pytest.fixture
async def runtime() -> AsyncIterator[TestRuntime]:
    async with TestRuntime(__name__, check_replay=False) as runtime:  # the dead are made by hand
        yield runtime


async def ask(runtime: TestRuntime, *arguments: str) -> Result:
    return await call("dead-letters", *arguments, "--database-url", runtime.database_url)


async def a_dead_letter(runtime: TestRuntime, word: str) -> UUID:
    """Sends a word to a workflow that has ended."""
    handle = await collects(runtime.context, 0)
    await handle.get_result()
    await handle.get_status()
    with pytest.raises(WorkflowFinishedError):
        await runtime.context.send(handle.workflow_uuid, word, "words")
    return handle.workflow_uuid


async def test_the_dead_are_listed_newest_first_and_without_their_text(runtime: TestRuntime) -> None:
    first, second = await a_dead_letter(runtime, "secret"), await a_dead_letter(runtime, "word")

    listed = await ask(runtime, "list", "--json")
    with_values = await ask(runtime, "list", "--json", "--values", "--to", str(first))
    table = await ask(runtime, "list")

    assert [letter["destination"] for letter in listed.json] == [str(second), str(first)]
    assert {(letter["reason"], letter["topic"], letter["status"]) for letter in listed.json} == {
        ("finished", "words", "SUCCESS")
    }
    assert all("body" not in letter for letter in listed.json)
    assert [letter["body"] for letter in with_values.json] == ['"secret"']
    assert "secret" not in table.out
    assert str(first) in table.out


async def test_a_page_goes_on_where_the_last_one_ended(runtime: TestRuntime) -> None:
    first, second = await a_dead_letter(runtime, "a"), await a_dead_letter(runtime, "b")

    page = await ask(runtime, "list", "--json", "--limit", "1")
    rest = await ask(runtime, "list", "--json", "--before", str(page.json[0]["sequence"]))

    assert [letter["destination"] for letter in (*page.json, *rest.json)] == [str(second), str(first)]


async def test_a_letter_to_one_that_goes_on_again_is_sent_once(runtime: TestRuntime) -> None:
    handle = await collects(runtime.context, 1)
    await handle.cancel()
    with pytest.raises(WorkflowFinishedError):
        await runtime.context.send(handle.workflow_uuid, "late", "words")
    sequence = str((await ask(runtime, "list", "--json")).json[0]["sequence"])

    too_early = await ask(runtime, "requeue", str(handle.workflow_uuid), sequence)
    await handle.resume()
    sent = await ask(runtime, "requeue", str(handle.workflow_uuid), sequence)
    again = await ask(runtime, "requeue", str(handle.workflow_uuid), sequence)

    assert await handle.get_result(timeout=60) == ["late"]
    assert (too_early.code, sent.code, again.code) == (1, 0, 1)
    assert "has ended" in too_early.err
    assert "no dead letter" in again.err or "has ended" in again.err
    assert (await ask(runtime, "list", "--json")).json == []


async def test_only_what_is_old_enough_is_purged_and_only_when_somebody_says_yes(runtime: TestRuntime) -> None:
    await a_dead_letter(runtime, "a")

    unsure = await ask(runtime, "purge", "--until", "2100-01-01")
    young = await ask(runtime, "purge", "--until", "1h", "--yes")
    left = (await ask(runtime, "list", "--json")).json
    purged = await ask(runtime, "purge", "--until", "2100-01-01", "--reason", "finished", "--yes")

    assert unsure.code == 1
    assert young.out == "purged 0\n"
    assert len(left) == 1
    assert purged.out == "purged 1\n"
    assert (await ask(runtime, "list", "--json")).json == []
