"""Who may look at supervision: this machine, and whoever has the token. For others there is nothing."""

from __future__ import annotations

import hmac
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from quart import Quart

import operon
from operon.config import Settings, load
from operon.database.notifier import Hearing
from operon.errors import ConfigurationError
from operon.http.admin import Verdict, judge
from operon.http.health import LIVE_PATH, READY_PATH
from operon.http.supervisor import PATH
from operon.testing import TestRuntime
from tests.http.conftest import quart_of, served
from tests.supervision.facts import FROM_HERE

TOKEN = "correct-horse-battery-staple-42-and-more"
FROM_AFAR = {"client": ("203.0.113.9", 50_000)}
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@operon.get("/hello")
async def hello(ctx: operon.HandlerContext) -> str:
    return "hello"


@operon.workflow
async def nothing(ctx: operon.WorkflowContext) -> None: ...


@pytest.fixture
async def closed() -> AsyncIterator[TestRuntime]:
    async with TestRuntime(__name__, check_replay=False) as runtime:
        yield runtime


@pytest.fixture
async def guarded() -> AsyncIterator[TestRuntime]:
    async with TestRuntime(__name__, check_replay=False, admin_token=TOKEN) as runtime:
        yield runtime


async def ask(
    runtime: TestRuntime, scope: dict[str, Any], headers: dict[str, str] | None = None, path: str = PATH
) -> Any:
    return await runtime.app.quart.test_client().get(path, headers=headers or {}, scope_base=scope)


async def test_from_this_machine_the_tree_needs_no_token(closed: TestRuntime) -> None:
    answer = await ask(closed, FROM_HERE)

    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_from_elsewhere_there_is_nothing_without_a_token(closed: TestRuntime) -> None:
    answer = await ask(closed, FROM_AFAR)
    unknown = await ask(closed, FROM_AFAR, path="/operon/nonsense")

    assert answer.status_code == 404
    there, nowhere = await answer.get_json(), await unknown.get_json()
    assert {**there, "instance": "", "request_id": ""} == {**nowhere, "instance": "", "request_id": ""}


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost:80:90", "", "localhost."])
async def test_a_name_of_somebody_else_s_that_leads_to_this_machine_is_no_way_in(
    closed: TestRuntime, host: str
) -> None:
    answer = await ask(closed, FROM_HERE, {"Host": host})

    assert answer.status_code == 404


@pytest.mark.parametrize("header", ["Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP"])
async def test_behind_a_proxy_of_this_machine_the_token_is_needed(
    closed: TestRuntime, guarded: TestRuntime, header: str
) -> None:
    assert (await ask(closed, FROM_HERE, {header: "127.0.0.1"})).status_code == 404
    assert (await ask(guarded, FROM_HERE, {header: "127.0.0.1"})).status_code == 401
    assert (await ask(guarded, FROM_HERE, {header: "127.0.0.1", **BEARER})).status_code == 200


async def test_no_header_makes_a_stranger_local(closed: TestRuntime) -> None:
    claims = {"X-Forwarded-For": "127.0.0.1", "Forwarded": "for=127.0.0.1", "Host": "localhost"}

    assert (await ask(closed, FROM_AFAR, claims)).status_code == 404


async def test_from_elsewhere_the_token_opens_it(guarded: TestRuntime) -> None:
    without = await ask(guarded, FROM_AFAR)

    assert without.status_code == 401
    assert without.headers["www-authenticate"] == "Bearer"
    assert (await ask(guarded, FROM_AFAR, {"Authorization": f"Bearer {TOKEN[:-1]}"})).status_code == 401
    assert (await ask(guarded, FROM_AFAR, {"Authorization": f"Basic {TOKEN}"})).status_code == 401
    assert (await ask(guarded, FROM_AFAR, BEARER)).status_code == 200


async def test_a_token_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return False

    monkeypatch.setattr(hmac, "compare_digest", compare)

    judge("203.0.113.9", ["x"], [], ["Bearer tök\udcff"], TOKEN)

    assert compared == [(b"t\xc3\xb6k\xff", TOKEN.encode())]


async def test_two_credentials_are_none() -> None:
    assert judge("203.0.113.9", ["x"], [], ["Bearer x", f"Bearer {TOKEN}"], TOKEN) is Verdict.NO_TOKEN


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"])
async def test_every_loopback_address_is_this_machine(peer: str) -> None:
    assert judge(peer, ["[::1]:8000"], ["host"], [], None) is Verdict.LET_IN


@pytest.mark.parametrize("peer", [None, "", "<local>", "/run/socket", "10.0.0.1", "::ffff:10.0.0.1"])
async def test_who_has_no_address_is_from_elsewhere(peer: str | None) -> None:
    assert judge(peer, ["localhost"], ["host"], [], None) is Verdict.UNKNOWN


