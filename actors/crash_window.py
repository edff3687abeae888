"""How many different children have crashed of late: what tells a bad child from a bad day."""

from __future__ import annotations

from actors.restart import Intensity

__all__ = ["CrashWindow"]


class CrashWindow:
    """The last crash of each child, oldest first, and never more of them than it takes to judge the window."""

    __slots__ = ("_crashes", "intensity")

    def __init__(self, intensity: Intensity) -> None:
        self.intensity = intensity
        self._crashes: dict[str, float] = {}

    def overflows(self, name: str, now: float) -> bool:
        """Note a crash, and say whether that is one child too many. If so, the window begins anew."""
        crashes = self._crashes
        crashes.pop(name, None)
        if self.intensity.full(crashes.values(), now):
            crashes.clear()
            return True
        crashes[name] = now
        if len(crashes) > self.intensity.restarts:
            del crashes[next(iter(crashes))]
        return False

    def used(self, now: float) -> int:
        """Count the children that crashed within the window."""
        return self.intensity.used(self._crashes.values(), now)

    def clear(self) -> None:
        """Forget all crashes."""
        self._crashes.clear()
