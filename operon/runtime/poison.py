"""Poison: a message at whose receipt its workflow crashes again and again. Where the topic says so, it is set aside.

The rule: a receipt is taken back only when it is the last that a workflow has recorded, and only between two lives. A
life that is about to be given such a message ends instead; when all of it is flushed, one transaction takes the receipt
out of the records, puts the message among the dead letters and parks the workflow, whose next life receives what comes
after it. A step that was recorded since is progress, and then the message was not what it crashed at.

It is done at the receipt and not at the crash, because only the code knows the topic, and because a process that died
cannot do it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from operon.database import dead_letters
from operon.database.checkpoints import Checkpoint
from operon.errors import DecodingError, Evicted
from operon.failures import decode_record
from operon.masking import masked_logger
from operon.runtime import messages
from operon.runtime.events import Kind, clean
from operon.runtime.waits import WaitKind
from operon.topics import Topic

if TYPE_CHECKING:
    from operon.runtime.incarnation import Incarnation
    from operon.runtime.workflow_actor import WorkflowActor

logger = masked_logger("operon.workflows")

DETAIL_MAX = 16_000  # characters of what the receiver crashed with


def refuse_poison(
    incarnation: Incarnation,
    actor: WorkflowActor,
    recorded: Checkpoint,
    topics: Mapping[str | None, Topic[Any] | str | None],
) -> None:
    """Ends this life instead of giving it a message at which it has crashed too often. Raises Evicted."""
    journal = actor.journal
    if journal is None or not recorded.output:
        return
    name, body = messages.read_any(recorded.output) if len(topics) > 1 else (next(iter(topics)), recorded.output)
    topic = topics.get(name)
    if not isinstance(topic, Topic) or topic.on_poison == "stop":
        return
    if not journal.ends_with(recorded) or actor.crashes_here < incarnation.endings.deliveries(topic.max_deliveries):
        return
    actor.halt(Evicted("a message is set aside"))
    incarnation.endings.set_aside(actor, recorded.step, name, body)
    if journal.halted is not None:
        raise journal.halted


async def set_aside(incarnation: Incarnation, actor: WorkflowActor, step: int, topic: str | None, body: bytes) -> None:
    """Makes a dead letter of a received message, and has the workflow brought back without it."""
    try:
        await _set_aside(incarnation, actor, step, topic, body)
    except Exception:
        logger.exception("a message could not be set aside; this executor starts again")
        incarnation.fence()


async def _set_aside(incarnation: Incarnation, actor: WorkflowActor, step: int, topic: str | None, body: bytes) -> None:
    uuid, name, times = actor.workflow_uuid, actor.operation.name, actor.crashes_here
    await incarnation.committer.drained()
    stored = await incarnation.look_ups.ask(lambda connection: dead_letters.last_error(connection, uuid))
    detail = f"crashed {name!r} {times} times in a row at step {step}{cause(stored)}"
    done = await incarnation.look_ups.ask(
        lambda connection: dead_letters.set_aside(
            connection, incarnation.number, uuid, actor.epoch, step, topic, body, times, detail, WaitKind.CRASH
        )
    )
    incarnation.endings.unsettled.discard(uuid)
    if done is not None:
        incarnation.activator.wake(uuid)
    if done:
        under = "without a topic" if topic is None else f"under {topic!r}"
        text = f"{name} {uuid} crashed {times} times at a message {under}, which is a dead letter now"
        incarnation.record_of(uuid, name, Kind.SET_ASIDE, text)


def cause(stored: bytes | None) -> str:
    """What the last crash says, with its traceback."""
    try:
        record = None if stored is None else decode_record(stored)
    except DecodingError:
        record = None
    if record is None:
        return ": its process died"
    return clean(f", the last time with {record.type_name}: {record.message}\n{record.traceback}"[:DETAIL_MAX])
