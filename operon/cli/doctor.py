"""`operon doctor`: is everything as it has to be, and if not, what to do. Exit code 1 if something is wrong."""

from __future__ import annotations

import os
import platform
import sys

import click

from operon.cli.database import address, configured, database_option, is_missing, shown_database
from operon.cli.diagnosis import (
    Finding,
    Verdict,
    judge,
    judge_notifications,
    judge_python,
    ok,
    warning,
    wrong,
)
from operon.cli.output import escaped, json_option, print_json
from operon.config import Configuration, Settings, strangers
from operon.database import checkup
from operon.errors import ConfigurationError, DatabaseUnavailable, DatabaseUnusable
from operon.runtime.loop import run

COLOURS = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.WRONG: "red"}


@click.command()
@database_option
@json_option
def doctor(database_url: str | None, as_json: bool) -> None:
    """Looks for what is wrong, and says what to do.

    Examines this machine, its configuration and the database.

    Nothing is changed, but an embedded Postgres that is stopped is started. Exit code 1 if something is wrong.
    """
    findings = examined(database_url)
    if as_json:
        print_json(findings)
    else:
        width = max(len(finding.check) for finding in findings)
        for finding in findings:
            click.echo(line(finding, width))
    sys.exit(1 if any(finding.verdict is Verdict.WRONG for finding in findings) else 0)


def examined(database_url: str | None) -> list[Finding]:
    findings = [judge_python(sys.version_info[:3], platform.python_implementation())]
    try:
        configuration = configured(database_url)
    except ConfigurationError as error:
        return [*findings, wrong("configuration", error.message, error.hint)]
    findings.append(ok("configuration", where(configuration)))
    findings += [
        warning("configuration", stranger, "rename or remove the variable") for stranger in strangers(os.environ)
    ]
    return findings + run(database_findings(configuration.settings))


def where(configuration: Configuration) -> str:
    return "no file" if configuration.file is None else configuration.file.name


async def database_findings(settings: Settings) -> list[Finding]:
    try:
        if is_missing(settings):
            return [embedded_finding(settings)]
        url = await address(settings)
        health = await checkup.examine(url)
        findings = [ok("database", f"{shown_database(settings)} answers"), *judge(health, settings)]
        if settings.notify == "off":
            return [*findings, ok("notifications", "off: every process polls")]
        heard = await checkup.hears(settings.direct_url or url, url)
    except (DatabaseUnusable, DatabaseUnavailable) as error:
        return [wrong("database", error.message, error.hint)]
    return [*findings, judge_notifications(heard, health.pooled and settings.direct_url is None)]


def embedded_finding(settings: Settings) -> Finding:
    """Before the first start. Raises DatabaseUnusable if there will be no embedded Postgres."""
    from operon.database import programs  # POSIX only

    if settings.env == "production":
        return wrong("database", "none is configured, and env is production", "set database_url to a PostgreSQL server")
    programs.find_tools()
    return ok("database", f"the first start makes an embedded one in {settings.data_dir}")


def line(finding: Finding, width: int) -> str:
    says = escaped(finding.says)
    mark = click.style(f"{finding.verdict.value:7}", fg=COLOURS[finding.verdict])
    hint = f"\n{'':{width + 10}}{escaped(finding.hint)}" if finding.hint else ""
    return f"{mark}  {finding.check:{width}} {says}{hint}"
