"""Storing an error never fails; reading one gives the same class where it can be found, and runs nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import asyncpg
import pytest

from operon import errors
from operon.errors import DecodingError, MaxRetriesExceeded, NotAuthorizedError, OperonError, RemoteError, StepTimeout
from operon.failures import ERROR_BYTES_MAX, NESTING_MAX, decode_error, decode_record, encode_error


class SoldOut(Exception):
    """Its parameters are not its arguments."""

    def __init__(self, show: str, left: int) -> None:
        super().__init__(f"{show} has {left} left")
        self.show = show
        self.left = left
        self.connection = object()


class Slotted(Exception):
    __slots__ = ("seat",)


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


class Refused(OSError):
    def __init__(self, host: str) -> None:
        super().__init__(111, f"{host} refused")
        self.host = host


class Both(ValueError, OSError):
    pass


class Read(Exception):
    @property
    def message(self) -> str:
        return "fixed"


class Batch(ExceptionGroup[Exception]):
    pass


def raised(call: Callable[[], Any]) -> Exception:
    try:
        call()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def with_notes() -> Exception:
    error = ValueError("x")
    error.add_note("while charging")
    return error


def slotted() -> Exception:
    error = Slotted("x")
    object.__setattr__(error, "seat", ("A", 1))
    return error


CORPUS: list[Exception] = [
    ValueError(),
    ValueError("x", 1, (1, b"2")),
    KeyError("k"),
    SoldOut("hamlet", 0),
    slotted(),
    Refused("db"),
    Both(3, "both"),
    Read("x"),
    with_notes(),
    raised(lambda: b"\xff".decode()),
    raised(lambda: "\ud800".encode()),
    raised(lambda: object().missing),  # type: ignore[attr-defined]  # pyright: ignore
    raised(lambda: open("/nowhere")),  # noqa: SIM115
    raised(lambda: compile("x +", "file", "exec")),
    raised(lambda: __import__("nowhere_at_all")),
    raised(lambda: 1 / 0),
    StopIteration(5),
    RecursionError("deep"),
    ValueError("nul \0 and \ud800"),
    OperonError("it broke", hint="mend it"),
    NotAuthorizedError("no"),
    StepTimeout("slow", hint="wait"),
    RemoteError("x", type_name="y"),
    *(kind("m") for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, OperonError)),
]


@pytest.mark.parametrize("error", CORPUS, ids=lambda error: type(error).__name__)
def test_an_error_comes_back_as_the_same_class_with_what_it_carried(error: Exception) -> None:
    back = decode_error(encode_error(error))

    assert type(back) is type(error)
    assert back.args == error.args
    assert str(back) == str(error)
    carried = {name: value for name, value in vars(error).items() if name != "connection"}
    assert {name: value for name, value in vars(back).items() if name != "operon_record"} == carried


def test_what_python_keeps_out_of_the_dict_comes_back_too() -> None:
    missing = raised(lambda: open("/nowhere"))  # noqa: SIM115
    unknown = raised(lambda: __import__("nowhere_at_all"))

    file: Any = decode_error(encode_error(missing))
    module: Any = decode_error(encode_error(unknown))
    seat: Any = decode_error(encode_error(slotted()))

    assert (file.errno, file.filename, module.name, seat.seat) == (2, "/nowhere", "nowhere_at_all", ("A", 1))


def test_a_database_error_keeps_what_the_program_asks_it_for() -> None:
    fields = {"C": "23505", "M": "duplicate key", "t": "seats", "n": "seats_pkey", "D": "Key (id)=(1) already exists."}
    server: Any = asyncpg.PostgresError

    back: Any = decode_error(encode_error(server.new(fields)))

    assert back.__class__ is asyncpg.UniqueViolationError
    assert (back.sqlstate, back.table_name, back.constraint_name) == ("23505", "seats", "seats_pkey")
    assert back.detail == fields["D"]


def test_the_errors_of_all_attempts_come_back() -> None:
    error = MaxRetriesExceeded("3 attempts", hint="look", errors=[ValueError("a"), SoldOut("hamlet", 0)])

    back: Any = decode_error(encode_error(error))

    assert str(back) == str(error)
    assert [type(one) for one in back.errors] == [ValueError, SoldOut]
    assert back.errors[1].left == 0
    assert MaxRetriesExceeded("m").errors == decode_error(encode_error(MaxRetriesExceeded("m"))).errors  # type: ignore[attr-defined]  # pyright: ignore


def test_groups_come_back_with_their_members() -> None:
    error = Batch("two", [ValueError("a"), ExceptionGroup("inner", [OSError(2, "x")])])

    back: Any = decode_error(encode_error(error))

    assert back.__class__.__name__ == "Batch"
    assert back.message == "two"
    assert [type(one) for one in back.exceptions] == [ValueError, ExceptionGroup]
    assert back.exceptions[1].exceptions[0].errno == 2


def test_the_record_has_the_traceback_of_where_it_happened() -> None:
    error = raised(lambda: list[int]().pop())

    record = decode_record(encode_error(error))
    back: Any = decode_error(encode_error(error))

    assert (record.module, record.type, record.message) == ("builtins", "IndexError", "pop from empty list")
    assert "in raised" in record.traceback
    assert back.operon_record == record


def test_a_class_that_is_not_here_becomes_a_remote_error_and_keeps_its_name_when_passed_on() -> None:
    stored = b'{"type":"CardDeclined","module":"payments.errors","message":"no funds","args":["no funds"]}'

    first = decode_error(stored)
    second = decode_error(encode_error(first))

    for error in (first, second):
        assert type(error) is RemoteError
        assert error.type_name == "payments.errors.CardDeclined"
        assert error.message == "payments.errors.CardDeclined: no funds"
    assert decode_record(encode_error(first)).type == "CardDeclined"


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("builtins", "eval"),
        ("builtins", "KeyboardInterrupt"),
        ("builtins", "SystemExit"),
        ("builtins", "object"),
        ("operon.errors", "Evicted"),
        ("builtins", "ValueError.__class__"),
        ("builtins", ""),
        ("this", "Error"),
        ("antigravity", "Error"),
    ],
)
def test_only_exceptions_that_are_already_here_are_brought_to_life(module: str, name: str) -> None:
    before = set(sys.modules)

    error = decode_error(b'{"type":"%s","module":"%s","message":"m"}' % (name.encode(), module.encode()))

    assert type(error) is RemoteError
    assert set(sys.modules) == before


def test_no_code_of_the_class_runs_when_it_is_rebuilt() -> None:
    ran: list[str] = []

    class Loud(Exception):
        def __init__(self) -> None:
            ran.append("init")

        def __setattr__(self, name: str, value: object) -> None:
            ran.append("setattr")

    Loud.__qualname__ = "Loud"
    sys.modules[__name__].__dict__["Loud"] = Loud
    stored = b'{"type":"Loud","module":"%s","message":"m","args":["m"],"attributes":{"x":1}}' % __name__.encode()

    back: Any = decode_error(stored)

    assert (type(back), back.args, back.x, ran) == (Loud, ("m",), 1, [])


def looping() -> Exception:
    error = MaxRetriesExceeded("m")
    error.errors = [error] * 3
    return error


POISON: list[Exception] = [
    Unprintable("x"),
    ValueError(Unprintable("x")),
    ValueError(object()),
    ValueError("\0\ud800" * 100),
    ValueError("x" * 10_000_000),
    ValueError(*["y" * 60_000] * 100),
    ValueError(ValueError("inner")),
    looping(),
    ExceptionGroup("many", [ValueError("z" * 50_000)] * 1000),
    type("Odd", (Exception,), {"__module__": None})("x"),
    type("NoArgs", (Exception,), {"args": property(lambda self: 1 / 0)})("x"),
    type("NoDict", (Exception,), {"__dict__": property(lambda self: 1 / 0)})("x"),
]


@pytest.mark.parametrize("error", POISON, ids=range(len(POISON)))
def test_storing_an_error_never_fails_and_stays_small(error: Exception) -> None:
    data = encode_error(error)

    record = decode_record(data)
    assert len(data) <= ERROR_BYTES_MAX
    assert "\0" not in record.message + record.traceback
    assert (record.message + record.traceback).encode()
    assert isinstance(decode_error(data), Exception)


def test_errors_within_errors_are_kept_to_a_depth() -> None:
    record = decode_record(encode_error(looping()))

    depth = 0
    while record.errors:
        record, depth = record.errors[0], depth + 1
    assert depth == NESTING_MAX


def test_an_error_that_cannot_be_printed_is_still_told() -> None:
    back = decode_error(encode_error(Unprintable("x")))

    assert type(back) is RemoteError
    assert back.type_name.endswith("Unprintable")


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"type":1,"module":"m","message":"x"}', b"\xff",
                                  b'{"type":"E","module":"m","message":"x","args":[{"$pickle":""}]}'])  # fmt: skip
def test_what_is_not_an_error_is_a_decoding_error(data: bytes) -> None:
    with pytest.raises(DecodingError, match="a stored error cannot be read"):
        decode_error(data)


def test_a_secret_in_an_error_is_not_stored_and_the_error_is_raised_without_it() -> None:
    error = SoldOut("postgresql://app:hunter2@db/shop", 3)
    error.__dict__["options"] = {"api_key": "hunter2", "host": "db"}
    error.__dict__["password"] = "hunter2"
    error.__cause__ = OSError(111, "password=hunter2 is wrong")

    stored = encode_error(ExceptionGroup("Authorization: Bearer hunter2-hunter2", [error]))
    back: Any = decode_error(stored)

    assert b"hunter2" not in stored
    assert "***" in back.message
    assert back.exceptions[0].args == ("postgresql://app:***@db/shop has 3 left",)
    assert (back.exceptions[0].options, back.exceptions[0].password) == ({"api_key": "***", "host": "db"}, "***")
    assert (back.exceptions[0].show, back.exceptions[0].left) == ("postgresql://app:***@db/shop", 3)
