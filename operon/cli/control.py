"""`operon workflow cancel` and `resume`: what may be done to a workflow from outside of its application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from uuid import UUID

import click

from operon.cli.database import database_option
from operon.cli.output import json_option, print_json
from operon.cli.workflow import change, workflow
from operon.database import workflows
from operon.database.connection import Connection
from operon.errors import NonExistentWorkflowError, OperonError, WorkflowCancelledError
from operon.failures import encode_error
from operon.status import Status

Act = Callable[[Connection], Awaitable[list[UUID]]]


@workflow.command()
@click.argument("workflow_uuid", type=click.UUID)
@database_option
@json_option
def cancel(workflow_uuid: UUID, database_url: str | None, as_json: bool) -> None:
    """Cancels a workflow and what it has started.

    It stops before its next step, at once where it waits; nothing of it commits after this command has returned.
    """
    reason = encode_error(WorkflowCancelledError(f"workflow {workflow_uuid} was cancelled by `operon workflow cancel`"))
    report(
        "cancelled",
        acted(database_url, workflow_uuid, lambda connection: workflows.cancel(connection, workflow_uuid, reason)),
        as_json,
    )


@workflow.command()
@click.argument("workflow_uuid", type=click.UUID)
@database_option
@json_option
def resume(workflow_uuid: UUID, database_url: str | None, as_json: bool) -> None:
    """Lets a workflow that is CANCELLED or DEAD go on from what it has recorded, and its cancelled children."""
    report(
        "resumed",
        acted(database_url, workflow_uuid, lambda connection: workflows.resume(connection, workflow_uuid)),
        as_json,
    )


def acted(database_url: str | None, workflow_uuid: UUID, act: Act) -> list[UUID]:
    """What was changed. NonExistentWorkflowError, or an error that says why there was nothing to change."""

    async def acting(connection: Connection) -> list[UUID]:
        changed = await act(connection)
        if changed:
            return changed
        row = await workflows.status(connection, workflow_uuid)
        if row is None:
            raise NonExistentWorkflowError(
                f"there is no workflow {workflow_uuid}", hint="`operon workflow list` shows those that are there"
            )
        raise OperonError(f"workflow {workflow_uuid} is {Status.from_code(row.status)}: nothing was changed")

    return change(database_url, acting)


def report(what: str, changed: list[UUID], as_json: bool) -> None:
    if as_json:
        print_json({what: changed})
    else:
        for uuid in changed:
            click.echo(f"{what} {uuid}")
