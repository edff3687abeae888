"""Why a workflow is not running: one sentence for each reason, and the first that answers wins."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from operon.explain import Error, Suspended, Wait, WaitCode
from operon.explain.words import duration, moment
from operon.status import Status
from tests.supervision.subjects import HERE, NOW, OTHER, UUID_1, after, before, place, says, target, waits, why


def test_ready() -> None:
    fresh = {"owner": None, "updated_at": before(seconds=0.1)}

    says(why(fresh), "ready", "Ready for 0.1 s.")
    says(why({**fresh, "ready_before": 0}), "ready", "Ready for 0.1 s; none is before it.")
    says(why({**fresh, "ready_before": 3}), "ready", "Ready for 0.1 s; 3 others before it.")


def test_ready_when_what_it_waited_for_has_come() -> None:
    come = "What it waited for has come; it is about to be brought back."

    says(why({**waits(WaitCode.MESSAGE, topics=("payment",)), "topics_there": ("payment",)}), "ready", come)
    says(why(waits(WaitCode.TIME, until=before(seconds=1))), "ready", come)
    says(why(waits(WaitCode.RESULT, target=target(Status.DEAD))), "ready", come)


def test_no_slot() -> None:
    three = {n: msgspec.structs.replace(HERE, incarnation=n, live=20_000) for n in (1, 2, 3)}
    text = "Ready for 40 s: all 3 executors are at their limit of 20,000 live workflows."

    says(why({"owner": None}, places=three), "no_slot", text)
    says(
        why({"owner": None}, places=place(live=20_000)),
        "no_slot",
        "Ready for 40 s: worker-1 is at its limit of 20,000 live workflows.",
    )
    assert why({"owner": None}, places={**three, 4: msgspec.structs.replace(HERE, incarnation=4)}).code == "ready"


def test_no_slot_under_its_name() -> None:
    text = "Ready for 40 s: `Checkout.place_order` is at its limit of 50 live workflows in an executor."
    full = msgspec.structs.replace(HERE, incarnation=1, full_names={"Checkout.place_order": 50})
    busy = msgspec.structs.replace(HERE, incarnation=2, live=20_000)
    other = msgspec.structs.replace(HERE, incarnation=2, full_names={"Shipping.book": 1})

    says(why({"owner": None}, places={1: full}), "no_slot", text)
    says(why({"owner": None}, places={1: full, 2: busy}), "no_slot", text)
    assert why({"owner": None}, places={1: full, 2: other}).code == "ready"


def test_no_executor() -> None:
    gone = place(state="dead", died_at=before(minutes=22))
    text = "Ready for 6 min: no executor is alive. The last, worker-1, left at 13:58:26."

    says(why({"owner": None, "updated_at": before(minutes=6)}, places=gone), "no_executor", text)
    says(why({"owner": None}, places={}), "no_executor", "Ready for 40 s: no executor is alive.")


def test_no_code() -> None:
    text = "No executor has an operation named `Refund.refund`. It runs when the code is back."

    says(why({"owner": None, "name": "Refund.refund"}), "no_code", text)
    assert why({"owner": None, "name": "Refund.refund"}, places=place(names=None)).code == "ready"


def test_a_workflow_of_a_dead_executor_is_ready() -> None:
    places = {1: msgspec.structs.replace(HERE, state="dead"), 2: msgspec.structs.replace(HERE, incarnation=2)}

    assert why(places=places).code == "ready"


def test_owner_suspect() -> None:
    places = place(state="suspect", lease_age_seconds=6.0, moves_in_seconds=7.0)
    text = "Owned by worker-1, whose lease is 6.0 s old; it moves at the latest in 7.0 s."

    says(why(places=places), "owner_suspect", text)


def test_owner_draining() -> None:
    text = "worker-1 is draining: it finishes this step, then another executor takes it."

    says(why(places=place(state="draining")), "owner_draining", text)


def test_zombie() -> None:
    stuck = msgspec.structs.replace(HERE, zombies=frozenset({UUID_1}))
    places = {1: stuck, 2: msgspec.structs.replace(HERE, incarnation=2, name="worker-2")}

    says(
        why({"owner": 2}, places=places),
        "zombie",
        "worker-1 did not stop when told; it is fenced and worker-2 runs it now.",
    )
    says(why(places={1: stuck}), "zombie", "worker-1 did not stop when told; it is fenced and another life takes over.")
    runs = why({"owner": 2, "live": True, "step": 3}, places=places)
    assert runs.code == "running"
    assert runs.text.endswith(" An earlier life of it on worker-1 did not stop when told; nothing of that one counts.")


def test_recv() -> None:
    wait = waits(
        WaitCode.MESSAGE, topics=("payment",), since=before(hours=3, minutes=16), until=after(hours=20, minutes=44)
    )

    found = why({**wait, "topics_there": ("", "mail")})

    says(
        found,
        "recv",
        "Waits for a message on `payment` since 11:04 (3 h 16 min), until tomorrow 11:04. "
        "2 messages on other topics are there. Nothing is wrong.",
        after(hours=20, minutes=44),
    )
    says(why(waits(0, topics=("",))), "recv", "Waits for a message on no topic. Nothing is wrong.")
    assert "1 message on other topics is there" in why({**wait, "topics_there": ("mail",)}).text
    assert "over 100 messages on other topics are there" in why({**wait, "topics_there": ("mail",) * 101}).text


def test_event() -> None:
    of = target(wait=Wait(WaitCode.MESSAGE, "recv payment", topics=("payment",)))
    text = "Waits for event `status` of `Shipping.book` …e4c7a1, which itself waits for a message on `payment`."

    found = why(waits(WaitCode.EVENT, key="status", target=of))

    says(found, "event", text)
    assert found.link == f"/operon/supervisor?uuid={OTHER}"


def test_event_never() -> None:
    over = target(Status.CANCELLED)
    event = "Waits for event `status` of `Shipping.book` …e4c7a1, which is CANCELLED and did not set it;"
    at = after(minutes=40)

    found = why(waits(WaitCode.EVENT, key="status", target=over, until=at))

    says(found, "event_never", f"{event} it times out at 15:00:26.", at)
    assert why(waits(WaitCode.EVENT, key="status", target=over)).text.endswith("it waits until that is resumed.")


def test_child() -> None:
    wait = waits(WaitCode.RESULT, target=target(is_child=True))

    says(why(wait), "child", "Waits for child `Shipping.book` …e4c7a1, which runs.")


def test_handle() -> None:
    asleep = Wait(WaitCode.TIME, "sleep", until=datetime(2026, 12, 1, tzinfo=UTC))
    wait = waits(WaitCode.RESULT, target=target(wait=asleep))
    text = "Waits for the result of `Shipping.book` …e4c7a1, which sleeps until 1 Dec 00:00."

    says(why(wait), "handle", text)
    says(why(waits(WaitCode.RESULT, what="the result of x")), "handle", "Waits for the result of x.")


def test_cycle() -> None:
    two = waits(WaitCode.EVENT, key="status", target=target(circle=2))
    text = "Waits for …e4c7a1, which waits for this one: neither can go on. Cancel one, or send what it waits for."

    says(why(two), "cycle", text)
    three = why(waits(WaitCode.RESULT, target=target(circle=3), until=after(minutes=40))).text
    assert "which waits for this one by way of 1 more: none of them can go on before 15:00:26. Cancel" in three
    assert "Waits for itself: it cannot go on." in why(waits(WaitCode.RESULT, target=target(circle=1))).text


def test_sleep() -> None:
    until = datetime(2026, 12, 1, tzinfo=UTC)

    says(
        why(waits(WaitCode.TIME, until=until)), "sleep", "Sleeps until 1 Dec 00:00 (9 d 9 h). Nothing is wrong.", until
    )


def test_what_is_parked_waits_also_while_its_executor_is_gone() -> None:
    assert why(waits(WaitCode.MESSAGE, topics=("a",)), places=place(state="dead")).code == "recv"


def test_crashed() -> None:
    until = after(minutes=1, seconds=44)
    crash = {"error": Error("MemoryError", ""), "crash_count": 2}
    text = "Its actor crashed on worker-1 (`MemoryError`), 2 of 5 without progress; restarts at 14:22:10."

    says(why({**crash, **waits(WaitCode.CRASH, until=until)}, crash_budget=5), "crashed", text, until)
    says(why({**crash, "restarts_at": until}, crash_budget=5), "crashed", text, until)
    says(why({"restarts_at": until}), "crashed", "Its actor crashed on worker-1; restarts at 14:22:10.", until)


def test_suspended() -> None:
    until = after(seconds=22)
    names = {"Checkout.place_order": Suspended(before(seconds=60), until, 14)}
    text = "`Checkout.place_order` is suspended for 60 s: 14 workflows crashed. The canary tries at 14:20:48."

    says(why({"owner": None}, suspended=names), "suspended", text, until)
    assert why(suspended=names).code == "running"
    assert why(waits(WaitCode.CRASH, until=after(hours=1)), suspended=names).code == "suspended"
    assert why(waits(WaitCode.MESSAGE, topics=("a",)), suspended=names).code == "recv"


def test_dead() -> None:
    over = {"status": Status.DEAD, "crash_count": 5, "crash_step": 2, "error": Error("MemoryError", "")}
    text = "5 crashes without progress at step 2, the last `MemoryError`. Fix the cause, then resume."

    says(why(over), "dead", text)
    told = Error("WorkflowDeadError", "'checkout' crashed 6 times in a row, the last time with MemoryError: no")
    says(why({**over, "error": told}), "dead", f"Dead: {told.message}. Fix the cause, then resume.")
    says(why({"status": Status.DEAD}), "dead", "Too many crashes without progress. Fix the cause, then resume.")


def test_nondeterminism() -> None:
    error = Error("NondeterminismError", "step 2 is now charge, but was recorded as release")

    found = why({"status": Status.DEAD, "error": error})

    assert found.code == "nondeterminism"
    assert found.text.startswith("Stopped: step 2 is now charge, but was recorded as release. Nothing is lost")


def test_database() -> None:
    found = why(waits(WaitCode.TIME, until=after(days=1)), database_away_seconds=8.0)

    says(found, "database", "The database has not answered for 8.0 s; it goes on by itself.")


def test_cancelled() -> None:
    over = {"status": Status.CANCELLED, "updated_at": before(minutes=18), "error": Error("E", "duplicate order")}

    says(why(over), "cancelled", "Cancelled at 14:02:26: duplicate order.")


def test_finished() -> None:
    over = {"status": Status.SUCCESS, "created_at": before(hours=3, minutes=16, seconds=40)}

    says(why(over), "finished", "Finished in 3 h 16 min.")


def test_error() -> None:
    over = {"status": Status.ERROR, "error": Error("SoldOut", "A1")}

    says(why(over), "error", "Failed with `SoldOut`; its own result, nothing is retried.")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "0.0 s"),
        (0.0004, "0.0 s"),
        (0.02, "20 ms"),
        (0.34, "0.3 s"),
        (9.94, "9.9 s"),
        (41, "41 s"),
        (119, "119 s"),
        (125, "2 min"),
        (14 * 60, "14 min"),
        (3600, "1 h"),
        (11_760, "3 h 16 min"),
        (10 * 86_400 + 9 * 3600, "10 d 9 h"),
        (86_400 * 3, "3 d"),
    ],
)
def test_durations_are_said_as_people_say_them(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_times_are_said_as_people_say_them() -> None:
    said = [
        moment(NOW + timedelta(**units), NOW)
        for units in ({"seconds": 41}, {"hours": 2}, {"days": 1}, {"days": -1}, {"days": 10}, {"days": 800})
    ]

    assert said == ["14:21:07", "16:20", "tomorrow 14:20", "yesterday 14:20", "1 Dec 14:20", "29 Jan 2029 14:20"]
