"""What a question carries, and what answers it: `Total(reply)` in, `reply(42)` out."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

__all__ = ["Reply"]

T_contra = TypeVar("T_contra", contravariant=True)


class Reply(Generic[T_contra]):
    """Answers one `ask`, once. An answer that comes second, or after the asker left, is ignored."""

    __slots__ = ("_answer",)

    def __init__(self, answer: asyncio.Future[T_contra]) -> None:
        self._answer = answer

    def __call__(self, answer: T_contra) -> None:
        """Answer. From the actor's event loop only."""
        if not self._answer.done():
            self._answer.set_result(answer)

    def fail(self, error: Exception) -> None:
        """Answer with an error, which is raised where `ask` waits."""
        if not self._answer.done():
            self._answer.set_exception(error)

    def __repr__(self) -> str:
        return f"<Reply {'given' if self._answer.done() else 'awaited'}>"
