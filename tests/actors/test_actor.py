"""Telling, asking and stopping an actor, through crashes and after its end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from actors import (
    Actor,
    ActorCrashed,
    ActorDead,
    AskTimeout,
    Backoff,
    ChildSpec,
    ChildStartFailed,
    Crashed,
    Exit,
    MailboxFull,
    MemoryMailbox,
    Ref,
    Reply,
    Restart,
    Shutdown,
    Supervisor,
)
from actors.testing import until, until_restarted
from tests.actors.stage import AT_ONCE


@dataclass(frozen=True, slots=True)
class Put:
    word: str


@dataclass(frozen=True, slots=True)
class Crash: ...


@dataclass(frozen=True, slots=True)
class Words:
    reply: Reply[list[str]]


@dataclass(frozen=True, slots=True)
class CrashAsked:
    reply: Reply[str]


@dataclass(frozen=True, slots=True)
class Ignored:
    reply: Reply[str]


@dataclass(frozen=True, slots=True)
class Block: ...


Message = Put | Crash | Words | CrashAsked | Ignored | Block


class Notebook(Actor[Message]):
    def __init__(self) -> None:
        self.words: list[str] = []

    async def receive(self, message: Message) -> None:
        match message:
            case Put(word):
                self.words.append(word)
            case Words(reply):
                reply(list(self.words))
                reply(["a second answer is ignored"])
            case Crash() | CrashAsked():
                raise ValueError("as asked")
            case Block():
                await asyncio.get_running_loop().create_future()
            case Ignored():
                pass


def notebook(restart: Restart = Restart.PERMANENT, limit: int = 1_000, **options: float) -> ChildSpec[Message]:
    return ChildSpec(
        "notebook",
        Notebook,
        restart=restart,
        backoff=AT_ONCE,
        mailbox=lambda: MemoryMailbox[Message](limit),
        stop_timeout=options.get("stop_timeout", 5.0),
    )


async def test_messages_are_handled_in_order() -> None:
    async with Supervisor("test") as root:
        ref = await root.start(notebook())
        for word in ("a", "b", "c"):
            await ref.tell(Put(word))

        assert await ref.ask(Words) == ["a", "b", "c"]


async def test_after_a_crash_a_fresh_actor_takes_over_the_mailbox_but_not_the_message() -> None:
    async with Supervisor("test") as root:
        ref = await root.start(notebook())
        for message in (Put("lost with the state"), Crash(), Put("kept")):
            ref.tell_nowait(message)

        assert await ref.ask(Words) == ["kept"]
        await until_restarted(root, "notebook", times=1)


async def test_asking_what_crashes_the_actor_raises_at_once_and_says_why() -> None:
    async with Supervisor("test") as root:
        ref = await root.start(notebook())

        with pytest.raises(ActorCrashed, match="'notebook' crashed on CrashAsked: ValueError: as asked") as raised:
            await ref.ask(CrashAsked)

        assert isinstance(raised.value.__cause__, ValueError)


async def test_an_ask_that_is_not_answered_times_out() -> None:
    async with Supervisor("test") as root:
        ref = await root.start(notebook())

        with pytest.raises(AskTimeout) as raised:
            await ref.ask(Ignored, timeout=0.01)

        assert isinstance(raised.value, TimeoutError)
        assert await ref.ask(Words) == []


async def test_an_ask_that_is_waiting_when_the_actor_ends_raises() -> None:
    async with Supervisor("test") as root:
        ref = await root.start(notebook())
        ref.tell_nowait(Block())
        asking = asyncio.create_task(ref.ask(Words, timeout=60))
        await asyncio.sleep(0)

        await root.stop("notebook")

        with pytest.raises(ActorDead):
            await asking


async def test_a_dead_actor_can_be_neither_told_nor_asked() -> None:
    async with Supervisor("test") as root:
        ref = await root.start(notebook())
        await root.stop("notebook")

        with pytest.raises(ActorDead, match="has ended"):
            await ref.tell(Put("late"))
        with pytest.raises(ActorDead):
            ref.notify(Put("late"))
        with pytest.raises(ActorDead):
            await ref.ask(Words)


async def test_a_full_mailbox_is_an_error_at_once_or_after_waiting_for_room() -> None:
    async with Supervisor("test") as root:
        ref = await root.start(notebook(limit=1, stop_timeout=1))
        ref.tell_nowait(Block())
        await asyncio.sleep(0)
        ref.tell_nowait(Put("waits"))

        with pytest.raises(MailboxFull, match="'notebook'"):
            ref.tell_nowait(Put("too much"))
        with pytest.raises(MailboxFull):
            await ref.tell(Put("too much"), timeout=0.01)


async def test_telling_and_asking_wait_for_room() -> None:
    async with Supervisor("test") as root:
        ref = await root.start(notebook(limit=2))

        for number in range(50):
            await ref.tell(Put(str(number)))

        assert len(await ref.ask(Words)) == 50


async def test_stopping_handles_what_was_told_before_and_refuses_what_comes_after() -> None:
    seen: list[str] = []

    class Recorder(Actor[str]):
        async def receive(self, message: str) -> None:
            seen.append(message)

    async with Supervisor("test") as root:
        ref = await root.start(ChildSpec("recorder", Recorder))
        ref.tell_nowait("before")
        ref.stop()

        with pytest.raises(ActorDead, match="was told to stop"):
            ref.tell_nowait("after")

        assert await ref.wait() == Shutdown()
        assert seen == ["before"]
        assert "recorder" not in root


async def test_an_actor_can_stop_itself() -> None:
    class Once(Actor[str]):
        async def receive(self, message: str) -> None:
            self.ref.stop()

    async with Supervisor("test") as root:
        ref = await root.start(ChildSpec("once", Once))
        ref.tell_nowait("go")

        assert await ref.wait() == Shutdown()


async def test_the_hooks_run_around_every_life_and_see_the_exit() -> None:
    log: list[str] = []

    class Hooked(Actor[str]):
        async def started(self) -> None:
            log.append("started")

        async def receive(self, message: str) -> None:
            raise ValueError

        async def stopped(self, exit: Exit) -> None:
            await asyncio.sleep(0)
            log.append(str(exit))

    async with Supervisor("test") as root:
        ref = await root.start(ChildSpec("hooked", Hooked, backoff=AT_ONCE))
        ref.tell_nowait("crash")
        await until_restarted(root, "hooked")

    assert log == ["started", "crashed: ValueError", "started", "shutdown"]


async def test_a_hook_that_fails_fails_the_start() -> None:
    class Broken(Actor[str]):
        async def started(self) -> None:
            raise OSError("no")

    async with Supervisor("test") as root:
        with pytest.raises(ChildStartFailed) as raised:
            await root.start(ChildSpec("broken", Broken))

        assert isinstance(raised.value.__cause__, OSError)
        assert "broken" not in root


async def test_an_actor_that_never_waits_lets_others_run() -> None:
    class Busy(Actor[str]):
        async def receive(self, message: str) -> None:
            self.ref.notify(message)

    async with Supervisor("test") as root:
        ref = await root.start(ChildSpec("busy", Busy))
        ref.tell_nowait("for ever")

        assert await root.stop("busy") == Shutdown()


async def test_a_crash_of_a_temporary_actor_is_its_end() -> None:
    async with Supervisor("test") as root:
        ref = await root.start(notebook(Restart.TEMPORARY))
        ref.tell_nowait(Crash())

        assert isinstance(await ref.wait(), Crashed)


async def test_a_ref_for_many_messages_is_a_ref_for_some_of_them() -> None:
    async def put(ref: Ref[Put]) -> None:
        await ref.tell(Put("x"))

    async with Supervisor("test") as root:
        ref = await root.start(notebook())
        await put(ref)

        assert repr(ref) == "<Ref notebook: alive, 1 messages>"
        assert await ref.ask(Words) == ["x"]


async def test_backoff_is_kept_while_messages_wait() -> None:
    async with Supervisor("test") as root:
        ref = await root.start(ChildSpec("notebook", Notebook, backoff=Backoff(first=60, longest=60, jitter=False)))
        ref.tell_nowait(Crash())
        ref.tell_nowait(Put("waits"))

        await until(root, lambda: root.snapshot().restarting == 1)

        assert root.snapshot().children[0].mailbox_depth == 1
