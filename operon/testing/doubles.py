"""Doubles: another function in the place of a communicator or a transaction, for as long as a test wants.

The operation stays what it is: its name, its retries, its isolation, how its result is recorded. Only the function that
does the work is another one, so a double is recorded, recovered and replayed like the real one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from operon.errors import InvocationError
from operon.operations import Communicator, Transaction


@contextmanager
def double(operation: Any, fn: Callable[..., Any]) -> Generator[None]:
    """Puts a function in the place of an operation's own, which is back afterwards. InvocationError where it cannot."""
    is_async = inspect.iscoroutinefunction(fn)
    new: dict[str, Any]
    match operation:
        case Communicator():
            new = {"fn": fn, "is_async": is_async}
        case Transaction() if is_async:
            new = {"fn": fn}
        case Transaction():
            raise InvocationError(f"a double of {operation!r} has to be `async def`, as a transaction is")
        case _:
            raise InvocationError(
                f"{operation!r} cannot be doubled: only communicators and transactions can",
                hint="a workflow is what is tested; double the steps that it calls",
            )
    operation.signature.check()  # of the real one: it is read when it is first asked for
    attributes: dict[str, Any] = operation.__dict__
    real = {name: attributes[name] for name in new}
    attributes.update(new)
    try:
        yield
    finally:
        attributes.update(real)
