"""What has to be true when the faults are over and all work is done: asked of the user's tables, of Operon's, of the
witness, and of what clients were told. Each violation is one sentence with the rows that show it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec

from tests.chaos import application
from tests.chaos.application import Call
from tests.chaos.desk import Desk
from tests.chaos.server import Server

SHOWN = 5  # rows of each violation
CLOCK_SECONDS = 0.02  # what the clock of a row and that of a process may differ by, on one machine

# In the database of a run, whoever changes what is final is refused by name, also where a fence should have been first.
WATCH = """
create function public.is_final() returns trigger language plpgsql as $$
begin
    raise exception '% of % is final', tg_op, tg_table_name using errcode = 'CH001', detail = old::text;
end
$$;
create trigger checkpoints_are_final before update or delete on operon.checkpoints
    for each row execute function public.is_final();
create trigger ends_are_final before update on operon.workflows
    for each row when (old.status in (1, 2)) execute function public.is_final();
create trigger epochs_only_grow before update on operon.workflows
    for each row when (new.epoch < old.epoch) execute function public.is_final();
create trigger the_dead_stay_dead before update of state on operon.executors
    for each row when (old.state = 2 and new.state <> 2) execute function public.is_final();
"""

# Each gives the rows that should not be there.
NO_ROWS: Mapping[str, str] = {
    "a workflow did not finish, or not well": """
        select workflow_uuid, name, status, owner, epoch, wait_what, convert_from(error, 'UTF8') as error
        from operon.workflows where status <> 1""",
    "money was made or lost": f"""
        select sum(balance) from accounts having sum(balance) <> {application.ACCOUNTS * application.BALANCE}""",
    "an account does not agree with its ledger": f"""
        select id, balance, booked from accounts
        left join (select account, sum(amount) as booked from ledger group by account) as l on account = id
        where balance <> {application.BALANCE} + coalesce(booked, 0)""",
    "a transfer did not happen once": """
        select workflow_uuid, convert_from(output, 'UTF8') as output, entries from operon.workflows
        left join lateral (
            select coalesce(string_agg(what, ', ' order by what desc), '') as entries
            from ledger l where l.workflow_uuid = workflows.workflow_uuid
        ) as booked on true
        where name = 'transfer' and status = 1
            and entries <> all (
                case when output = 'true' then array['withdraw, deposit', 'withdraw, credit'] else array[''] end)""",
    "an entry of the ledger was not committed together with its checkpoint": """
        select l.* from ledger l where 1 <> (
            select count(*) from operon.checkpoints c
            where c.workflow_uuid = l.workflow_uuid and c.xmin = l.xmin and c.kind in (0, 8) and c.error is null)""",
    "a checkpoint was not committed together with its entry": """
        select workflow_uuid, step, name from operon.checkpoints c
        where kind in (0, 8) and error is null and not (name = 'withdraw' and output = 'false') and 1 <> (
            select count(*) from ledger l where l.workflow_uuid = c.workflow_uuid and l.xmin = c.xmin)""",
    "what a transaction wrote before it failed has stayed": "select * from ledger where what = 'refused'",
    "a parent started two children with one step": """
        select parent, parent_step, count(*) from operon.workflows where parent is not null
        group by parent, parent_step having count(*) > 1""",
    "a parent and its child do not know each other": """
        select w.workflow_uuid, w.parent, w.parent_step from operon.workflows w
        where parent is not null and not exists (
            select from operon.checkpoints c
            where c.workflow_uuid = w.parent and c.step = w.parent_step and c.kind = 2)""",
    "a sleep ended early": f"""
        select s.workflow_uuid, s.step, convert_from(s.output, 'UTF8') as until,
            extract(epoch from n.started_at) as went_on
        from operon.checkpoints s
        join operon.checkpoints n on n.workflow_uuid = s.workflow_uuid and n.step = s.step + 1
        where s.kind = 14
            and extract(epoch from n.started_at) < convert_from(s.output, 'UTF8')::float8 - {CLOCK_SECONDS}""",
    "a step is missing in the middle": """
        select workflow_uuid, count(*), max(step) from operon.checkpoints where step >= 0
        group by workflow_uuid having count(*) <> max(step) + 1""",
    "a message lies in the mailbox of one who has finished": "select * from operon.notifications",
    "a message is a dead letter": "select * from operon.dead_letters",
    "somebody waits who has finished": "select * from operon.waits",
    "a session holds on to its transaction": """
        select pid, state, query from pg_stat_activity
        where state like 'idle in transaction%' and state_change < clock_timestamp() - interval '5 seconds'""",
}

COMMUNICATORS = """
select c.workflow_uuid, c.step, c.kind, w.epoch,
    extract(epoch from pg_xact_commit_timestamp(c.xmin))::float8 as recorded
