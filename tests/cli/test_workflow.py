"""`operon workflow`: what is in the database, by page and by filter, and nothing that was meant to stay masked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import asyncpg
import pytest

import operon
from operon.database import testbed
from operon.database.inspect import SQL, looking
from operon.testing import TestRuntime
from tests.cli.calls import Result, call

HOSTILE = "Ada\x1b[2J\u202e"


@operon.communicator(retry=None)
async def refuse(ctx: operon.CommunicatorContext, name: str) -> None:
    raise ValueError(f"no {name}")


@operon.transaction
async def add(tx: operon.TransactionContext, a: int, b: int) -> int:
    total: int = await tx.client.fetchval("select $1::int + $2::int", a, b)
    return total


@operon.workflow
async def sums(ctx: operon.WorkflowContext, name: str, secret: str = "hunter2") -> dict[str, Any]:
    total = await add(ctx, 2, 3)
    try:
        await refuse(ctx, name)
    except ValueError:
        total += 1
    return {"total": total, "secret": secret}


@operon.workflow
async def fails(ctx: operon.WorkflowContext, name: str) -> None:
    await refuse(ctx, name)


@pytest.fixture
async def runtime() -> AsyncIterator[TestRuntime]:
    async with TestRuntime(__name__, check_replay=False) as runtime:  # rows of another making
        yield runtime


async def ask(runtime: TestRuntime, *arguments: str) -> Result:
    return await call("workflow", *arguments, "--database-url", runtime.database_url)


async def listed(runtime: TestRuntime, *arguments: str) -> list[UUID]:
    return [UUID(one["workflow_uuid"]) for one in (await ask(runtime, "list", "--json", *arguments)).json]


async def succeeded(runtime: TestRuntime, name: str = "Ada", user: str | None = None) -> UUID:
    handle = await sums(runtime.app.context(user=user), name)
    await handle.get_result(timeout=60)
    await handle.get_status()  # waits for the record of the end
    return UUID(str(handle.workflow_uuid))


async def failed(runtime: TestRuntime, name: str = "Ada") -> UUID:
    handle = await fails(runtime.context, name)
    with pytest.raises(ValueError, match="no"):
        await handle.get_result(timeout=60)
    await handle.get_status()
    return UUID(str(handle.workflow_uuid))


async def test_workflows_are_listed_newest_first_and_page_by_page(runtime: TestRuntime) -> None:
    made = [await succeeded(runtime) for _ in range(5)]
    newest_first = made[::-1]

    everything = await listed(runtime)
    first = await listed(runtime, "--limit", "2")
    second = await listed(runtime, "--limit", "2", "--before", str(first[-1]))
    third = await listed(runtime, "--limit", "2", "--before", str(second[-1]))

    assert everything == newest_first
    assert [first, second, third] == [newest_first[:2], newest_first[2:4], newest_first[4:]]


async def test_workflows_of_one_moment_are_neither_lost_nor_listed_twice(runtime: TestRuntime) -> None:
    made = {await succeeded(runtime) for _ in range(5)}
    await runtime.execute("update operon.workflows set created_at = '2024-02-29'")

    pages = [await listed(runtime, "--limit", "2")]
    while len(pages[-1]) == 2:
        pages.append(await listed(runtime, "--limit", "2", "--before", str(pages[-1][-1])))

    found = [one for page in pages for one in page]
    assert len(found) == 5
    assert set(found) == made


async def test_filters_leave_what_fits_all_of_them(runtime: TestRuntime) -> None:
    good, ada, bad = await succeeded(runtime), await succeeded(runtime, user="ada"), await failed(runtime)
    old = await succeeded(runtime)
    await runtime.execute(
        "update operon.workflows set created_at = now() - interval '3 hours' where workflow_uuid = $1", old
    )

    assert await listed(runtime, "--status", "error") == [bad]
    assert await listed(runtime, "--status", "ERROR", "--status", "SUCCESS") == [bad, ada, good, old]
    assert await listed(runtime, "--status", "DEAD") == []
    assert await listed(runtime, "--name", "sums") == [ada, good, old]
    assert await listed(runtime, "--name", "sum") == []
    assert await listed(runtime, "--user", "ada") == [ada]
    assert await listed(runtime, "--since", "2h") == [bad, ada, good]
    assert await listed(runtime, "--since", "1d") == [bad, ada, good, old]
    assert await listed(runtime, "--since", "2099-01-01") == []
    assert await listed(runtime, "--since", "2h", "--name", "sums", "--status", "success", "--user", "ada") == [ada]


async def test_a_list_for_people_says_how_to_go_on(runtime: TestRuntime) -> None:
    older, newer = await succeeded(runtime), await failed(runtime)
    await runtime.execute(
        "update operon.workflows set authenticated_user = $2 where workflow_uuid = $1", older, HOSTILE
    )

    page, everything = await ask(runtime, "list", "--limit", "1"), await ask(runtime, "list", "--limit", "3")

    assert page.rows[0][0] == str(newer)
    assert page.rows[0][-1] == "fails"
    assert page.err == f"There may be more: --before {newer}\n"
    assert everything.err == ""
    assert "\x1b" not in everything.out
    assert f"{older}  SUCCESS" in everything.out
    assert "Ada\\x1b[2J\\u202e" in everything.out


async def test_a_workflow_is_shown_without_its_values_unless_they_are_asked_for(runtime: TestRuntime) -> None:
    made = await succeeded(runtime, user="ada")

    shown, told = await ask(runtime, "show", str(made)), await ask(runtime, "show", str(made), "--json")
    values = await ask(runtime, "show", str(made), "--json", "--values")

    assert "hunter2" not in shown.out + told.out
    fields = dict(line.split(maxsplit=1) for line in shown.out.splitlines())
    assert (fields["workflow_uuid"], fields["status"], fields["user"]) == (str(made), "SUCCESS", "ada")
    assert told.json["name"] == "sums"
    assert told.json["error"] is None
    assert values.json["output"] == {"total": 6, "secret": "hunter2"}
    assert values.json["inputs"]["name"] == "Ada"


async def test_an_error_is_shown_with_its_class_and_asked_for_with_its_traceback(runtime: TestRuntime) -> None:
    made = await failed(runtime, HOSTILE)

    shown, told = await ask(runtime, "show", str(made)), await ask(runtime, "show", str(made), "--json")
    values = await ask(runtime, "show", str(made), "--json", "--values")

    assert "error          ValueError: no Ada\\x1b[2J\\u202e" in shown.out
    assert told.json["error"] == {"type": "ValueError", "message": f"no {HOSTILE}"}
    assert "in refuse" in values.json["error"]["traceback"]


async def test_the_steps_of_a_workflow_are_listed_in_order(runtime: TestRuntime) -> None:
    made = await succeeded(runtime)

    told = (await ask(runtime, "steps", str(made), "--json")).json
    values = (await ask(runtime, "steps", str(made), "--json", "--values")).json
    shown = await ask(runtime, "steps", str(made), "--values")
    page, rest = (
        await ask(runtime, "steps", str(made), "--limit", "1"),
        await ask(runtime, "steps", str(made), "--after", "0"),
    )

    assert [(one["step"], one["kind"], one["name"]) for one in told] == [
        (0, "transaction", "add"),
        (1, "communicator", "refuse"),
    ]
    assert "output" not in told[0]
    assert values[0]["output"] == 5
    assert told[1]["error"] == {"type": "ValueError", "message": "no Ada"}
    assert shown.rows[0][-1] == "5"
    assert shown.out.splitlines()[-1].endswith("ValueError: no Ada")
    assert page.err == "There may be more: --after 0\n"
    assert [row[0] for row in rest.rows] == ["1"]


@pytest.mark.parametrize("words", [["show"], ["steps"], ["list", "--before"]], ids=" ".join)
async def test_a_workflow_that_is_not_there_is_one_message(runtime: TestRuntime, words: list[str]) -> None:
    missing = await ask(runtime, *words, str(UUID(int=7)))

    assert missing.code == 1
    assert missing.out == ""
    assert missing.err.startswith(f"operon: there is no workflow {UUID(int=7)}\nHint: ")


async def test_a_workflow_without_steps_has_none(runtime: TestRuntime) -> None:
    made = await succeeded(runtime)
    await runtime.execute("delete from operon.checkpoints")

    assert (await ask(runtime, "steps", str(made), "--json")).json == []


async def test_a_payload_that_nobody_can_read_is_shown_as_it_is(runtime: TestRuntime) -> None:
    made = await failed(runtime)
    await runtime.execute("update operon.workflows set inputs = '\\xff1b'::bytea, error = 'broken'::bytea")

    shown = await ask(runtime, "show", str(made), "--values")

    assert "inputs         \\xff\\x1b" in shown.out
    assert "error          broken" in shown.out


async def test_a_database_without_the_schema_is_one_message(empty: str) -> None:
    failure = await call("workflow", "list", "--database-url", empty)

    assert failure.code == 1
    assert "the schema is not there" in failure.err
    assert "operon migrate" in failure.err


async def test_a_look_changes_nothing(runtime: TestRuntime) -> None:
    made = await succeeded(runtime)
    before = await runtime.fetch("select * from operon.workflows")

    for words in (["list"], ["show", str(made)], ["steps", str(made)]):
        await ask(runtime, *words)

    assert await runtime.fetch("select * from operon.workflows") == before
    async with looking(runtime.database_url) as connection:
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            await connection.execute("update operon.workflows set name = 'other'")


async def test_a_page_of_many_workflows_is_one_pass_without_a_sort_of_them_all(database: str) -> None:
    await testbed.execute(
        database,
        "insert into operon.workflows (workflow_uuid, created_at, status, name, version, inputs, output) "
        "select gen_random_uuid(), now() - make_interval(secs => i), (i > 50)::int, 'op', '0', '[]', "
        "case when i > 50 then '1'::bytea end from generate_series(1, 100000) i",
    )
    await testbed.execute(database, "vacuum analyze operon.workflows")

    page = SQL["page"]
    for position, value in enumerate(("null", "null", "null", "null", "null", "null", "20"), 1):
        page = page.replace(f"${position}", value)  # a first page, as it is planned for its values
    rows = await testbed.fetch(database, f"explain (analyze, costs off, timing off) {page}")

    plan = "\n".join(row[0] for row in rows)
    assert "external" not in plan  # a sort on disk
    assert "top-N" in plan


@operon.workflow
async def listens(ctx: operon.WorkflowContext) -> str:
    return str(await ctx.recv())


async def test_a_workflow_is_cancelled_and_resumed_from_the_command_line(runtime: TestRuntime) -> None:
    handle = await listens(runtime.context)
    uuid = str(handle.workflow_uuid)

    cancelled = await ask(runtime, "cancel", uuid)
    with pytest.raises(operon.WorkflowCancelledError):
        await handle.get_result()
    again = await ask(runtime, "cancel", uuid)
    resumed = await ask(runtime, "resume", uuid, "--json")
    await runtime.context.send(uuid, "hello")

    assert cancelled.out == f"cancelled {uuid}\n"
    assert again.code == 1
    assert "is CANCELLED" in again.err
    assert resumed.json == {"resumed": [uuid]}
    assert await handle.get_result() == "hello"


async def test_an_unknown_workflow_is_neither_cancelled_nor_resumed(runtime: TestRuntime) -> None:
    for action in ("cancel", "resume"):
        refused = await ask(runtime, action, "01890000-0000-7000-8000-000000000000")

        assert refused.code == 1
        assert "there is no workflow" in refused.err
