"""What a workflow that runs is said to do, and how its attempts go: one sentence each."""

from __future__ import annotations

from typing import Any

import msgspec

from operon.explain import Doing, Error, SetAside, Target, Usual, Wait, WaitCode
from operon.status import Status
from tests.supervision.subjects import HERE, OTHER, after, before, place, says, waits, why


def does(name: str | None = "Payments.capture", **fields: Any) -> dict[str, Any]:
    return {"live": True, "doing": Doing(name, **fields)}


def test_running() -> None:
    recorded = {"step": 2, "step_name": "Payments.capture", "step_at": before(seconds=0.3)}

    says(why(recorded), "running", "Runs on worker-1; step 2, `Payments.capture`, was recorded 0.3 s ago.")
    says(why({"step": 3}), "running", "Runs step 3 on worker-1 for 4 h.")


def test_running_a_communicator() -> None:
    first = does(since=before(seconds=0.3), attempt=1, attempts_max=5)
    third = does(since=before(seconds=0.3), attempt=3, attempts_max=5, failures=2, last_error="TimeoutError")

    says(why(first), "running", "Runs `Payments.capture` on worker-1 for 0.3 s, attempt 1 of 5.")
    text = "Runs `Payments.capture` on worker-1 for 0.3 s, attempt 3 of 5; the last failed with `TimeoutError`."
    says(why(third), "running", text)
    once = does(since=before(seconds=0.3), attempts_max=1)
    says(why(once), "running", "Runs `Payments.capture` on worker-1 for 0.3 s.")


def test_running_several_things_at_once() -> None:
    wait = waits(WaitCode.MESSAGE, what="recv payment", topics=("payment",))
    text = "Runs `Payments.capture` on worker-1 for 0.3 s, and 2 more at the same time. It also waits for recv payment."

    says(why({**does(since=before(seconds=0.3), others=2), **wait}), "running", text)


def test_running_elsewhere_as_that_executor_said() -> None:
    said = {**does(since=before(seconds=3)), "told_seconds": 1.2}

    says(why(said), "running", "Runs `Payments.capture` on worker-1 for 3.0 s, as it said 1.2 s ago.")


def test_running_its_own_code_with_where_it_stands() -> None:
    found = why({**does(None, stands=("shop/orders.py:7 order",)), "step": 3})

    says(found, "running", "Runs step 3 on worker-1 for 4 h.")
    assert found.stands == ("shop/orders.py:7 order",)


def test_running_long() -> None:
    stands = ("shop/orders.py:7 order", "shop/payments.py:41 capture")
    long = {**does(since=before(minutes=14), stands=stands), "usual": Usual(2.0, 1_234)}
    text = (
        "Runs `Payments.capture` on worker-1 for 14 min; 99 % of 1,234 take less than 2.0 s. "
        "It stands at shop/payments.py:41 capture."
    )

    found = why(long)

    says(found, "running_long", text)
    assert found.stands == stands
    assert why({**long, "usual": Usual(900.0, 1_234)}).code == "running"
    assert why({**does(since=before(seconds=0.9)), "usual": Usual(0.1, 1_234)}).code == "running"


def test_replaying() -> None:
    text = "Replays 1,204 steps on worker-1, 62 % done."

    says(why(does(None, replayed=746, recorded=1204)), "replaying", text)


def test_transaction_retry() -> None:
    met: dict[str, Any] = {"kind": "transaction", "failures": 3, "last_error": "SerializationError"}
    lost = "3 conflicts or lost connections, the last `SerializationError`"
    text = f"Its transaction `Payments.capture` met {lost}, and tries again"

    says(why(does(**met, again_at=after(seconds=0.02))), "transaction_retry", f"{text} in 20 ms.", after(seconds=0.02))
    says(why(does(**met, again_at=before(seconds=1))), "transaction_retry", f"{text} now.")


def test_backoff() -> None:
    pauses = does(since=before(seconds=9), failures=3, attempts_max=8, last_error="GatewayUnavailable")
    at = after(seconds=41)
    pauses["doing"] = msgspec.structs.replace(pauses["doing"], again_at=at)
    text = (
        "Waits to try `Payments.capture` again at 14:21:07, in 41 s: "
        "3 of 8 attempts failed, the last with `GatewayUnavailable`."
    )

    says(why(pauses), "backoff", text, at)