async def test_a_token_is_at_least_32_characters() -> None:
    with pytest.raises(ConfigurationError, match="admin_token") as refused:
        load({"admin_token": "short-and-guessable"})

    assert "short-and-guessable" not in str(refused.value)


async def test_the_token_is_shown_nowhere() -> None:
    assert TOKEN not in repr(Settings(admin_token=TOKEN))


async def test_an_executor_for_everybody_without_a_token_does_not_serve_it_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "operon.http"):
        async with TestRuntime(__name__, check_replay=False, host="0.0.0.0") as runtime:
            answer = await ask(runtime, FROM_HERE)
            method = await runtime.app.quart.test_client().post(PATH, scope_base=FROM_HERE)
            live = await ask(runtime, FROM_AFAR, path=LIVE_PATH)

    assert (answer.status_code, method.status_code, live.status_code) == (404, 404, 200)
    assert [record.getMessage() for record in caplog.records if PATH in record.getMessage()] == [
        "/operon/supervisor is not served: it listens on 0.0.0.0, and there is no admin_token of at least 32 characters"
    ]


async def test_a_page_of_the_application_s_own_stays(closed: TestRuntime) -> None:
    quart = Quart("given")

    @quart.get(LIVE_PATH)
    async def mine() -> str:
        return "mine"

    async with TestRuntime(operon.Operon(__name__, quart=quart), check_replay=False) as runtime:
        answer = await ask(runtime, FROM_HERE, path=LIVE_PATH)

        assert await answer.get_data(as_text=True) == "mine"


async def test_in_a_given_quart_what_is_not_there_answers_like_any_unknown_path() -> None:
    quart = Quart("given")
    async with TestRuntime(operon.Operon(__name__, quart=quart), check_replay=False) as runtime:
        answer = await ask(runtime, FROM_AFAR)
        unknown = await ask(runtime, FROM_AFAR, path="/operon/nonsense")

        assert answer.status_code == unknown.status_code == 404
        assert await answer.get_data() == await unknown.get_data()


async def test_an_application_without_a_runtime_has_no_such_pages() -> None:
    client = quart_of(hello).test_client()

    assert (await client.get(LIVE_PATH)).status_code == 404


async def test_over_a_real_connection_the_same_rules_hold(closed: TestRuntime) -> None:
    async with served(closed.app.quart) as server, httpx.AsyncClient(base_url=server.url) as client:
        open_ = await client.get(PATH)
        led_here = await client.get(PATH, headers={"Host": "evil.example"})
        proxied = await client.get(PATH, headers={"X-Forwarded-For": "127.0.0.1"})

    assert (open_.status_code, led_here.status_code, proxied.status_code) == (200, 404, 404)


# ---------------------------------------------------------------------- health


async def health(runtime: TestRuntime, path: str = READY_PATH) -> tuple[int, Any]:
    answer = await ask(runtime, FROM_AFAR, path=path)
    return answer.status_code, await answer.get_json()


async def test_health_is_for_everybody_and_tells_nothing_but_that(closed: TestRuntime) -> None:
    assert await health(closed, LIVE_PATH) == (200, {"status": "ok"})
    assert await health(closed) == (200, {"status": "ok"})


async def test_who_drains_is_not_ready_but_lives(closed: TestRuntime) -> None:
    closed.executor.incarnation.draining = True

    assert await health(closed) == (503, {"status": "not ok", "why": "draining"})
    assert await health(closed, LIVE_PATH) == (200, {"status": "ok"})


async def test_who_has_no_lease_is_not_ready(closed: TestRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(closed.executor.incarnation.lease), "trusted", property(lambda _: False))

    assert await health(closed) == (503, {"status": "not ok", "why": "lease"})


async def test_who_cannot_reach_the_database_is_not_ready(closed: TestRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(closed.executor.incarnation.lease), "age", property(lambda _: 6.0))

    assert await health(closed) == (503, {"status": "not ok", "why": "database"})


async def test_who_does_not_listen_is_not_ready(closed: TestRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    notifier = closed.executor.incarnation.notifier
    deaf = replace(notifier.gauges(), state=Hearing.DOWN)
    monkeypatch.setattr(notifier, "gauges", lambda: deaf)

    assert await health(closed) == (503, {"status": "not ok", "why": "listener"})


async def test_who_is_not_to_listen_is_ready_without() -> None:
    async with TestRuntime(__name__, check_replay=False, notify="off") as runtime:
        assert await health(runtime) == (200, {"status": "ok"})


async def test_who_has_not_started_is_not_ready() -> None:
    app = operon.Operon(__name__)
    client = app.quart.test_client()

    answer = await client.get(READY_PATH)

    assert (answer.status_code, (await answer.get_json())["why"]) == (503, "starting")
