"""How a child ended, named."""

from __future__ import annotations

import asyncio

import pytest

from actors.exits import NORMAL, SHUTDOWN, Crashed, Exit, Stopped, Zombie, exit_of, unwrap


class Leaving(BaseException): ...


def test_a_cancellation_is_a_shutdown_only_if_the_supervisor_asked_for_it() -> None:
    cancelled = asyncio.CancelledError()

    assert exit_of(cancelled, asked=True) is SHUTDOWN
    assert exit_of(cancelled, asked=False) == Crashed(cancelled)


def test_an_exception_that_means_leaving_is_no_crash() -> None:
    error = Leaving()

    assert exit_of(error, asked=False, stopped_by=(Leaving,)) == Stopped(error)
    assert exit_of(error, asked=False) == Crashed(error)


def test_groups_of_one_are_unwrapped_and_groups_of_more_are_not() -> None:
    error = KeyError("x")
    pair = ExceptionGroup("two", [error, ValueError()])

    assert unwrap(BaseExceptionGroup("outer", [ExceptionGroup("inner", [error])])) is error
    assert unwrap(pair) is pair
    assert exit_of(ExceptionGroup("", [error]), asked=True) == Crashed(error)


@pytest.mark.parametrize(
    ("exit", "words"),
    [
        (NORMAL, "normal"),
        (SHUTDOWN, "shutdown"),
        (Stopped(Leaving()), "stopped: Leaving"),
        (Crashed(ConnectionResetError()), "crashed: ConnectionResetError"),
        (Zombie(5.0), "zombie: still running after 5 s"),
    ],
)
def test_exits_read_like_words(exit: Exit, words: str) -> None:
    assert str(exit) == words
