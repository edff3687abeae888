"""A bank for the ticket examples. Like a real one it is slow, says no, and charges once for one idempotency key.

Its ledger is a file with a line for each charge, so that they can be counted whatever crashed meanwhile.
"""

import asyncio
import logging
from pathlib import Path

log = logging.getLogger("pretend_bank")


class PretendBank:
    """It charges first and answers `answer_seconds` later: time to kill whoever waits for the answer."""

    def __init__(self, ledger: Path, answer_seconds: float) -> None:
        self.ledger = ledger
        self.answer_seconds = answer_seconds

    async def charge(self, card: str, cents: int, key: str) -> bool:
        """Whether the money was taken, now or when the same key was seen before."""
        if card == "declined":
            return False
        if key in self.charged():
            log.info("Key %s again: nothing more to charge", key)
            return True
        self._write(f"{key} {cents} cents from card {card}")
        log.info("Key %s: charged %s cents, the answer takes %s s", key, cents, self.answer_seconds)
        await asyncio.sleep(self.answer_seconds)
        return True

    def charged(self) -> list[str]:
        """The key of every charge, oldest first."""
        return [line.split()[0] for line in self.ledger.read_text().splitlines()] if self.ledger.exists() else []

    def _write(self, line: str) -> None:
        self.ledger.parent.mkdir(parents=True, exist_ok=True)
        with self.ledger.open("a") as ledger:
            ledger.write(line + "\n")
