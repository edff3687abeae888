"""`python -m tests.chaos --seconds 90 --seed 7`: a run, its figures and its verdict.

Exit codes: 0 all is well; 1 something is violated; 2 the run proves nothing, because too few faults have bitten.
"""

from __future__ import annotations

import argparse
import secrets
import shutil
import sys
import tempfile
import time
from pathlib import Path

from operon.runtime.loop import run as run_loop
from tests.chaos.evidence import guards
from tests.chaos.plan import FULL_SECONDS
from tests.chaos.run import Verdict, run


def main() -> int:
    options = arguments()
    folder = Path(tempfile.mkdtemp(prefix="operon-chaos-", dir="/tmp"))
    print(f"seed {options.seed}: {options.seconds:g} s, {options.executors} executors, {folder}", flush=True)
    began = time.monotonic()
    verdict = run_loop(run(folder, options.seed, options.seconds, options.executors, options.lease, options.at_most))
    print(report(verdict, options.seconds))
    took = f"{time.monotonic() - began:.0f} s in all, {verdict.rounds} rounds"
    print(f"{took}, {verdict.settled_seconds:.1f} s to settle; seed {options.seed}")
    for sentence in verdict.violations:
        print(f"VIOLATED {sentence}")
    for guard in verdict.missing:
        print(f"INVALID {guard}")
    if verdict.violations or verdict.missing or options.keep:
        print(f"the logs of the executors are in {folder}")
    else:
        shutil.rmtree(folder)
    return 1 if verdict.violations else 2 if verdict.missing else 0


def report(verdict: Verdict, seconds: float) -> str:
    least = guards(seconds)
    rows = [f"| {what} | {count:,} | {least.get(what) or ''} |" for what, count in verdict.counts.items()]
    return "\n".join(["| | counted | at least |", "|:--|--:|--:|", *rows])


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=FULL_SECONDS, help="of work and faults; 600 by default")
    parser.add_argument(
        "--at-most", type=float, default=0.0, help="go on so long if too few faults have bitten by then"
    )
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000), help="gives the same faults again")
    parser.add_argument("--executors", type=int, default=4)
    parser.add_argument("--lease", type=float, default=2.0, help="lease_seconds of the executors")
    parser.add_argument("--keep", action="store_true", help="leave the logs also of a run that went well")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
