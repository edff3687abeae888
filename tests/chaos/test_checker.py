"""The judge of a run can find somebody guilty: of calls, of what clients were told, and of proving nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import msgspec
import pytest

from tests.chaos.application import Call, actions, expected
from tests.chaos.checker import check_answers, check_calls
from tests.chaos.desk import Desk, Order, is_right
from tests.chaos.evidence import guards, missing
from tests.chaos.plan import plan, required

UUID_1 = UUID(int=1)
KEY = f"{UUID_1}:2"
COMMUNICATOR, SEND = 1, 10


def steps(kind: int = COMMUNICATOR, epoch: int = 2) -> Mapping[tuple[UUID, int], Mapping[str, Any]]:
    """One step, which was recorded at ten seconds."""
    return {(UUID_1, 2): {"kind": kind, "epoch": epoch, "recorded": 10.0}}


def verdicts(calls: list[Call], rows: Mapping[tuple[UUID, int], Mapping[str, Any]]) -> list[str]:
    return [verdict.partition(":")[0] for verdict in check_calls(calls, rows)]


@pytest.mark.parametrize(
    ("calls", "rows", "verdict"),
    [
        ([Call(KEY, 1, 9.0)], steps(), []),
        ([Call(KEY, 1, 8.0), Call(KEY, 2, 9.0)], steps(), []),
        ([Call(KEY, 1, 9.0), Call(KEY, 2, 11.0)], steps(), ["entered after its completion had been recorded"]),
        ([Call(KEY, 1, 9.0), Call(KEY, 2, 9.5)], steps(epoch=1), ["called more often than its workflow had owners"]),
        ([Call(KEY, 1, 9.0)], steps(kind=SEND), ["called, and its number is not that of a communicator"]),
        ([Call(KEY, 1, 9.0)], {}, ["called, and its number is not that of a communicator"]),
        ([], steps(), ["recorded and never called"]),
    ],
)
def test_calls_are_judged_by_when_and_how_often_they_were_made(
    calls: list[Call], rows: Mapping[tuple[UUID, int], Mapping[str, Any]], verdict: list[str]
) -> None:
    assert verdicts(calls, rows) == [f"a communicator was {words}" for words in verdict]


@pytest.mark.parametrize(
    ("letters", "right"),
    [
        ([[0, 0], [1, 0], [0, 1], [1, 1]], True),
        ([[1, 0], [1, 1], [0, 0], [0, 1]], True),
        ([[0, 0], [1, 0], [0, 1]], False),  # lost
        ([[0, 0], [1, 0], [0, 1], [1, 1], [1, 1]], False),  # twice
        ([[0, 1], [1, 0], [0, 0], [1, 1]], False),  # overtaken
    ],
)
def test_letters_are_right_when_each_came_once_and_in_the_order_of_its_sender(
    letters: list[list[int]], right: bool
) -> None:
    assert is_right(Order(0, UUID_1, "correspondence", (1, 2)), letters) is right


async def test_a_client_that_was_told_something_else_than_is_recorded_is_found() -> None:
    desk = Desk(1)
    desk.orders[UUID_1] = Order(0, UUID_1, "transfer", (0, 1, 5))
    desk.answers[UUID_1] = [True]

    def found(name: str, output: Any) -> bool:
        return bool(check_answers(desk, {UUID_1: {"name": name, "output": msgspec.json.encode(output)}}))

    assert not found("transfer", True)
    assert found("transfer", False)
    assert found("tree", True)
    assert check_answers(desk, {})


def test_a_run_in_which_nothing_happened_proves_nothing() -> None:
    assert len(missing({}, 600)) == len([least for least in guards(600).values() if least])
    assert missing(guards(600), 600) == []


def test_a_seed_gives_the_same_faults_again_and_more_than_are_required() -> None:
    faults = plan(7, 90, 4)

    assert faults == plan(7, 90, 4) != plan(8, 90, 4)
    for what, least in required(90).items():
        assert sum(fault.what == what for fault in faults) > least
    assert required(600) == required(600) | {"kill": 200, "terminate": 50, "crash server": 10, "stop": 20}


def test_what_a_tree_has_to_give_is_known_beforehand() -> None:
    assert {expected(seed, 2) for seed in range(50)} > {0, 1, 2, 3}
    assert {action for seed in range(50) for action, _ in actions(seed, 1)} == {
        *("add", "statement", "call", "sleep", "refuse", "child", "branch"),
    }
