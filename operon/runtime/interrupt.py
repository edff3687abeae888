"""Gets an endless loop of a workflow out of the way: it blocks the event loop, and with it every other workflow.

Only another thread can notice that, and only by an exception in the thread that is stuck can it be ended: Python raises
one there before the next bytecode. It is raised only while a workflow is being run, so that what is hit is a workflow
and not the runtime. Then that workflow has crashed, which counts against its budget, and all the others go on. A call
that never comes back from C cannot be interrupted: its process loses its lease, and others take over.
"""

from __future__ import annotations

import ctypes
import sys
from types import FrameType

from operon.masking import masked_logger
from operon.runtime.workflow_actor import WorkflowActor

logger = masked_logger("operon.executor")

LIFE = WorkflowActor.outcome.__code__


class LoopBlocked(BaseException):
    """A workflow computed for so long that nothing else could run. Not an Exception, or its own code would catch it."""


def interrupt(thread: int) -> bool:
    """Ends what a workflow does in a thread; False when that thread does something else."""
    frame = sys._current_frames().get(thread)  # pyright: ignore[reportPrivateUsage] - the documented way
    actor = running(frame)
    if actor is None:
        return False
    logger.error("%r blocks the event loop and is interrupted, in %s", actor, place(frame))
    raised: int = ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(LoopBlocked))
    return raised == 1


def running(frame: FrameType | None) -> WorkflowActor | None:
    """The workflow whose body this frame was called from."""
    while frame is not None:
        if frame.f_code is LIFE:
            actor = frame.f_locals.get("self")
            return actor if isinstance(actor, WorkflowActor) else None
        frame = frame.f_back
    return None


def place(frame: FrameType | None) -> str:
    return "?" if frame is None else f"{frame.f_code.co_name} ({frame.f_code.co_filename}:{frame.f_lineno})"
