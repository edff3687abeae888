"""Doubles: another function in the place of a communicator or a transaction, for as long as a test wants.

The operation stays what it is: its name, its retries, its isolation, how its result is recorded. Only the function that
does the work is another one, so a double is recorded, recovered and replayed like the real one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from operon.errors import InvocationError
from operon.operations import Communicator, Operation, Transaction


@contextmanager
def double(operation: Operation[..., Any], fn: Callable[..., Any]) -> Iterator[None]:
    """Puts a function in the place of an operation's own, which is back afterwards."""
    if not isinstance(operation, (Communicator, Transaction)):
        raise InvocationError(
            f"{operation!r} cannot be doubled: only communicators and transactions can",
            hint="a workflow is what is tested; double the steps that it calls",
        )
    is_async = inspect.iscoroutinefunction(fn)
    if isinstance(operation, Transaction) and not is_async:
        raise InvocationError(f"a double of {operation!r} has to be `async def`, as a transaction is")
    operation.signature.check()  # that of the real one, whether or not it has been looked at
    real, operation.fn = operation.fn, fn
    real_is_async = getattr(operation, "is_async", True)
    if isinstance(operation, Communicator):
        operation.is_async = is_async
    try:
        yield
    finally:
        operation.fn = real
        if isinstance(operation, Communicator):
            operation.is_async = real_is_async