def test_backoff_of_one_that_left_memory() -> None:
    what = "its next attempt of `Payments.capture`: 3 of 8 failed, the last with `GatewayUnavailable`"
    at = after(hours=2)

    says(why(waits(WaitCode.TIME, what=what, until=at)), "backoff", f"Waits until 16:20 (2 h) for {what}.", at)


def test_owner_draining_names_what_it_finishes() -> None:
    found = why(does(since=before(seconds=1)), places=place(state="draining"))

    says(
        found,
        "owner_draining",
        "worker-1 is draining: it finishes `Payments.capture`, then another executor takes it.",
    )


def test_recv_with_messages_that_were_set_aside() -> None:
    wait = waits(WaitCode.MESSAGE, topics=("jobs",))
    detail = "crashed 'chews' 3 times in a row at step 0, the last time with MemoryError: no more"
    one = {**wait, "set_aside": SetAside(1, "jobs", detail)}
    many = {**wait, "set_aside": SetAside(101, "jobs", detail)}

    text = f"Waits for a message on `jobs`. 1 message on `jobs` was set aside as a dead letter: it {detail}."
    says(why(one), "recv_aside", text)
    assert f"Over 100 messages were set aside as dead letters; the last on `jobs` {detail}." in why(many).text


def test_what_the_other_one_does() -> None:
    def says_of(**fields: Any) -> str:
        of = Target(OTHER, "Shipping.book", Status.PENDING, is_child=True, **fields)
        return why(waits(WaitCode.RESULT, target=of)).text.partition("…e4c7a1, ")[2]

    capture = Doing("Shipping.label", since=before(seconds=1.8))
    assert says_of(doing=capture) == "which runs `Shipping.label` since 1.8 s."
    pauses = msgspec.structs.replace(capture, again_at=after(seconds=5))
    assert says_of(doing=pauses) == "which waits to try `Shipping.label` again."
    assert says_of() == "which runs."
    assert says_of(owned=False) == "which is ready to run."
    assert says_of(wait=Wait(WaitCode.CRASH, "its next life")) == "which crashed, and waits for its next life."
    assert says_of(wait=Wait(WaitCode.RESULT, "the result of x")) == "which itself waits for the result of x."


def test_what_is_parked_comes_back_to_its_owner_only() -> None:
    come = waits(WaitCode.TIME, until=before(seconds=3))
    full, free = msgspec.structs.replace(HERE, live=20_000), msgspec.structs.replace(HERE, incarnation=2)

    text = "Ready for 3.0 s: worker-1 is at its limit of 20,000 live workflows."
    says(why(come, places={1: full, 2: free}), "no_slot", text)
    assert why(come, places=place(state="draining")).code == "owner_draining"
    assert why({**come, "live": True}).code == "running"
    happened = waits(WaitCode.EVENT, key="status", has_happened=True)
    assert why(happened).code == "ready"


def test_a_pause_after_a_crash_that_is_over_does_not_hold_it_up() -> None:
    over = {"owner": None, **waits(WaitCode.CRASH, until=before(minutes=2))}

    assert why(over, places={}).code == "no_executor"


def test_ready_and_tried_alone() -> None:
    text = (
        "Ready for 40 s: its process died 3 times without progress of it, so it is tried alone, "
        "when no other such one is."
    )

    says(why({"owner": None, "crash_count": 3, "tried_alone": True}), "ready", text)


def test_nondeterminism_names_the_version_that_recorded_it() -> None:
    error = Error("NondeterminismError", "step 2 is now charge, but was recorded as release")
    stopped = {"status": Status.DEAD, "error": error, "version": "6b90e1d"}

    now = why(stopped, places=place(version="7f3a2c1"))
    same = why(stopped, places=place(version="6b90e1d"))
    nobody = why(stopped, places={})

    said = (
        "Stopped: step 2 is now charge, but was recorded as release. Nothing is lost: it was started by version 6b90e1d"
    )
    fits = "resume it with code that fits."
    assert now.text == f"{said}, and now 7f3a2c1 runs; run that one and resume it, or {fits}"
    assert same.text == f"{said}, as it now runs; {fits}"
    assert nobody.text == f"{said}; run that one and resume it, or {fits}"


def test_an_error_with_the_step_that_it_came_from() -> None:
    over = {"status": Status.ERROR, "error": Error("SoldOut", "A1"), "step": 3, "step_name": "reserve"}

    assert why({**over, "step_failed": True}).text.startswith("Failed at step 3, `reserve`, with `SoldOut`; its own")
    assert why(over).text.startswith("Failed after step 3, `reserve`, with `SoldOut`; its own result")
