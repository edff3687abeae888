"""One UUID, one execution: of a hundred starts one begins the workflow, and all of them are told how it ended."""

from __future__ import annotations

import asyncio
from collections import Counter
from uuid import UUID, uuid4

import pytest

from tests.guarantees.worker.case import Case, Server
from tests.guarantees.worker.life import Start
from tests.guarantees.worker.served import Answer, Served, serving
from tests.guarantees.worker.sites import Site, When

pytestmark = pytest.mark.long

MANY = 100


async def test_a_hundred_starts_in_one_process_are_one_execution(server: Server) -> None:
    async with server.case("one process") as case:
        workflow = uuid4()

        assert await case.live([Start("everything", workflow, ("t",), times=MANY)]) == 0

        await all_were_told(case, workflow, "result", MANY)
        await case.check([workflow])


async def test_a_hundred_starts_in_two_processes_are_one_execution_also_after_a_restart(server: Server) -> None:
    async with server.case("two processes") as case:
        workflow = uuid4()
        half = [Start("everything", workflow, ("t",), times=MANY // 2)]

        both = [case.begin(half), case.begin(half)]
        assert [await case.ended(process) for process in both] == [0, 0]
        await case.settled()
        calls = len(case.calls())
        assert await case.live([Start("everything", workflow, ("t",), times=MANY)]) == 0

        await all_were_told(case, workflow, "result", 2 * MANY)
        await case.check_one(workflow)
        await case.check_ledger()
        assert len(case.calls()) == calls, "the restart called the world again"


async def test_a_hundred_starts_of_a_workflow_that_fails_are_one_failure_also_after_a_restart(server: Server) -> None:
    async with server.case("failing") as case:
        workflow = uuid4()
        starts = [Start("failing", workflow, ("t",), times=MANY)]

        assert await case.live(starts) == 0
        assert await case.live(starts) == 0

        await all_were_told(case, workflow, "error", 2 * MANY)
        await failed_once(case, workflow)


@pytest.mark.parametrize(
    "label", ["flush start everything", "commit with checkpoint serializable", "flush charge + random + end"]
)
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_hundred_starts_before_a_kill_and_a_hundred_after_it_are_one_execution(
    server: Server, label: str, when: When
) -> None:
    async with server.case(f"{when} {label}") as case:
        workflow = uuid4()
        starts = [Start("everything", workflow, ("t",), times=MANY)]

        assert await case.live(starts, Site(label, when)) == -9
        assert await case.live(starts) == 0

        assert len([news for news in case.news(1) if news.what == "result"]) == MANY
        await case.check([workflow])


async def test_a_start_that_comes_while_its_workflow_is_being_taken_over_waits_for_it(server: Server) -> None:
    """The process owns the workflow already, and has not read its history yet: it must not begin without."""
    async with server.case("start meets takeover") as case:
        starts = [Start("everything", uuid4(), ("t",))]
        assert await case.live(starts, Site("commit with checkpoint serializable")) == -9
        late = Site("flush start everything", signal="SLOW", seconds=0.6)
        later = Site("checkpoints.history", signal="SLOW", seconds=1.2)

        assert await case.live(starts, late, later) == 0

        assert "flush now + uuid4 + random" not in case.labels(1), "it began from nothing"
        assert case.results() == {starts[0].uuid}
        await case.check([starts[0].uuid])


async def test_a_hundred_requests_with_one_key_are_one_execution_also_after_a_kill(server: Server) -> None:
    async with server.case("http") as case:
        key = "order 42"
        async with serving(case, 0) as first:
            before = await a_hundred(first, "/everything", {"token": "t"}, key)
            await first.kill()
        await case.settled()
        async with serving(case, 1) as second:
            after = await a_hundred(second, "/everything", {"token": "t"}, key)
            await second.kill()
        await case.settled()

        assert Counter(answer.status for answer in before + after) == {200: 2 * MANY}
        assert len({(answer.workflow_uuid, answer.body) for answer in before + after}) == 1
        await case.check([UUID(before[0].workflow_uuid)])
        assert not case.calls(1), "the second server called the world again"


async def test_a_hundred_requests_that_a_kill_cut_off_are_one_execution_when_they_are_repeated(server: Server) -> None:
    """The clients of the first server get no answer; they ask the second one with the same key."""
    async with server.case("http, cut off") as case:
        case.withhold(0, "post")
        async with serving(case, 0) as first:
            asking = asyncio.gather(
                *(first.post("/everything", {"token": "t"}, "k") for _ in range(MANY)), return_exceptions=True
            )
            await case.heard(lambda: any(call.name == "post" for call in case.calls(0)))
            await first.kill()
            cut = await asking
        await case.settled()
        async with serving(case, 1) as second:
            answers = await a_hundred(second, "/everything", {"token": "t"}, "k")
            await second.kill()
        await case.settled()

        assert not [answer for answer in cut if isinstance(answer, Answer)]
        assert len(set(answers)) == 1
        assert answers[0].status == 200
        await case.check([UUID(answers[0].workflow_uuid)])


async def test_a_hundred_requests_for_a_workflow_that_fails_are_one_failure_also_after_a_kill(server: Server) -> None:
    async with server.case("http, failing") as case:
        async with serving(case, 0) as first:
            before = await a_hundred(first, "/failing", {"token": "t"}, "k")
            await first.kill()
        await case.settled()
        async with serving(case, 1) as second:
            after = await a_hundred(second, "/failing", {"token": "t"}, "k")
            await second.kill()

        assert Counter(answer.status for answer in before + after) == {402: 2 * MANY}
        assert len({answer.workflow_uuid for answer in before + after}) == 1
        assert all(b"no money" in answer.body for answer in before + after)
        await failed_once(case, UUID(before[0].workflow_uuid))


@pytest.mark.parametrize("path", ["/charge", "/beside"])
async def test_a_hundred_requests_for_a_single_step_are_one_execution_also_after_a_kill(
    server: Server, path: str
) -> None:
    async with server.case(f"http {path}") as case:
        async with serving(case, 0) as first:
            before = await a_hundred(first, path, {"value": "v"}, "k")
            await first.kill()
        await case.settled()
        async with serving(case, 1) as second:
            after = await a_hundred(second, path, {"value": "v"}, "k")
            await second.kill()

        assert len(set(before + after)) == 1
        assert before[0].status == 200
        written = await case.connection.fetchval("select count(*) from ledger")
        assert written + len(case.calls()) == 1


async def a_hundred(server: Served, path: str, body: object, key: str) -> list[Answer]:
    """As many requests at once, all with one key."""
    return await asyncio.gather(*(server.post(path, body, key) for _ in range(MANY)))


async def all_were_told(case: Case, workflow: UUID, what: str, times: int) -> None:
    told = [news for news in case.news() if news.workflow == workflow and news.what != "started"]
    assert Counter(news.what for news in told) == {what: times}
    assert all(news.value == told[0].value for news in told), f"{case}: different answers"


async def failed_once(case: Case, workflow: UUID) -> None:
    """The failing workflow ran once: one entry in the ledger, one call of each communicator."""
    status = await case.connection.fetchval("select status from operon.workflows where workflow_uuid = $1", workflow)
    entries = await case.connection.fetchval("select count(*) from ledger")
    assert (status, entries) == (2, 1)
    assert Counter(call.name for call in case.calls()) == {"charge": 1, "decline": 1}
