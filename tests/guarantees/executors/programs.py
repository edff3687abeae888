"""Workflows that do what a program says, which is data: lists of steps, written by chance from a seed.

What each step has answered is the workflow's result, so that whoever wrote the program can see whether it is possible.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any
from uuid import UUID, uuid5

import operon
from operon.errors import DuplicateEventError, MaxRetriesExceeded, NonExistentWorkflowError, WorkflowFinishedError

TOPICS = ("a", "b", None)
KEYS = ("x", "y")
SPACE = UUID("0c5ddb5a-51f3-5b4c-a6ab-d5f37e8a2d5c")

Step = list[Any]  # its name, and its arguments


class Author:
    """Writes programs for workflows that know one another."""

    def __init__(self, seed: int, workflows: int = 6, length: int = 8) -> None:
        self._chance = random.Random(seed)
        self._length = length
        self._sent = 0
        self._written = 0
        self.uuids = [uuid5(SPACE, f"{seed} {n}") for n in range(workflows)]

    def programs(self) -> dict[UUID, list[Step]]:
        return {uuid: self._program(self._length, depth=0) for uuid in self.uuids}

    def _program(self, length: int, depth: int) -> list[Step]:
        names = [name for name in WEIGHTS if depth < 2 or name not in ("child", "gather")]
        chosen = self._chance.choices(names, [WEIGHTS[name] for name in names], k=length)
        return [[name, self._arguments(name, depth)] for name in chosen]

    def _arguments(self, name: str, depth: int) -> list[Any]:
        chance = self._chance
        match name:
            case "sleep":
                return [chance.choice([0, 0.01, 0.1])]
            case "send":
                self._sent += 1
                return [str(chance.choice(self.uuids)), chance.choice(TOPICS), self._sent]
            case "recv":
                return [chance.choice(TOPICS), self._timeout()]
            case "recv_any":
                return [["a", "b"], self._timeout()]
            case "set_event":
                return [chance.choice(KEYS), chance.randrange(1000), chance.random() < 0.5]
            case "get_event":
                return [str(chance.choice(self.uuids)), chance.choice(KEYS), self._timeout()]
            case "write" | "execute":
                self._written += 1
                return [self._written]
            case "call":
                return [chance.randrange(4)]
            case "child":
                return [self._program(chance.randrange(1, 4), depth + 1)]
            case "gather":
                return [[self._program(chance.randrange(1, 4), depth + 1) for _ in range(chance.randrange(2, 4))]]
            case _:
                return []

    def _timeout(self) -> float:
        return self._chance.choice([0, 0.02, 0.1, 0.3])


WEIGHTS = {
    "sleep": 3,
    "send": 8,
    "recv": 6,
    "recv_any": 2,
    "set_event": 2,
    "get_event": 3,
    "write": 2,
    "execute": 2,
    "call": 2,
    "child": 1,
    "gather": 1,
    "now": 1,
}


@operon.workflow
async def run(ctx: operon.WorkflowContext, program: list[Step]) -> list[list[Any]]:
    """The steps with their answers, in the order in which they were written."""
    return await perform(ctx, program)


async def perform(ctx: operon.WorkflowContext, program: list[Step]) -> list[list[Any]]:
    return [[name, arguments, await answer(ctx, name, arguments)] for name, arguments in program]


async def answer(ctx: operon.WorkflowContext, name: str, arguments: list[Any]) -> Any:
    match name, arguments:
        case "sleep", [seconds]:
            return await ctx.sleep(seconds)
        case "send", [to, topic, number]:
            try:
                await ctx.send(UUID(to), [str(ctx.workflow_uuid), number], topic)
            except WorkflowFinishedError:
                return "finished"
            except NonExistentWorkflowError:
                return "unknown"
            return "sent"
        case "recv", [topic, timeout]:
            return await (ctx.recv(timeout=timeout) if topic is None else ctx.recv(topic, timeout=timeout))
        case "recv_any", [topics, timeout]:
            received = await ctx.recv_any(*topics, timeout=timeout)
            return None if received is None else [received.topic, received.message]
        case "set_event", [key, value, replace]:
            try:
                await ctx.set_event(key, value, replace=replace)
            except DuplicateEventError:
                return "duplicate"
            return "set"
        case "get_event", [of, key, timeout]:
            try:
                return await ctx.get_event(UUID(of), key, timeout=timeout)
            except NonExistentWorkflowError:
                return "unknown"
        case "write", [number]:
            return await write(ctx, number)
        case "execute", [number]:
            return await ctx.execute(WRITE, ctx.workflow_uuid, number)
        case "call", [failures]:
            try:
                return await call(ctx, failures)
            except MaxRetriesExceeded:
                return "failed"
        case "child", [program]:
            return await (await run(ctx, program)).get_result()
        case "gather", [programs]:
            return await asyncio.gather(*(perform(ctx, program) for program in programs))
        case _:
            return str(ctx.now())


WRITE = "insert into written (workflow, number) values ($1, $2)"


@operon.transaction
async def write(ctx: operon.TransactionContext, number: int) -> int:
    await ctx.client.execute(WRITE, ctx.workflow_uuid, number)
    return number


@operon.communicator(retry=operon.Retry(max_attempts=3, interval_seconds=0.02))
async def call(ctx: operon.CommunicatorContext, failures: int) -> int:
    if ctx.attempt <= failures:
        raise ConnectionError("not yet")
    return ctx.attempt


app = operon.Operon(__name__)
