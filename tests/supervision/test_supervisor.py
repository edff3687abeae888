"""`GET /operon/supervisor`: the tree over all executors, as one of them tells it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import msgspec
import pytest

import operon
from operon.database import supervision
from operon.http.supervisor import PATH
from operon.runtime.events import Kind
from operon.runtime.portrait import BYTES_MAX, encoded
from operon.runtime.pulse import SAMPLES, LoopLag
from operon.testing import TestRuntime
from tests.supervision.facts import get, until_event, until_said

FILL = """
insert into operon.workflows (
    workflow_uuid, name, version, inputs, owner, wait_kind, wait_what, wait_topics, wait_since
)
select gen_random_uuid(), 'waits', '', '{{}}', {owner}, 0, 'recv gate', '{{gate}}', now()
from generate_series(1, {count})
"""


@operon.workflow
async def waits(ctx: operon.WorkflowContext) -> None:
    await ctx.recv("gate", 3600)


@operon.workflow(max_live=5)
async def sleeps(ctx: operon.WorkflowContext) -> None:
    await ctx.sleep(3600)


@pytest.fixture
async def runtime() -> AsyncIterator[TestRuntime]:
    async with TestRuntime(__name__, check_replay=False, park_after_seconds=3600, heartbeat_seconds=0.2) as runtime:
        yield runtime


def own(answer: Any) -> Any:
    """What the executor that answers says of itself."""
    (found,) = [executor for executor in answer["executors"] if executor["own"]]
    return found


async def test_the_tree_has_every_supervisor_and_child_with_its_state_and_budget(runtime: TestRuntime) -> None:
    answer = await get(runtime)

    tree = own(answer)["tree"]
    number = runtime.executor.incarnation.number
    assert (tree["name"], tree["kind"], tree["strategy"], tree["state"]) == (
        "operon",
        "supervisor",
        "one_for_one",
        "running",
    )
    assert tree["intensity"] == {"used": 0, "allowed": 5, "window_seconds": 60.0}
    executor = next(child for child in tree["children"] if child["name"] == f"executor-{number}")
    assert [child["name"] for child in executor["children"]] == [
        "committer",
        "workflows",
        "notifier",
        "activator",
        "parker",
        "recovery",
    ]
    assert {child["state"] for child in executor["children"]} == {"running"}
    assert executor["children"][0]["since"] <= answer["at"]


async def test_each_name_has_a_supervisor_of_its_own_the_one_with_most_workflows_first(runtime: TestRuntime) -> None:
    for _ in range(3):
        await waits(runtime.context)
    await sleeps(runtime.context)
    await runtime.settled()

    tree = own(await get(runtime))["tree"]

    executor = next(child for child in tree["children"] if child["name"].startswith("executor-"))
    workflows = executor["children"][1]
    assert (workflows["kind"], workflows["strategy"], workflows["running"]) == ("supervisor", "one_for_one", 2)
    names = workflows["children"]
    assert [(name["name"], name["running"], name.get("allowed")) for name in names] == [
        ("waits", 3, None),
        ("sleeps", 1, 5),
    ]
    assert {(name["kind"], name["state"], name["restart"]) for name in names} == {("name", "running", "permanent")}


async def test_an_executor_says_where_it_is_and_how_it_does(runtime: TestRuntime) -> None:
    await waits(runtime.context)
    await runtime.settled()

    executor = own(await get(runtime))

    assert executor["state"] == "alive"
    assert executor["name"] == f"{executor['host']}:{executor['pid']}"
    assert (executor["live"], executor["waiting"], executor["parked"], executor["ready"]) == (1, 1, 0, 0)
    assert executor["rss_bytes"] > 1_000_000
    assert executor["lease_age_ms"] < 10_000
    assert executor["listener"]["state"] in ("healthy", "doubtful")
    assert set(executor["operations"]) == {"waits", "sleeps"}
    assert executor["snapshot_age_ms"] == 0


async def test_what_a_live_workflow_waits_for_and_since_when_is_told_with_its_mailbox(runtime: TestRuntime) -> None:
    handle = await waits(runtime.context)
    await runtime.settled()
    for number in range(3):
        await runtime.context.send(handle.workflow_uuid, number, "other")
    await runtime.settled()

    (actor,) = own(await get(runtime))["actors"]

    assert actor["workflow_uuid"] == str(handle.workflow_uuid)
    assert (actor["name"], actor["state"], actor["waits_for"], actor["step"]) == ("waits", "waiting", "recv gate", 0)
    assert actor["mailbox"]["n"] == 3
    assert actor["since"] is not None
    assert actor["why"]["code"] == "recv"
    assert "3 messages on other topics are there. Nothing is wrong." in actor["why"]["text"]


async def test_the_pages_of_live_workflows_have_each_of_them_once(runtime: TestRuntime) -> None:
    handles = [await waits(runtime.context) for _ in range(7)]
    await runtime.settled()

    pages: list[list[str]] = []
    after: str | None = ""
    while after is not None:
        executor = own(await get(runtime, limit=3, **({"after": after} if after else {})))
        pages.append([actor["workflow_uuid"] for actor in executor["actors"]])
        after = executor["actors_next"]

    assert [len(page) for page in pages] == [3, 3, 1]
    assert sorted(uuid for page in pages for uuid in page) == sorted(str(handle.workflow_uuid) for handle in handles)


async def test_a_part_that_crashed_is_told_of_with_its_error_and_what_is_left_of_the_budget(
    runtime: TestRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    activator = runtime.executor.incarnation.activator

    def broken() -> Any:
        monkeypatch.undo()
        raise LookupError("api_key=hunter2 is gone")

    monkeypatch.setattr(activator, "_work", broken)
    activator.ring()
    await until_event(runtime, Kind.RESTARTED)

    tree = own(await get(runtime))["tree"]

    executor = next(child for child in tree["children"] if child["name"].startswith("executor-"))
    child = next(child for child in executor["children"] if child["name"] == "activator")
    assert executor["intensity"]["used"] == 1
    assert (child["state"], child["restarts"], child["last_exit"]) == ("running", 1, "crashed: LookupError")
    assert child["last_error"] == "api_key=*** is gone"


async def test_a_name_a_uuid_and_a_depth_look_at_a_part(runtime: TestRuntime) -> None:
    await waits(runtime.context)
    asleep = await sleeps(runtime.context)
    await runtime.settled()

    by_name = own(await get(runtime, name="sleeps"))
    by_uuid = await get(runtime, uuid=asleep.workflow_uuid)
    flat = own(await get(runtime, depth=0))
    shallow = own(await get(runtime, depth=1))

    assert [actor["name"] for actor in by_name["actors"]] == ["sleeps"]
    assert [actor["workflow_uuid"] for actor in own(by_uuid)["actors"]] == [str(asleep.workflow_uuid)]
    assert by_uuid["workflow"]["why"]["code"] == "sleep"
    assert "children" not in flat["tree"]
    assert all("children" not in child for child in shallow["tree"]["children"])


async def test_a_workflow_that_is_nowhere_is_none(runtime: TestRuntime) -> None:
    answer = await get(runtime, uuid=UUID(int=1))

    assert answer["workflow"] is None


@pytest.mark.parametrize("query", ["depth=deep", "limit=1000", "uuid=1", "colour=red", "executor=0"])
async def test_a_query_that_is_not_understood_is_refused(runtime: TestRuntime, query: str) -> None:
    client = runtime.app.quart.test_client()

    answer = await client.get(f"{PATH}?{query}", scope_base={"client": ("127.0.0.1", 1)})

    assert answer.status_code == 400
    assert (await answer.get_json())["code"] == "bad_request"


async def test_any_executor_tells_what_the_others_last_said_of_themselves(runtime: TestRuntime) -> None:
    async with second(runtime) as other:
        handle = await waits(other.context())
        number = other.executor.incarnation.number
        await until_said(runtime, number, lambda said: said.live == 1 and said.actors)

        answer = await get(runtime, executor=number)

        (executor,) = answer["executors"]
        assert (executor["own"], executor["state"], executor["live"]) == (False, "alive", 1)
        assert executor["snapshot_age_ms"] >= 0
        assert executor["tree"]["name"] == "operon"
        assert [actor["workflow_uuid"] for actor in executor["actors"]] == [str(handle.workflow_uuid)]
        assert executor["actors_omitted"] == 0


async def test_an_executor_that_is_gone_is_told_of_for_a_while(runtime: TestRuntime) -> None:
    number = runtime.executor.incarnation.number
    await runtime.crash()

    answer = await get(runtime)

    dead = next(executor for executor in answer["executors"] if executor["incarnation"] == number)
    assert dead["state"] == "dead"
    assert dead["died_at"] is not None
    assert own(answer)["incarnation"] != number


async def test_an_executor_whose_lease_is_old_is_suspect(runtime: TestRuntime) -> None:
    await runtime.execute(
        "insert into operon.executors (host, pid, version, lease_until) values ('late', 7, '0', now() + interval '2 s')"
    )

    answer = await get(runtime)

    late = next(executor for executor in answer["executors"] if executor["host"] == "late")
    assert (late["state"], late["tree"]) == ("suspect", None)


async def test_what_an_executor_says_goes_along_with_its_heartbeat_and_costs_no_commit(runtime: TestRuntime) -> None:
    number = runtime.executor.incarnation.number
    query = (
        "select e.xmin::text = s.xmin::text from operon.executors e join operon.executor_snapshots s "
        "on s.executor = e.incarnation where e.incarnation = $1"
    )

    async with asyncio.timeout(60):
        while not await runtime.fetchval(query, number):  # noqa: ASYNC110 - no bell rings
            await asyncio.sleep(0.02)


async def test_what_an_executor_says_is_bounded(runtime: TestRuntime) -> None:
    said = runtime.executor.pulse.portrait()
    actor = supervision.LiveActor(UUID(int=1), "n" * 1000, waits_for="w" * 1000)
    large = msgspec.structs.replace(said, actors=(actor,) * 100, names=("name" * 1000,) * 50)

    body = encoded(large)

    assert len(body) <= BYTES_MAX
    read = supervision.read(body)
    assert read is not None
    assert read.actors_omitted == said.actors_omitted + 100
    assert read.names_omitted == 50


async def test_what_a_newer_executor_says_is_left_out() -> None:
    assert supervision.read(b'{"at": "yesterday"}') is None


async def test_without_the_database_an_executor_tells_of_itself_alone(
    runtime: TestRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    await waits(runtime.context)
    await runtime.settled()

    def away(*_: Any, **__: Any) -> Any:
        raise ConnectionRefusedError

    monkeypatch.setattr(supervision, "executors", away)
    answer = await get(runtime)

    assert answer["database"]["reachable"] is False
    assert answer["workflows"] is None
    executor = own(answer)
    assert executor["live"] == 1
    assert executor["actors"][0]["why"]["code"] == "database"


@pytest.mark.parametrize("count", [100_000, pytest.param(1_000_000, marks=pytest.mark.long)])
async def test_however_many_are_parked_no_table_is_read_and_the_number_is_an_estimate(count: int) -> None:
    async with TestRuntime(__name__, check_replay=False, notify="off") as runtime:
        await runtime.execute(FILL.format(owner=runtime.executor.incarnation.number, count=count))
        await runtime.execute("analyze operon.workflows")

        async with runtime.executor.look_ups.connection() as connection:
            plans = [await read_by(connection, name) for name in ("executors", "numbers", "suspensions", "now")]
            some = await connection.fetch("select workflow_uuid from operon.workflows limit 50")
            plans.append(await read_by(connection, "subjects", [row[0] for row in some]))
            plans.append(await read_by(connection, "depths", [row[0] for row in some], 101))
        answer = await get(runtime)

        parked = answer["workflows"]["parked"]
        assert parked["estimate"] is True
        assert 0.9 * count <= parked["n"] <= 1.1 * count
        assert answer["workflows"]["ready"] == {"n": 0, "capped": False, "estimate": False}
        assert [each for each in plans if each > 5_000] == []


ARGUMENTS: dict[str, tuple[Any, ...]] = {"executors": (600.0, 500), "numbers": (10_001,)}


async def read_by(connection: Any, name: str, *arguments: Any) -> int:
    """How many rows and pages a statement reads, by the server's own count."""
    given = arguments or ARGUMENTS.get(name, ())
    text = "explain (analyze, buffers, format json) " + supervision.SQL[name]
    (plan,) = msgspec.json.decode(await connection.fetchval(text, *given))
    return counted(plan["Plan"])


