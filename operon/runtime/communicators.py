"""Runs a communicator: attempts, and a limit for each. The pauses between them are in `backoff`.

Before every attempt the lease is looked at: a process that may have been declared dead starts no new effect. Between
that look and the call it can still be paused, and nothing on this side can help it; the idempotency key is for that.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Coroutine
from functools import partial
from typing import Any
from uuid import UUID

import anyio.to_thread

from operon.caller import Caller
from operon.contexts import CommunicatorContext
from operon.database.lease import Lease
from operon.errors import MaxRetriesExceeded, StepTimeout
from operon.operations import Communicator
from operon.runtime.backoff import Backoff
from operon.runtime.setback import Setback
from operon.telemetry.spans import attempt_failed


class Uncertain(Exception):
    """A thread was free for a call when it was no longer certain that this executor may make it."""


class Attempts:
    """The attempts of one communicator step."""

    __slots__ = (
        "_application",
        "_backoff",
        "_caller",
        "_key",
        "_lease",
        "_limiter",
        "_operation",
        "_uuid",
        "made",
        "running",
        "setback",
        "since",
        "step",
    )

    def __init__(
        self,
        operation: Communicator[..., Any],
        lease: Lease,
        limiter: anyio.CapacityLimiter,
        workflow_uuid: UUID,
        step: int,
        caller: Caller,
        application: Any,
        backoff: Backoff,
    ) -> None:
        self._backoff = backoff
        self._operation = operation
        self._lease = lease
        self._limiter = limiter
        self._uuid = workflow_uuid
        self._key = f"{workflow_uuid}:{step}"
        self._caller = caller
        self._application = application
        self.step = step
        self.made = 0
        # For those who ask what the workflow does.
        self.since = 0.0  # this attempt, by this machine's clock
        self.setback: Setback | None = None
        self.running: Coroutine[Any, Any, Any] | None = None

    @property
    def name(self) -> str:
        """Of the communicator."""
        return self._operation.name

    @property
    def max_attempts(self) -> int:
        """How often it is called at most."""
        retry = self._operation.retry
        return retry.max_attempts if retry else 1

    async def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Its value; the only attempt's error without retries, MaxRetriesExceeded when all are used up."""
        retry = self._operation.retry
        errors: list[Exception] = []
        if retry is not None and (attempted := self._backoff.recalled()) is not None:
            self.made, errors = attempted.made, attempted.failures()
            self.setback = Setback(self.made, type(errors[-1]).__name__, time.time() + self._backoff.left(attempted))
            await self._backoff.rest_of(attempted, retry.max_attempts, errors)
        while True:
            self.made += 1
            self.since = time.time()
            try:
                return await self._once(self.max_attempts, args, kwargs)
            except Exception as error:
                if retry is None or isinstance(error, MemoryError) or not retry.should_retry(error):
                    raise
                errors.append(error)
                attempt_failed(error, self.made)
                if self.made >= retry.max_attempts:
                    raise MaxRetriesExceeded(
                        f"{self._operation.name} failed {self.made} times, last with {type(error).__name__}: {error}",
                        errors=errors,
                    ) from error
            pause = retry.delay(self.made, random.random())  # noqa: S311
            self.setback = Setback(self.made, type(errors[-1]).__name__, time.time() + pause)
            await self._backoff.pause(pause, self.made, retry.max_attempts, errors)

    async def _once(self, max_attempts: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not self._lease.certain:
            await self._lease.wait_certain()
        operation = self._operation
        ctx = CommunicatorContext(
            self._uuid, self._caller, self._application, self._key, self.made, max_attempts, operation.name
        )
        if operation.timeout_seconds is None:
            return await self._call(ctx, args, kwargs)
        limit = asyncio.timeout(operation.timeout_seconds)
        try:
            async with limit:
                return await self._call(ctx, args, kwargs)
        except TimeoutError:
            if not limit.expired():
                raise
            raise StepTimeout(
                f"attempt {self.made} of {operation.name} took longer than {operation.timeout_seconds} s"
            ) from None

    async def _call(self, ctx: CommunicatorContext, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._operation.is_async:
            return await self._operation.fn(ctx, *args, **kwargs)
        call = partial(self._in_thread, ctx, *args, **kwargs)
        while True:
            try:
                return await anyio.to_thread.run_sync(call, limiter=self._limiter, abandon_on_cancel=True)
            except Uncertain:
                await self._lease.wait_certain()

    def _in_thread(self, *args: Any, **kwargs: Any) -> Any:
        if not self._lease.certain:  # it may have waited for its thread
            raise Uncertain
        return self._operation.fn(*args, **kwargs)
