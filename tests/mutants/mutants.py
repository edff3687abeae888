"""The mutants. Each takes one guard out of the heart, by replacing a text that is there exactly once, and names the
smallest set of tests that has to fail then.

A mutant that survives means that a test is missing: random faults alone do not prove a guard, because another one
behind it often catches what it let through.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Change:
    """One text of one file, and what is put in its place."""

    file: str
    text: str
    instead: str

    def apply(self, root: Path) -> str:
        """The changed text of the file. ValueError: the text is not there, or more than once."""
        source = (root / self.file).read_text()
        if (found := source.count(self.text)) != 1:
            raise ValueError(f"{self.file} has this text {found} times: {self.text}")
        return source.replace(self.text, self.instead)


@dataclass(frozen=True, slots=True)
class Mutant:
    """A guard that is taken out, and who has to notice."""

    name: str
    changes: tuple[Change, ...]
    tests: tuple[str, ...]  # as pytest takes them

    def __repr__(self) -> str:
        return f"<Mutant {self.name}>"


def mutant(name: str, file: str, text: str, instead: str, *tests: str) -> Mutant:
    return Mutant(name, (Change(file, text, instead),), tests)


FLUSH = "operon/database/migrations/0015_flush.sql"
DELIVER = "operon/database/migrations/0016_deliver.sql"
HOLD = "operon/database/migrations/0012_hold.sql"
LINKS = "operon/database/migrations/0009_links.sql"
CANCEL = "operon/database/migrations/0005_cancel.sql"
WORKFLOWS = "operon/database/workflows.sql"
LEASE = "operon/database/lease.py"
COMMITTER = "operon/runtime/committer.py"
TRANSACTIONS = "operon/runtime/transactions.py"
ACTOR = "operon/runtime/workflow_actor.py"
INVOKE = "operon/runtime/invoke.py"

COMMITTING = "tests/runtime/test_committer.py"
AHEAD = "tests/runtime/test_ahead.py"
FENCES = "tests/guarantees/test_fences.py"
BACKOFF = "tests/guarantees/test_backoff.py"
ONCE = "tests/guarantees/test_exactly_once.py"
WEATHER = "tests/guarantees/test_weather.py"

MUTANTS = (
    # ------------------------------------------------------------------ the fence of a flush
    mutant(
        "a flush does not ask whether its executor is dead",
        FLUSH,
        "where e.incarnation = me and e.state <> 2\n    for no key update;",
        "where e.incarnation = me\n    for no key update;",
        f"{COMMITTING}::test_nothing_of_a_dead_executor_is_written",
    ),
    mutant(
        "a flush looks at its executor's row and does not lock it",
        FLUSH,
        "where e.incarnation = me and e.state <> 2\n    for no key update;",
        "where e.incarnation = me and e.state <> 2;",
        f"{FENCES}::test_an_executor_is_not_declared_dead_in_the_middle_of_a_flush",
    ),
    mutant(
        "a flush ends workflows of others",
        FLUSH,
        "where w.workflow_uuid = any (array[u.id]) and w.owner + 0 = me and w.status + 0 = 0;",
        "where w.workflow_uuid = any (array[u.id]) and w.status + 0 = 0;",
        f"{COMMITTING}::test_finishing_what_another_owns_fences",
    ),
    mutant(
        "a flush does not ask whether workflows were cancelled",
        FLUSH,
        "if revoked is not null then",
        "if false then",
        f"{FENCES}::test_nothing_of_a_cancelled_workflow_is_flushed",
    ),
    mutant(
        "a look at a flush that was lost finds it landed though its executor is dead",
        "operon/database/writer.py",
        "if not landed and not alive:",
        "if False:",
        f"{FENCES}::test_a_flush_of_a_dead_executor_that_was_lost_did_not_land",
    ),
    mutant(
        "a flush lands that was lost and had not landed when its executor asked",
        FLUSH,
        "values (me, number); --",
        "values (me, number) on conflict do nothing; --",
        f"{FENCES}::test_a_flush_that_had_not_landed_when_it_was_asked_for_never_lands",
    ),
    mutant(
        "a batch that was sent ahead does not ask for the one before it",
        FLUSH,
        "if after is not null and not exists (",
        "if false and not exists (",
        f"{AHEAD}::test_a_batch_lands_only_after_the_one_before_it",
    ),
    mutant(
        "what follows on a refused record stays in the batch that was sent ahead",
        COMMITTER,
        "for workflow_uuid in ahead.dropped:",
        "for workflow_uuid in ():",
        f"{AHEAD}::test_whose_record_is_refused_has_nothing_in_the_batch_that_was_sent_after_it",
    ),
    mutant(
        "a batch is sent ahead while the one before it is split",
        COMMITTER,
        "number if leading and (ahead is None",
        "number if (ahead is None",
        f"{AHEAD}::test_nothing_is_sent_ahead_while_a_batch_that_was_refused_is_split",
    ),
    mutant(
        "a flush waits for somebody who sets due what it takes away",
        FLUSH,
        "y.waiter = any (waiters) for update skip locked",
        "y.waiter = any (waiters) for update",
        "tests/database/test_waits.py::test_who_ends_does_not_wait_for_somebody_who_just_rings_for_it",
    ),
    # ------------------------------------------------------------------ the fence of a transaction
    mutant(
        "a transaction does not ask for its epoch",
        HOLD,
        "and w.owner + 0 = me and w.epoch = its_epoch and w.status + 0 = 0\n    for share;",
        "and w.owner + 0 = me and w.status + 0 = 0\n    for share;",
        f"{FENCES}::test_a_transaction_commits_only_for_the_owner_the_epoch_and_a_workflow_that_runs",
    ),
    mutant(
        "a transaction does not ask for its owner",
        HOLD,
        "and w.owner + 0 = me and w.epoch = its_epoch and w.status + 0 = 0\n    for share;",
        "and w.epoch = its_epoch and w.status + 0 = 0\n    for share;",
        f"{FENCES}::test_a_transaction_commits_only_for_the_owner_the_epoch_and_a_workflow_that_runs",
    ),
    mutant(
        "a transaction commits for a workflow that was cancelled",
        HOLD,
        "and w.epoch = its_epoch and w.status + 0 = 0\n    for share;",
        "and w.epoch = its_epoch\n    for share;",
        f"{FENCES}::test_a_transaction_commits_only_for_the_owner_the_epoch_and_a_workflow_that_runs",
    ),
    mutant(
        "a transaction looks at its workflow's row and does not lock it",
        HOLD,
        "and w.epoch = its_epoch and w.status + 0 = 0\n    for share;",
        "and w.epoch = its_epoch and w.status + 0 = 0;",
        f"{FENCES}::test_a_takeover_waits_for_a_transaction_that_has_passed_its_fence",
    ),
    # ------------------------------------------------------------------ ownership
    mutant(
        "a claim does not raise the epoch",
        WORKFLOWS,
        "set owner = $1, epoch = epoch + 1, updated_at",
        "set owner = $1, updated_at",
        "tests/acceptance/test_recovery.py::test_only_the_workflows_of_a_dead_executor_are_taken_over",
    ),
    mutant(
        "a claim takes from the living",
        WORKFLOWS,
        "and (w.owner is null or not exists (select from operon.executors e where e.incarnation = w.owner and "
        "e.state <> 2))\n    and exists (",
        "and exists (",
        f"{FENCES}::test_nothing_is_claimed_of_a_living_executor",
    ),
    mutant(
        "who brings back one after the other does not look for work",
        "operon/runtime/activator.py",
        "if self._look_wanted or self._pause <= 0:",
        "if self._look_wanted:",
        "tests/runtime/test_looking.py",
    ),
    mutant(
        "what was claimed over a connection that was lost is not looked for",
        "operon/runtime/activator.py",
        "await self._strays.look(connection)",
        "pass",
        "tests/guarantees/test_strays.py",
    ),
    mutant(
        "a lease is believed for ever",
        LEASE,
        "return not self.fenced and boottime() < self._until",
        "return not self.fenced",
        "tests/database/test_lease.py::test_it_is_doubted_before_it_ends_in_the_database",
    ),
    mutant(
        "an executor judges others after an outage of its own",
        LEASE,
        "return self.trusted and boottime() - self._unbroken_since >= self._seconds",
        "return self.trusted",
        "tests/database/test_lease.py::test_only_a_whole_lease_of_renewals_makes_it_seasoned",
    ),
    mutant(
        "an executor that is dead renews its lease",
        "operon/database/executors.sql",
        "where incarnation = $1 and state <> 2\nreturning 1",
        "where incarnation = $1\nreturning 1",
        "tests/database/test_lease.py::test_an_executor_that_was_declared_dead_is_fenced_and_never_renews_again",
    ),
    mutant(
        "a communicator is called though the lease is in doubt",
        "operon/runtime/communicators.py",
        "if not self._lease.certain:\n            await self._lease.wait_certain()",
        "pass",
        f"{FENCES}::test_no_communicator_is_called_while_the_lease_is_in_doubt",
    ),
    mutant(
        "an executor trusts its lease though its session may be lost",
        LEASE,
        "return self.trusted and (not self._watched or boottime() < self._held_until)",
        "return self.trusted",
        "tests/guarantees/test_certainty.py::test_who_lost_its_session_while_it_stood_still_does_not_call_whom_"
        "another_has_called",
    ),
    mutant(
        "a dead executor claims",
        WORKFLOWS,
        "where e.incarnation = $1 and e.state = 0 and w.workflow_uuid <> all",
        "where e.incarnation = $1 and w.workflow_uuid <> all",
        f"{FENCES}::test_a_dead_executor_claims_nothing",
    ),
    mutant(
        "what was cancelled here and resumed is claimed before it was dropped",
        WORKFLOWS,
        " and e.state = 0 and w.workflow_uuid <> all (coalesce(e.revoked, '{}'))",
        " and e.state = 0",
        f"{FENCES}::test_what_was_cancelled_and_resumed_is_not_claimed_by_who_has_not_dropped_it",
    ),
    mutant(
        "an executor that renewed its lease after the look is declared dead",
        "operon/database/executors.sql",
        "where incarnation = $1 and state <> 2 and lease_until = $2",
        "where incarnation = $1 and state <> 2 and $2::timestamptz is not null",
        f"{FENCES}::test_an_executor_that_has_renewed_since_the_look_is_not_declared_dead",
    ),
    mutant(
        "session locks from before a restart of the server count",
        "operon/database/executors.sql",
        "session_locked_at > pg_postmaster_start_time() and pg_try",
        "session_locked_at is not null and pg_try",
        f"{FENCES}::test_a_session_lock_from_before_the_last_start_of_the_server_says_nothing",
    ),
    mutant(
        "one look at a free session lock is enough",
        "operon/runtime/recovery.py",
        "            if earlier is None or earlier.lease_until != other.lease_until:",
        "            if earlier is None:\n                dead.append(other)\n            elif False:",
        "tests/runtime/test_verdicts.py",
    ),
    mutant(
        "a renewal between two looks at a free session lock does not count",
        "operon/runtime/recovery.py",
        "if earlier is None or earlier.lease_until != other.lease_until:",
        "if earlier is None:",
        "tests/runtime/test_verdicts.py",
    ),
    mutant(
        "a process whose event loop is stuck renews its lease",
        LEASE,
        "            if self._loop_is_stuck:",
        "            if False:",
        "tests/database/test_lease.py::test_a_stuck_event_loop_loses_its_lease",
    ),
    mutant(
        "a resumed workflow keeps its epoch",
        CANCEL,
        "set status = 0, error = null, owner = null, epoch = w.epoch + 1, deadline = null",
        "set status = 0, error = null, owner = null, deadline = null",
        f"{FENCES}::test_what_was_cancelled_and_resumed_is_not_claimed_by_who_has_not_dropped_it",
    ),
    mutant(
        "a cancel does not lock the executors before it looks whom to cancel",
        CANCEL,
        "        perform from operon.executors e where e.incarnation = any (owners) "
        "order by e.incarnation for update;\n",
        "",
        f"{FENCES}::test_a_cancel_waits_for_a_flush_that_is_under_way_and_sees_the_child_that_it_starts",
    ),
    # ------------------------------------------------------------------ what is unknown
    mutant(
        "a commit that was not acknowledged is taken for failed",
        TRANSACTIONS,
        "raise Unacknowledged(error) from error",
        "raise Failed(error) from error",
        f"{WEATHER}::test_a_connection_cut_at_its_commit_has_committed_once_or_not_at_all",
    ),
    mutant(
        "a flush that was not acknowledged is taken for failed",
        COMMITTER,
        "if await self._landed(batch, number, error, failures, began):",
        "if False:",
        f"{WEATHER}::test_a_connection_cut_at_its_commit_has_committed_once_or_not_at_all",
    ),
    mutant(
        "a second start of a parked workflow begins it without its history",
        "operon/runtime/spawn.py",
        "or row.status != 0 or row.lived:",
        "or row.status != 0:",
        "tests/runtime/test_parking.py::test_a_second_start_of_a_parked_workflow_does_nothing_of_it_again",
    ),
    # ------------------------------------------------------------------ effects wait for what is recorded
    mutant(
        "a communicator does not wait for earlier records",
        INVOKE,
        "        if journal.pending:\n            await journal.durable()\n        attempts = Attempts(",
        "        attempts = Attempts(",
        f"{ONCE}::test_a_record_that_never_arrives_is_waited_for_by_every_effect",
    ),
    mutant(
        "a transaction does not wait for earlier records",
        INVOKE,
        "        if journal.pending:\n            await journal.durable()\n        return await self._transact(",
        "        return await self._transact(",
        f"{ONCE}::test_a_record_that_never_arrives_is_waited_for_by_every_effect",
    ),
    mutant(
        "a communicator beside other steps is not announced",
        INVOKE,
        "            journal.announce(step, operation.name)\n",
        "            pass\n",
        f"{ONCE}::test_every_message_to_the_database_is_a_place_to_die_at",
    ),
    # ------------------------------------------------------------------ messages
    mutant(
        "a message stays when its receipt is recorded",
        FLUSH,
        "if r_uuid is not null then",
        "if false then",
        "tests/acceptance/test_messages.py",
    ),
    mutant(
        "a receipt is recorded of a message that is gone",
        FLUSH,
        "if affected <> cardinality(r_uuid) then",
        "if false then",
        f"{FENCES}::test_a_message_that_is_gone_is_not_received",
    ),
    mutant(
        "answers about messages come in the order of their destinations",
        DELIVER,
        "else 1 end\n            order by j.n",
        "else 1 end\n            order by j.destination desc",
        "tests/guarantees/test_messages.py::test_each_sender_of_a_batch_is_told_what_became_of_its_own_message",
    ),
    # ------------------------------------------------------------------ links
    mutant(
        "who monitors does not wait for an end that is under way",
        LINKS,
        "operon.is_owned(whose, x.authenticated_user) for share;",
        "operon.is_owned(whose, x.authenticated_user);",
        "tests/database/test_links.py::test_a_workflow_that_is_just_ending_is_not_missed_by_who_monitors_it",
    ),
    mutant(
        "an end does not wait for a watcher that parks",
        LINKS,
        "where w.workflow_uuid = any (watchers) order by w.workflow_uuid for key share;",
        "where w.workflow_uuid = any (watchers);",
        "tests/database/test_links.py::test_a_watcher_that_is_just_parking_is_woken_by_an_end",
    ),
    mutant(
        "a parent ends without its children",
        ACTOR,
        "                if invoker.leaves_children:\n                    await invoker.close_children()\n",
        "",
        "tests/acceptance/test_parent_close.py::test_a_child_is_cancelled_before_its_parent_has_ended",
    ),
    mutant(
        "a dead parent leaves its children",
        LINKS,
        "perform operon.cancel(child, reason) from unnest(children) as child;",
        "",
        "tests/acceptance/test_parent_close.py::test_a_child_is_cancelled_before_its_parent_has_ended",
    ),
    mutant(
        "a supervisor that is resumed is told of children that are resumed with it",
        LINKS,
        "operon.down_of(n.body) = any (members)",
        "false",
        "tests/acceptance/test_supervise.py::test_a_tree_that_was_cancelled_and_is_resumed_is_supervised_as_before",
    ),
    # ------------------------------------------------------------------ doorbells
    mutant(
        "a listener that reconnects does not catch up",
        "operon/database/notifier.py",
        "            self._become(Hearing.DOUBTFUL)\n            self._on_connected()\n            started()",
        "            self._become(Hearing.DOUBTFUL)\n            started()",
        "tests/database/test_notifier.py::test_a_killed_listener_reconnects_and_misses_nothing",
    ),
    mutant(
        "a listener catches up before it listens",
        "operon/database/notifier.py",
        "            async with asyncio.timeout(self._answer_seconds):\n"
        "                connection.add_termination_listener(line.terminated)",
        "            self._on_connected()\n            self._on_connected = lambda: None\n"
        "            async with asyncio.timeout(self._answer_seconds):\n"
        "                connection.add_termination_listener(line.terminated)",
        "tests/database/test_notifier.py::test_the_catch_up_comes_after_the_acknowledged_listen",
    ),
    # ------------------------------------------------------------------ replay
    mutant(
        "a step that is not the recorded one is answered by its record",
        "operon/runtime/journal.py",
        "if recorded is not None and (recorded.kind != kind or recorded.name != name):",
        "if False:",
        "tests/guarantees/test_nondeterminism.py",
    ),
    # ------------------------------------------------------------------ attempts, blame, names
    mutant(
        "attempts are kept for a workflow that has another owner",
        "operon/database/migrations/0011_attempts.sql",
        "where w.workflow_uuid = id and w.owner = me and w.epoch = its_epoch and w.status = 0;",
        "where w.workflow_uuid = id;",
        f"{BACKOFF}::test_attempts_are_kept_for_the_owner_the_epoch_and_a_workflow_that_runs",
    ),
    mutant(
        "the next life does not count the attempts of the last one",
        "operon/runtime/backoff.py",
        "return None if announced is None or not announced.output else _read(announced.output)",
        "return None",
        f"{BACKOFF}::test_who_crashes_in_a_long_pause_counts_on_and_does_not_pause_anew",
    ),
    mutant(
        "a suspect that waits for others stays in memory",
        "operon/runtime/parking.py",
        "return actor.crashes_here >= SUSPICIOUS",
        "return False",
        "tests/guarantees/test_suspects.py"
        "::test_a_suspect_that_waits_for_another_one_does_not_keep_it_from_being_tried",
    ),
    mutant(
        "a canary that crashed further on has passed",
        "operon/runtime/suspensions.py",
        "if actor is None or self.fell:",
        "if actor is None:",
        "tests/guarantees/test_suspensions.py::test_a_canary_has_not_passed_while_its_crash_is_being_recorded",
    ),
    mutant(
        "a caller from outside waits for as long as the database is away",
        "operon/runtime/patience.py",
        "if seconds < PATIENCE_SECONDS:",
        "if seconds > 0:",
        "tests/guarantees/test_outage.py"
        "::test_a_caller_from_outside_is_told_of_a_long_outage_and_what_was_asked_for_happens_once",
    ),
    mutant(
        "a plan for a table with nothing in it is kept while it fills",
        FLUSH,
        "where w.workflow_uuid = any (array[u.id]) and w.owner + 0 = me",
        "where w.workflow_uuid = u.id and w.owner + 0 = me",
        "tests/database/test_plans.py"
        "::test_plans_that_were_made_while_the_tables_were_small_do_not_read_them_as_a_whole_later",
    ),
    mutant(
        "a fence in a user's session has a plan of that session",
        HOLD,
        "set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$\nbegin\n    perform",
        "as $$\nbegin\n    perform",
        "tests/database/test_plans.py"
        "::test_plans_that_were_made_while_the_tables_were_small_do_not_read_them_as_a_whole_later",
    ),
    mutant(
        "a message that was never received wakes whoever has ended",
        FLUSH,
        "where n.destination = any (targets) and n.woke;",
        "where false;",
        "tests/guarantees/test_what_the_ended_leave.py"
        "::test_a_message_that_was_never_received_wakes_nobody_once_its_workflow_has_ended",
    ),
    mutant(
        "a canary has passed by a step that is not durable",
        "operon/runtime/suspensions.py",
        "if journal is None or not journal.grown or journal.pending:",
        "if journal is None or not journal.grown:",
        "tests/guarantees/test_suspensions.py::test_one_that_comes_back_and_crashes_in_the_same_moment_proves_nothing",
    ),
    mutant(
        "a process that was stopped is taken for one whose loop is stuck",
        LEASE,
        "self._last_tick += max(0.0, now - due)",
        "pass",
        "tests/database/test_lease.py::test_a_process_that_did_not_run_at_all_is_not_taken_for_one_whose_loop_is_stuck",
    ),
    mutant(
        "room under a name is not kept for who is being read",
        "operon/runtime/crowds.py",
        "        crowd.coming += 1\n        self._taken.append(crowd)",
        "        pass",
        "tests/guarantees/test_bulkheads.py::test_room_is_kept_for_who_is_being_read_from_the_database",
    ),
)
