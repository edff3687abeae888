"""Arguments are stored by name and come back as the call gave them, in every way Python can pass them."""

from __future__ import annotations

import datetime as dt
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import pytest

from operon.codec import Masked
from operon.errors import CatalogError, DecodingError, InputError
from operon.signatures import Signature

if TYPE_CHECKING:

    class Context: ...

    class Ghost: ...


SENTINEL: Any = object()


async def plain(ctx: Context, show: str, number: int, card: Annotated[str, Masked]) -> bool:
    return True


async def defaults(ctx: Context, show: str, number: int = 7, *, when: dt.date | None = None) -> None: ...


async def everything(ctx: Context, one: int, /, two: str = "2", *rest: float, only: bytes, **more: dt.date) -> None: ...


async def untyped(ctx, value, other=(1, 2)): ...  # type: ignore[no-untyped-def]  # pyright: ignore


bare: Any = untyped  # pyright: ignore[reportUnknownVariableType]


async def sentinel(ctx: Context, value: int = SENTINEL) -> None: ...


async def nothing(ctx: Context) -> None: ...


def signature(function: Callable[..., Any]) -> Signature:
    return Signature(function, True, "tickets.charge")


DAY = dt.date(2024, 5, 1)
CALLS: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = [
    (plain, ("hamlet", 3, "4242"), {}),
    (plain, ("hamlet",), {"card": "4242", "number": 3}),
    (plain, (), {"card": "4242", "number": 3, "show": "hamlet"}),
    (defaults, ("hamlet",), {}),
    (defaults, ("hamlet", 3), {"when": DAY}),
    (everything, (1,), {"only": b"x"}),
    (everything, (1, "two", 3.0, 4.5), {"only": b"x", "may": DAY, "one": DAY}),
    (bare, ({"a": (1, b"x")},), {}),
    (bare, (DAY,), {"other": {1: 2}}),
    (nothing, (), {}),
]


@pytest.mark.parametrize(("function", "args", "kwargs"), CALLS)
def test_a_call_comes_back_as_the_function_would_have_seen_it(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    ours = signature(function)
    expected = inspect.signature(function).bind(None, *args, **kwargs)
    expected.apply_defaults()

    data, live_args, live_kwargs = ours.settle(args, kwargs)
    seen = inspect.signature(function).bind(None, *live_args, **live_kwargs)
    seen.apply_defaults()

    assert seen.arguments == expected.arguments
    assert ours.decode(data) == (live_args, live_kwargs)
    assert ours.encode(args, kwargs) == data


WRONG: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = [
    (plain, ("hamlet", 3), {}),
    (plain, ("hamlet", 3, "4242", 5), {}),
    (plain, ("hamlet", 3), {"show": "macbeth", "card": "4242"}),
    (plain, ("hamlet", 3, "4242"), {"other": 1}),
    (everything, (1,), {}),
    (nothing, (1,), {}),
]


@pytest.mark.parametrize(("function", "args", "kwargs"), WRONG)
def test_a_wrong_call_is_a_type_error_as_in_python(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    ours = signature(function)

    for call in (ours.encode, ours.bind, ours.settle):
        with pytest.raises(TypeError, match=r"^tickets\.charge\(\) "):
            call(args, kwargs)


def test_arguments_are_stored_by_name_for_people_to_read() -> None:
    data = signature(defaults).encode(("hamlet",), {"when": DAY})

    assert data == b'{"show":"hamlet","number":7,"when":"2024-05-01"}'


def test_a_default_is_stored_so_that_changing_it_does_not_change_what_has_begun() -> None:
    async def after(ctx: Context, show: str, number: int = 8) -> None: ...

    async def before(ctx: Context, show: str, number: int = 7) -> None: ...

    data = signature(before).encode(("hamlet",), {})

    assert signature(after).decode(data) == (("hamlet", 7), {})


def test_a_parameter_added_with_a_default_reads_old_rows() -> None:
    assert signature(defaults).decode(b'{"show":"hamlet"}') == (("hamlet", 7), {"when": None})
    assert signature(everything).decode(b'{"one":1,"only":"eA=="}') == ((1, "2"), {"only": b"x"})


def test_a_default_that_is_no_data_comes_from_the_function_again() -> None:
    data, args, _ = signature(sentinel).settle((), {})

    assert data == b"{}"
    assert args == (SENTINEL,)
    assert signature(sentinel).decode(data) == ((SENTINEL,), {})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{}", "argument 'show' was not stored"),
        (b'{"show":"x","number":1,"card":"y","gone":1}', "argument 'gone' was stored, but is not a parameter"),
        (b'{"show":1,"number":1,"card":"y"}', "argument 'show' cannot be read"),
        (b"[]", "the stored arguments cannot be read"),
        (b"\xff", "the stored arguments cannot be read"),
        (b"", "the stored arguments cannot be read"),
    ],
)
def test_rows_that_do_not_fit_the_function_are_decoding_errors(data: bytes, message: str) -> None:
    with pytest.raises(DecodingError, match=message):
        signature(plain).decode(data)


