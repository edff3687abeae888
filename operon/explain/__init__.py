"""Why a workflow is not running, in one sentence: `explain(subject, cluster)`.

The rule: a plain function of what was read, so that a page, a command and a test say the same. The questions are asked
in a fixed order, and the first that is answered wins. Where nothing is wrong, the sentence says so.
"""

from __future__ import annotations

from operon.explain.facts import (
    Cluster,
    Doing,
    Error,
    Place,
    SetAside,
    Subject,
    Suspended,
    Target,
    Usual,
    Wait,
    WaitCode,
    Why,
)
from operon.explain.reasons import explain

__all__ = [
    "Cluster",
    "Doing",
    "Error",
    "Place",
    "SetAside",
    "Subject",
    "Suspended",
    "Target",
    "Usual",
    "Wait",
    "WaitCode",
    "Why",
    "explain",
]