from operon.checkpoints c join operon.workflows w using (workflow_uuid) where c.step >= 0
"""
OUTPUTS = "select workflow_uuid, name, convert_from(output, 'UTF8') as output from operon.workflows where status = 1"
COMPLAINT = re.compile(r"^\S+ \S+ (?:ERROR|CRITICAL) .*$|^Traceback .*$", re.MULTILINE)


async def check(server: Server, desk: Desk, calls: Sequence[Call], logs: Sequence[Path]) -> list[str]:
    """Every violation."""
    await server.fetch("analyze")  # what autovacuum has not come to; tens of thousands of workflows are joined below
    found = [
        said(sentence, [dict(row) for row in rows])
        for sentence, question in NO_ROWS.items()
        if (rows := await server.fetch(question))
    ]
    steps = {(row["workflow_uuid"], row["step"]): row for row in await server.fetch(COMMUNICATORS)}
    found += check_calls(calls, steps)
    outputs = {row["workflow_uuid"]: row for row in await server.fetch(OUTPUTS)}
    return [*found, *desk.wrong(), *check_answers(desk, outputs), *check_logs(logs)]


def check_calls(calls: Sequence[Call], rows: Mapping[tuple[UUID, int], Mapping[str, Any]]) -> list[str]:
    """No communicator after its completion was recorded, and none more often than its workflow had owners."""
    late: list[Any] = []
    strangers: list[Any] = []
    times = Counter(call.key for call in calls)
    for call in calls:
        row = rows.get(place_of(call.key))
        if row is None or row["kind"] != 1:
            strangers.append(call)
        elif call.entered > row["recorded"] + CLOCK_SECONDS:
            late.append((call, row["recorded"]))
    often = [(key, count) for key, count in times.items() if (row := rows.get(place_of(key))) and count > row["epoch"]]
    never = [place for place, row in rows.items() if row["kind"] == 1 and f"{place[0]}:{place[1]}" not in times]
    verdicts = {
        "a communicator was entered after its completion had been recorded": late,
        "a communicator was called, and its number is not that of a communicator": strangers,
        "a communicator was called more often than its workflow had owners": often,
        "a communicator was recorded and never called": never,
    }
    return [said(sentence, shown) for sentence, shown in verdicts.items() if shown]


def check_answers(desk: Desk, outputs: Mapping[UUID, Mapping[str, Any]]) -> list[str]:
    """What clients were told is what is recorded, under the name that they asked for."""
    wrong = [
        (order.kind, uuid, desk.answers.get(uuid), dict(row) if row else None)
        for uuid, order in desk.orders.items()
        if (row := outputs.get(uuid)) is None
        or row["name"] != order.kind
        or any(value != msgspec.json.decode(row["output"]) for value in desk.answers.get(uuid, ()))
    ]
    return [said("clients were told what is not recorded", wrong)] if wrong else []


def check_logs(logs: Sequence[Path]) -> list[str]:
    """No executor has met anything that it calls an error: a broken database is weather."""
    lines = [line for log in logs if log.exists() for line in COMPLAINT.findall(log.read_text(errors="replace"))]
    return [said("an executor complains", lines)] if lines else []


def place_of(key: str) -> tuple[UUID, int]:
    """The workflow and the step of an idempotency key."""
    workflow, _, step = key.partition(":")
    return UUID(workflow), int(step)


def said(sentence: str, rows: Sequence[Any]) -> str:
    shown = "".join(f"\n    {row}" for row in rows[:SHOWN])
    return f"{sentence}: {len(rows)}{shown}"
