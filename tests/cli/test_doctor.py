"""`operon doctor`: what is wrong is found, and each finding says what to do."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from operon.cli.diagnosis import Finding, Verdict, judge, judge_notifications, judge_python
from operon.config import Settings
from operon.database import checkup, testbed
from operon.database.checkup import Health, Server, hears
from operon.database.migrate import migrations
from tests.cli.calls import Result, call, command
from tests.cli.pooler import pooled

SOUND = Health(
    server=Server(
        version_number=180004,
        version="18.4",
        read_only=False,
        fsync=True,
        full_page_writes=True,
        synchronous_commit="on",
        connections=97,
        database="shop",
        role="app",
        superuser=False,
        may_create=True,
        pid=1,
    ),
    round_trip_seconds=0.001,
    clock_ahead_seconds=0.0,
    pooled=False,
    shared=False,
    refused=None,
    schema=[1, 2],
    known=[1, 2],
    missing_rights=[],
)


def judged(health: Health = SOUND, settings: Settings | None = None, **server: Any) -> dict[str, Finding]:
    """The findings that are not fine, by what was looked at."""
    health = msgspec.structs.replace(health, server=msgspec.structs.replace(health.server, **server))
    found = judge(health, settings or Settings())
    return {finding.check: finding for finding in found if finding.verdict is not Verdict.OK}


def test_a_sound_database_has_nothing_wrong() -> None:
    assert judged() == {}


@pytest.mark.parametrize(
    ("check", "verdict", "server"),
    [
        ("server", Verdict.WRONG, {"version_number": 130014}),
        ("server", Verdict.WRONG, {"read_only": True}),
        ("connections", Verdict.WRONG, {"connections": 20}),
        ("fsync", Verdict.WRONG, {"fsync": False}),
        ("synchronous_commit", Verdict.WRONG, {"synchronous_commit": "off"}),
        ("full_page_writes", Verdict.WARNING, {"full_page_writes": False}),
    ],
)
def test_a_server_that_breaks_a_promise_is_told_with_what_to_do(
    check: str, verdict: Verdict, server: dict[str, Any]
) -> None:
    found = judged(**server)

    assert list(found) == [check]
    assert found[check].verdict is verdict
    assert found[check].hint


@pytest.mark.parametrize("setting", ["on", "local", "remote_write", "remote_apply"])
def test_a_commit_that_is_on_disk_here_is_durable_enough(setting: str) -> None:
    assert judged(synchronous_commit=setting) == {}


@pytest.mark.parametrize(
    ("check", "verdict", "health"),
    [
        ("clock", Verdict.WARNING, {"clock_ahead_seconds": 5.0}),
        ("clock", Verdict.WARNING, {"clock_ahead_seconds": -5.0}),
        ("round trip", Verdict.WARNING, {"round_trip_seconds": 0.1}),
        ("schema", Verdict.WRONG, {"schema": [1, 2, 3]}),
        ("rights", Verdict.WRONG, {"missing_rights": ["select on operon.workflows"] * 9}),
    ],
)
def test_a_database_that_will_not_do_is_told_with_what_to_do(
    check: str, verdict: Verdict, health: dict[str, Any]
) -> None:
    found = judged(msgspec.structs.replace(SOUND, **health))

    assert list(found) == [check]
    assert found[check].verdict is verdict
    assert found[check].hint


@pytest.mark.parametrize("schema", [[], [1]])
def test_an_older_schema_is_wrong_only_where_nobody_may_mend_it(schema: list[int]) -> None:
    older = msgspec.structs.replace(SOUND, schema=schema)

    assert judged(older) == {}
    assert list(judged(older, may_create=False)) == ["schema"]


def test_a_superuser_is_a_warning_in_production() -> None:
    assert judged(superuser=True) == {}
    assert list(judged(SOUND, Settings(env="production"), superuser=True)) == ["rights"]


def test_an_old_python_is_wrong() -> None:
    assert judge_python((3, 10, 4), "CPython").verdict is Verdict.WRONG
    assert judge_python(sys.version_info[:3], "CPython").verdict is Verdict.OK


def test_a_pooler_in_transaction_mode_is_told_with_what_to_do() -> None:
    found = list(judge(msgspec.structs.replace(SOUND, pooled=True, shared=True), Settings()))
    unheard = judge_notifications(heard=False, pooled=True)

    [sessions] = [finding for finding in found if finding.check == "sessions"]
    assert "PgBouncer" in sessions.says
    assert (sessions.verdict, unheard.verdict) == (Verdict.OK, Verdict.WRONG)
    assert "direct_url" in str(unheard.hint)
    assert judge_notifications(heard=True, pooled=True).verdict is Verdict.OK
    assert judge_notifications(heard=False, pooled=False).verdict is Verdict.WRONG


def findings(result: Result) -> dict[str, tuple[str, str]]:
    return {finding["check"]: (finding["verdict"], finding["says"]) for finding in result.json}


async def test_a_sound_installation_exits_with_0(database: str) -> None:
    told = await call("doctor", "--json", "--database-url", database)
    shown = await call("doctor", "--database-url", database)

    found = findings(told)
    assert told.code == shown.code == 0
    assert {verdict for verdict, _ in found.values()} <= {"ok", "warning"}
    assert found["schema"] == ("ok", f"version {migrations()[-1][0]}")
    assert found["notifications"] == ("ok", "heard")
    assert found["sessions"] == ("ok", "directly to the server")
    assert found["fsync"] == ("ok", "on")
    assert [line.split()[0] for line in shown.out.splitlines() if not line.startswith(" ")] == [
        verdict for verdict, _ in found.values()
    ]


async def test_settings_of_the_server_are_seen(database: str) -> None:
    name = database.partition("?")[0].rpartition("/")[2]
    await testbed.execute(database, f'alter database "{name}" set synchronous_commit = off')

    told = await call("doctor", "--json", "--database-url", database)

    assert told.code == 1
    assert findings(told)["synchronous_commit"][0] == "wrong"


async def test_rights_that_are_missing_are_named(database: str) -> None:
    name = database.partition("?")[0].rpartition("/")[2]
    role = f"{name}_role"
    await testbed.execute(database, f"create role {role} login password 'x'")
    try:
        health = await checkup.examine(database.replace(database[13 : database.index("@")], f"{role}:x"))
    finally:
        await testbed.execute(database, f"drop role {role}")

    assert "usage on schema operon" in health.missing_rights
    assert "insert on operon.workflows" in health.missing_rights
    assert "select on operon.migrations" in health.missing_rights
    assert "usage on sequence operon.notifications_sequence_seq" in health.missing_rights
    assert not health.server.may_create


async def test_a_database_without_the_schema_is_fine_where_the_role_may_make_it(empty: str) -> None:
    told = await call("doctor", "--json", "--database-url", empty)

    assert told.code == 0
    assert findings(told)["schema"][1].startswith("not there yet")


def test_a_database_out_of_reach_is_wrong(folder: Path) -> None:
    told = command("doctor", "--json", "--database-url", "postgresql://u:hunter2@127.0.0.1:9/x")

    assert told.code == 1
    assert findings(told)["database"][0] == "wrong"
    assert "hunter2" not in told.out


def test_a_wrong_file_is_wrong(folder: Path) -> None:
    (folder / "operon.toml").write_text("prot = 1")

    told = command("doctor", "--json")

    assert told.code == 1
    assert findings(told)["configuration"][0] == "wrong"


def test_before_the_first_start_nothing_is_wrong_but_in_production(folder: Path) -> None:
    fresh, production = command("doctor", "--json"), command("doctor", "--json", OPERON_ENV="production")

    assert (fresh.code, production.code) == (0, 1)
    assert findings(fresh)["database"] == ("ok", "the first start makes an embedded one in .operon/postgres")
    assert list(folder.iterdir()) == []


def test_a_variable_that_looks_like_a_setting_is_a_warning(folder: Path) -> None:
    told = command("doctor", "--json", OPERON_PROT="1")

    assert told.code == 0
    assert ("warning", "OPERON_PROT is no setting; did you mean 'OPERON_PORT'?") in [
        (finding["verdict"], finding["says"]) for finding in told.json
    ]


async def test_a_session_that_hears_nothing_is_noticed(database: str, empty: str) -> None:
    assert await hears(database, database)
    assert not await hears(database, empty)  # notifications stay in their database


async def test_a_pooler_in_transaction_mode_is_recognized(database: str) -> None:
    async with pooled(database) as url:
        found = await checkup.examine(url)
        heard, heard_directly = await hears(url, url), await hears(database, url)

    assert (found.pooled, found.shared, found.refused) == (True, True, None)
    assert (heard, heard_directly) == (False, True)


async def test_without_a_pooler_sessions_are_one_s_own(database: str) -> None:
    found = await checkup.examine(database)

    assert (found.pooled, found.shared, found.refused) == (False, False, None)


async def test_the_doctor_tells_of_a_pooler_and_workflows_are_listed_through_it(database: str) -> None:
    async with pooled(database) as url:
        told = await call("doctor", "--json", "--database-url", url)
        listed = await call("workflow", "list", "--json", "--database-url", url)

    assert told.code == 1
    assert [check for check, (verdict, _) in findings(told).items() if verdict == "wrong"] == ["notifications"]
    assert (listed.code, listed.json) == (0, [])
