"""`operon migrate`: brings the schema up to date, by a role that may, so that the application's needs no such right."""

from __future__ import annotations

import click

from operon.cli.database import address_or_new, configured, database_option
from operon.cli.grants import grants
from operon.cli.output import json_option, print_json
from operon.config import Settings
from operon.database.connection import close, connect_at_start
from operon.database.migrate import migrate as bring_up_to_date
from operon.database.migrate import migrations
from operon.runtime.loop import run


@click.command()
@click.option("--print-grants", is_flag=True, help="Print SQL for two roles of least privilege, and do nothing.")
@click.option("--owner", default="operon_owner", show_default=True, help="The role that migrates, in that SQL.")
@click.option("--role", default="operon_app", show_default=True, help="The role that runs workflows, in that SQL.")
@database_option
@json_option
def migrate(print_grants: bool, owner: str, role: str, database_url: str | None, as_json: bool) -> None:
    """Brings the schema up to date.

    `operon start` does so too, where its role may. Safe while the application runs.
    """
    if print_grants:
        click.echo(grants(owner, role), nl=False)
        return
    applied = run(migrated(configured(database_url).settings))
    known = migrations()
    if as_json:
        print_json({"applied": [name for number, name, _ in known if number in applied], "version": known[-1][0]})
        return
    for number, name, _ in known:
        if number in applied:
            click.echo(f"applied {name}")
    click.echo(f"The schema is at version {known[-1][0]}{'' if applied else ', as it was'}.")


async def migrated(settings: Settings) -> list[int]:
    """The migrations that this call applied."""
    connection = await connect_at_start(settings.direct_url or await address_or_new(settings), pooled=True)
    try:
        return await bring_up_to_date(connection)
    finally:
        await close(connection)
