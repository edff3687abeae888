"""`operon workflow`: what runs, what failed and why, from any machine that reaches the database."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

import click
import msgspec

from operon.cli.database import address, configured, database_option
from operon.cli.output import json_option, print_fields, print_json, print_table
from operon.database import inspect, reasons
from operon.database.connection import Connection, close, connect_at_start
from operon.errors import DecodingError
from operon.explain import Why
from operon.failures import decode_record
from operon.runtime.loop import run
from operon.status import Status

T = TypeVar("T")

AGO = re.compile(r"(\d{1,6})\s*([smhdw])")
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

Limit = click.IntRange(1, 10_000)


def moment(text: str) -> datetime:
    """`2h` for two hours ago, or an ISO date and time, of this machine's time zone unless it has one. BadParameter."""
    try:
        if ago := AGO.fullmatch(text):
            return datetime.now(UTC) - timedelta(**{UNITS[ago[2]]: int(ago[1])})
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise click.BadParameter(f"{text!r} is no moment; write 90s, 30m, 2h, 3d, 1w, or 2024-02-29T13:37") from None


@click.group()
def workflow() -> None:
    """Looks at workflows; cancels and resumes them."""


@workflow.command("list")
@click.option(
    "--status",
    "statuses",
    multiple=True,
    type=click.Choice([status.value for status in Status], case_sensitive=False),
    help="Only those with this status; may be given more than once.",
)
@click.option("--name", help="Only those of this operation, by its recorded name.")
@click.option("--user", help="Only those of this authenticated user.")
@click.option(
    "--since", metavar="MOMENT", type=moment, help="Only those started since: 30m, 2h, 3d ago, or a date and time."
)
@click.option("--limit", type=Limit, default=20, show_default=True, help="How many at most.")
@click.option("--before", type=click.UUID, help="The next page: those that come after this workflow in the list.")
@database_option
@json_option
def list_(
    statuses: tuple[str, ...],
    name: str | None,
    user: str | None,
    since: datetime | None,
    limit: int,
    before: UUID | None,
    database_url: str | None,
    as_json: bool,
) -> None:
    """Lists workflows, newest first."""
    filter = inspect.Filter([Status(status) for status in statuses] or None, name, user, since)
    found = ask(database_url, lambda connection: inspect.page(connection, filter, limit, before))
    if as_json:
        print_json(found)
        return
    headers = ("workflow", "status", "started", "user", "executor", "name", "waiting for")
    rows = [
        (one.workflow_uuid, one.status, one.created_at, one.user, one.executor, one.name, one.waiting_for)
        for one in found
    ]
    print_table(headers, rows)
    if len(found) == limit:
        click.echo(f"There may be more: --before {found[-1].workflow_uuid}", err=True)


@workflow.command()
@click.argument("workflow_uuid", type=click.UUID)
@click.option("--values", is_flag=True, help="Also inputs and output as they are stored, masked arguments too.")
@database_option
@json_option
def show(workflow_uuid: UUID, values: bool, database_url: str | None, as_json: bool) -> None:
    """Shows one workflow, and why it is where it is.

    Inputs and output are left out unless --values is given: only the application knows which of them are masked.
    """

    async def both(connection: Connection) -> tuple[inspect.Details, Why | None]:
        found = await inspect.details(connection, workflow_uuid)
        cluster, rows = await reasons.look_around(connection)
        whys = await reasons.reasons(connection, [workflow_uuid], cluster, reasons.actors_of(rows).get)
        return found, whys.get(workflow_uuid)

    found, why = ask(database_url, both)
    fields = told(found, values)
    if why is not None:
        fields["why"] = why if as_json else why.text
        if why.stands and not as_json:
            fields["stands at"] = ", ".join(why.stands)
    if as_json:
        print_json(fields)
    else:
        print_fields({name: brief(value) for name, value in fields.items() if value is not None and value != []})


@workflow.command()
@click.argument("workflow_uuid", type=click.UUID)
@click.option("--values", is_flag=True, help="Also outputs as they are stored.")
@click.option("--limit", type=Limit, default=100, show_default=True, help="How many at most.")
@click.option("--after", type=int, default=-1, help="The next page: those that come after this step.")
@database_option
@json_option
def steps(workflow_uuid: UUID, values: bool, limit: int, after: int, database_url: str | None, as_json: bool) -> None:
    """Lists the recorded steps of a workflow, in order."""
    found = ask(database_url, lambda connection: inspect.steps(connection, workflow_uuid, limit, after))
    fields = [told(one, values) for one in found]
    if as_json:
        print_json(fields)
        return
    headers = ("step", "kind", "name", "completed", "ms", "attempts", "outcome" if values else "error")
    rows = [
        (one["step"], one["kind"], one["name"], one["completed_at"], milliseconds(step), one["attempts"], outcome(one))
        for step, one in zip(found, fields, strict=True)
    ]
    print_table(headers, rows)
    if len(found) == limit:
        click.echo(f"There may be more: --after {found[-1].step}", err=True)


def ask(database_url: str | None, question: Callable[[Connection], Awaitable[T]]) -> T:
    """The answer to a question about the database."""

    async def asked() -> T:
        async with inspect.looking(await address(configured(database_url).settings)) as connection:
            return await question(connection)

    return run(asked())


def change(database_url: str | None, act: Callable[[Connection], Awaitable[T]]) -> T:
    """What came of a change to the database."""

    async def changed() -> T:
        connection = await connect_at_start(await address(configured(database_url).settings), pooled=True)
        try:
            return await act(connection)
        finally:
            await close(connection)

    return run(changed())


def told(found: inspect.Details | inspect.Step, values: bool) -> dict[str, Any]:
    """The fields of a workflow or a step, with payloads read; those that may hold masked values only if asked for."""
    fields = msgspec.structs.asdict(found)
    for name in ("inputs", "output"):
        if name in fields and not values:
            del fields[name]
    for name in ("inputs", "output", "request"):
        if fields.get(name) is not None:
            fields[name] = read(fields[name])
    if found.error is not None:
        fields["error"] = read_error(found.error, values)
    return fields


def read(payload: str) -> Any:
    """What a payload says, or the payload itself if it is no JSON."""
    try:
        return msgspec.json.decode(payload)
    except msgspec.DecodeError:
        return payload


def read_error(payload: str, values: bool) -> Any:
    """A stored error: its class, its message, and if asked for where it happened."""
    try:
        record = decode_record(payload.encode())
    except DecodingError:
        return payload
    brief = {"type": record.type_name, "message": record.message}
    return {**brief, "traceback": record.traceback} if values else brief


def brief(value: Any) -> Any:
    """A field as a table has it: an error in one line and its traceback, other payloads as JSON."""
    match value:
        case {"type": str(kind), "message": str(message)}:
            return f"{kind}: {message}"
        case dict() | list() | bool():
            return msgspec.json.encode(value).decode()
        case _:
            return value


def outcome(fields: dict[str, Any]) -> Any:
    """What came of a step, in one cell."""
    if fields["error"] is not None:
        return brief(fields["error"])
    return msgspec.json.encode(fields["output"]).decode() if "output" in fields else None


def milliseconds(step: inspect.Step) -> int | None:
    """How long a step took; None where its beginning was not recorded."""
    return None if step.started_at is None else round((step.completed_at - step.started_at) / timedelta(milliseconds=1))
