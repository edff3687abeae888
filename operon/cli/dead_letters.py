"""`operon dead-letters`: messages that nobody received, to be looked at, sent again, or purged."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import click
import msgspec

from operon.cli.database import database_option
from operon.cli.failure import fail
from operon.cli.output import json_option, print_json, print_table
from operon.cli.workflow import Limit, ask, change, moment
from operon.database import dead_letters as letters

to = click.option("--to", "destination", type=click.UUID, help="Only those for this workflow.")
of_reason = click.option("--reason", help="Only those that died of this, as the list shows it.")


@click.group("dead-letters")
def dead_letters() -> None:
    """Messages that nobody received."""


@dead_letters.command("list")
@to
@of_reason
@click.option("--values", is_flag=True, help="Also the messages as they are stored.")
@click.option("--limit", type=Limit, default=20, show_default=True, help="How many at most.")
@click.option("--before", type=int, help="The next page: those that come after this sequence in the list.")
@database_option
@json_option
def list_(
    destination: UUID | None,
    reason: str | None,
    values: bool,
    limit: int,
    before: int | None,
    database_url: str | None,
    as_json: bool,
) -> None:
    """Lists dead letters, newest first. Messages are left out unless --values is given."""
    found = ask(database_url, lambda connection: letters.page(connection, destination, reason, before, limit))
    if as_json:
        left_out = () if values else ("body",)
        print_json([{k: v for k, v in msgspec.structs.asdict(letter).items() if k not in left_out} for letter in found])
        return
    headers = ("sequence", "for", "is now", "topic", "reason", "died", *(("message",) if values else ()))
    print_table(
        headers,
        [
            (
                letter.sequence,
                f"{letter.name or '?'} {letter.destination}",
                letter.status,
                letter.topic,
                letter.reason,
                letter.died_at,
                *((letter.body,) if values else ()),
            )
            for letter in found
        ],
    )
    if len(found) == limit:
        click.echo(f"There may be more: --before {found[-1].sequence}", err=True)


@dead_letters.command()
@click.argument("destination", type=click.UUID)
@click.argument("sequence", type=int)
@database_option
def requeue(destination: UUID, sequence: int, database_url: str | None) -> None:
    """Sends a dead letter to its workflow again, once. It comes after what is in the mailbox now."""
    if not change(database_url, lambda connection: letters.requeue(connection, destination, sequence)):
        fail(f"there is no dead letter {sequence} for {destination}", "`operon dead-letters list` shows them")
    click.echo(f"requeued {sequence} to {destination}")


@dead_letters.command()
@to
@of_reason
@click.option(
    "--until",
    metavar="MOMENT",
    type=moment,
    required=True,
    help="Only those that died before: 30m, 2h, 3d ago, or a date and time.",
)
@click.confirmation_option(prompt="Dead letters that are purged are gone. Purge them?")
@database_option
def purge(destination: UUID | None, reason: str | None, until: datetime, database_url: str | None) -> None:
    """Deletes dead letters for good."""
    count = change(database_url, lambda connection: letters.purge(connection, destination, reason, until))
    click.echo(f"purged {count}")