def counted(node: dict[str, Any]) -> int:
    of_workflows = node.get("Relation Name") == "workflows" or "workflows" in node.get("Index Name", "")
    rows = node["Actual Rows"] * node["Actual Loops"] + node.get("Rows Removed by Filter", 0) if of_workflows else 0
    return int(rows) + sum(counted(child) for child in node.get("Plans", ()))


def second(runtime: TestRuntime) -> operon.Operon:
    """Another application on the same database."""
    return operon.Operon(
        __name__, database_url=runtime.database_url, park_after_seconds=3600, heartbeat_seconds=0.2, port=0
    )


def test_the_lag_of_the_loop_is_that_of_the_last_minute() -> None:
    lag = LoopLag()
    empty = lag.percentiles
    for _ in range(SAMPLES):
        lag.add(9.0)
    for _ in range(SAMPLES - 10):
        lag.add(0.001)
    for _ in range(10):
        lag.add(0.5)

    assert empty == (None, None)
    assert lag.percentiles == (1.0, 500.0)


async def test_the_commits_of_late_are_told_with_their_size() -> None:
    async with TestRuntime(__name__, check_replay=False) as runtime:
        runtime.executor.pulse.publish()
        await sleeps(runtime.context)
        await runtime.settled()

        runtime.executor.pulse.publish()

        commits = runtime.executor.pulse.portrait().commits
        assert commits.batches >= 1
        assert commits.records_mean is not None
        assert commits.records_mean >= 1
        assert commits.ms_mean is not None
        assert commits.ms_mean > 0