def test_a_value_of_the_wrong_type_is_refused_by_the_name_of_its_argument() -> None:
    with pytest.raises(InputError, match=r"^tickets\.charge: argument 'number' cannot be stored: it is str where int"):
        signature(plain).encode(("hamlet", "3", "4242"), {})
    with pytest.raises(InputError, match=r"^tickets.charge: argument 'rest'\[1\] cannot be stored: it is str where"):
        signature(everything).encode((1, "2", 3.0, "4"), {"only": b""})


def test_arguments_are_limited_one_by_one_and_together() -> None:
    with pytest.raises(InputError, match="argument 'show' cannot be stored: it is 4,194,306 bytes"):
        signature(plain).encode(("x" * 4 * 1024 * 1024, 1, ""), {})
    with pytest.raises(InputError, match=r"the arguments are 6,\d+,\d+ bytes"):
        signature(plain).encode(("x" * 3_000_000, 1, "y" * 3_000_000), {})


def test_masked_arguments_are_cut_out_and_the_others_are_left() -> None:
    ours = signature(plain)
    data = ours.encode(("hamlet", 3, "4242"), {})

    shown = ours.masked(data)

    assert msgspec.json.decode(shown) == {"show": "hamlet", "number": 3, "card": "***"}
    assert signature(defaults).masked(b'{"show":"x"}') == b'{"show":"x"}'


def test_parameters_tell_the_http_layer_what_to_look_for() -> None:
    found = [(one.name, one.annotation, one.required) for one in signature(defaults).parameters]

    assert found == [("show", str, True), ("number", int, False), ("when", dt.date | None, False)]
    assert [one.kind for one in signature(everything).parameters] == [
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.VAR_POSITIONAL,
        inspect.Parameter.KEYWORD_ONLY,
        inspect.Parameter.VAR_KEYWORD,
    ]


def test_the_context_may_be_imported_for_the_type_checker_only() -> None:
    signature(plain).check()


def test_a_name_that_cannot_be_resolved_is_found_by_check() -> None:
    async def haunted(ctx: Context, who: Ghost) -> None: ...

    async def haunting(ctx: Context) -> Ghost:
        raise NotImplementedError

    with pytest.raises(CatalogError, match=r"tickets\.charge: the annotation of argument 'who', 'Ghost'") as caught:
        signature(haunted).check()
    with pytest.raises(CatalogError, match=r"tickets\.charge: the annotation of its result, 'Ghost'"):
        signature(haunting).check()

    assert "TYPE_CHECKING" in str(caught.value.hint)


def test_a_type_that_cannot_be_stored_is_found_by_check() -> None:
    async def streams(ctx: Context, feed: Callable[[], int]) -> None: ...

    with pytest.raises(CatalogError, match=r"argument 'feed': .*Callable.* is not a type that can be stored"):
        signature(streams).check()


def test_an_operation_without_a_context_is_refused() -> None:
    def lonely() -> None: ...

    with pytest.raises(CatalogError, match=r"tickets\.charge takes no context"):
        signature(lonely)


def test_the_result_has_the_annotation_of_the_function() -> None:
    assert signature(plain).result.decode(b"true") is True
    assert signature(bare).result.settle((1,))[1] == (1,)
    assert signature(nothing).result.encode(None) == b"null"
