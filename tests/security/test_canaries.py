"""Canaries: a secret is put wherever an application has one, and then looked for wherever it must not be.

That is in what a real `operon start` says, with its spans and metrics, in its answers, and in every row of every table
of the schema. The one place where one may be is the stored inputs of a workflow, which it needs to be run again:
`Masked` hides a value from people, not from the database.
"""

from __future__ import annotations

import json
import secrets
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from anyio import to_thread

from operon.cli.grants import grants
from operon.database import testbed
from tests.security.conftest import Database
from tests.security.process import Process, started

TABLES = """
select c.relname from pg_class c
where c.relnamespace = 'operon'::regnamespace and c.relkind in ('r', 'p') order by c.relname
"""


class Canaries:
    """A secret for each place, so that one which is found says where it got out."""

    PLACES = (
        "argument",
        "error",
        "bearer",
        "basic",
        "cookie",
        "proxy",
        "key",
        "query",
        "custom",
        "environment",
        "exporter",
    )

    def __init__(self, dsn: str) -> None:
        self._secrets = {place: f"canary-{place}-{secrets.token_hex(8)}" for place in self.PLACES} | {"dsn": dsn}

    def __getitem__(self, place: str) -> str:
        return self._secrets[place]

    def found_in(self, text: str) -> set[str]:
        """The places whose secret is in a text."""
        return {place for place, secret in self._secrets.items() if secret in text}

    @property
    def headers(self) -> dict[str, str]:
        """A request's headers, with all that must never be kept."""
        return {
            "authorization": f"Bearer {self['bearer']}",
            "cookie": f"session={self['cookie']}; theme=dark",
            "proxy-authorization": f"Basic {self['proxy']}",
            "x-api-key": self["key"],
            "x-custom": self["custom"],
        }


async def said(server: Process, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, str]:
    """Status and all the rest of an answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}{path}", data, {"content-type": "application/json", **(headers or {})}
    )

    def ask() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, f"{answer.headers}{answer.read().decode()}"
        except urllib.error.HTTPError as error:
            with error:
                return error.code, f"{error.headers}{error.read().decode()}"

    return await to_thread.run_sync(ask)


async def stored(database: Database) -> dict[str, list[str]]:
    """Every row of every table as text, by table; payloads are read, and the inputs of workflows named apart."""
    found: dict[str, list[str]] = {}
    for (table,) in await testbed.fetch(database.url, TABLES):
        for row in await testbed.fetch(database.url, f"select * from operon.{table}"):
            for column, value in row.items():
                text = value.decode() if isinstance(value, bytes) else str(value)
                found.setdefault(f"{table}.{column}" if column == "inputs" else table, []).append(text)
    return found


async def test_a_secret_is_found_nowhere_but_in_the_inputs_of_the_workflows_that_need_it(
    database: Database, tmp_path: Path
) -> None:
    await testbed.execute(database.url, grants(database.owner, database.role))
    canaries = Canaries(database.password)
    environment = {
        "CANARY": canaries["environment"],
        "CANARY_ERROR": canaries["error"],
        "OPERON_DATABASE_URL": database.as_role,
        "OTEL_TRACES_EXPORTER": "console",
        "OTEL_METRICS_EXPORTER": "console",
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization={canaries['exporter']}",
    }
    card = canaries["argument"]
    answers: dict[str, tuple[int, str]] = {}
    async with started("tests.security.application:app", tmp_path, "--log-level", "debug", **environment) as server:

        async def ask(name: str, path: str, body: Any = None, **headers: str) -> None:
            url = f"{path}{'&' if '?' in path else '?'}token={canaries['query']}"
            answers[name] = await said(server, url, body, {**canaries.headers, **headers})

        for how in ("ok", "declined", "group", "unstorable"):
            await ask(how, "/buy", {"card": card, "how": how})
        await ask("misfit", "/buy", {"card": {"number": card}, "how": 3, card: card})
        await ask("conflict", "/buy", {"card": card, "how": card * 10_000})
        await ask("failure", "/fail")
        await ask("unauthorized", "/hello", authorization=f"Basic {canaries['basic']}")
        await ask("forbidden", "/admin")
        await ask("unknown", "/nowhere")
        for (uuid,) in await testbed.fetch(database.url, "select workflow_uuid from operon.workflows"):
            await ask(f"status of {uuid}", f"/status?which={uuid}")
    output = server.said
    rows = await stored(database)

    assert {name: answers[name][0] for name in ("ok", "declined", "group", "unstorable", "misfit", "failure")} == {
        "ok": 200,
        "declined": 402,
        "group": 500,
        "unstorable": 500,
        "misfit": 400,
        "failure": 500,
    }
    assert (answers["unauthorized"][0], answers["forbidden"][0], answers["unknown"][0]) == (401, 403, 404)
    assert len(rows["workflows"]) > 50
    assert len(rows["checkpoints"]) > 20
    for fact in ("buying", "connection to postgresql://app:***@db.internal/shop failed", "RuntimeError", "/fail"):
        assert fact in output
    for told in ('"name": "charge"', '"exception.stacktrace"', '"url.path": "/buy"', '"operon.step.duration"'):
        assert told in output  # the spans and metrics are in it
    assert {name: canaries.found_in(answer) for name, (_, answer) in answers.items() if canaries.found_in(answer)} == {}
    assert canaries.found_in(output) == set()
    assert {table: places for table, texts in rows.items() if (places := canaries.found_in("\n".join(texts)))} == {
        "workflows.inputs": {"argument"}
    }


@pytest.mark.parametrize("url", ["postgresql://ada:{0}@127.0.0.1:1/shop", "postgresql://127.0.0.1:1/shop?password={0}"])
async def test_a_database_out_of_reach_is_told_of_without_its_password(url: str, tmp_path: Path) -> None:
    canary = f"canary-{secrets.token_hex(8)}"
    with pytest.raises(AssertionError) as ended:
        async with started("tests.security.application:app", tmp_path, OPERON_DATABASE_URL=url.format(canary)):
            pass

    assert "cannot be used" in str(ended.value)
    assert "***" in str(ended.value)
    assert canary not in str(ended.value)
