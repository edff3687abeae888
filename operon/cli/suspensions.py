"""`operon suspensions`: names of which too many workflows crashed, so that none of them is run for a while."""

from __future__ import annotations

import click
import msgspec

from operon.cli.database import database_option
from operon.cli.failure import fail
from operon.cli.output import json_option, print_json, print_table
from operon.cli.workflow import ask, change
from operon.database import supervision
from operon.database import suspensions as names
from operon.database.connection import Connection
from operon.database.supervision import Happened
from operon.runtime.events import Kind


@click.group("suspensions")
def suspensions() -> None:
    """Names whose workflows are not run for a while, because many of them crashed."""


@suspensions.command("list")
@database_option
@json_option
def list_(database_url: str | None, as_json: bool) -> None:
    """Lists the names that are suspended, since when, and when one workflow of each is tried."""
    found = ask(database_url, supervision.suspensions)
    if as_json:
        print_json([msgspec.structs.asdict(each) for each in found])
        return
    print_table(
        ("name", "crashed", "since", "the next is tried"),
        [(each.name, each.crashes, each.since, each.until) for each in found],
    )


@suspensions.command()
@click.argument("name")
@database_option
def lift(name: str, database_url: str | None) -> None:
    """Lets the workflows of a name be run again, all of them, at once."""

    async def lifted(connection: Connection) -> bool:
        done = await names.lift(connection, name)
        if done:
            text = f"{name} goes on: it was lifted by hand"
            event = Happened(0.0, None, None, 0, Kind.LIFTED.value, "operon/workflows", text, None)
            await supervision.write(connection, [event])
        return done

    if not change(database_url, lifted):
        fail(f"{name!r} is not suspended", "`operon suspensions list` shows what is")
    click.echo(f"lifted {name}")
