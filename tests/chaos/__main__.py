"""``make chaos N=50 SEED=0``: faults of all kinds on real processes; fails if any invariant did.

python -m tests.chaos --faults 50 --seed 0 --results epyc-2-cores
python -m tests.chaos --only 17 --seed 0
"""

import argparse
import datetime
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.report import keep
from tests.chaos.faults import KINDS
from tests.chaos.searches import LONG
from tests.chaos.suite import Suite, say
from tests.chaos.table import by_kind, rows
from tests.chaos.world import world

NODES = 3


def main() -> int:
    """Runs what the arguments ask for."""
    given = _arguments()
    # What is exported for real work, servers or a state directory, is nothing to break.
    for name in [name for name in os.environ if name.upper().startswith("HOPETUNE_")]:
        del os.environ[name]
    indices = given.only or range(given.start, given.start + given.faults)
    root = Path(tempfile.mkdtemp(prefix="hopetune-chaos-"))
    began_s = time.time()
    with world(root, NODES, LONG) as found:
        suite = Suite(found, given.seed, [k for k in KINDS if k not in (given.without or ())])
        if not found.nodes_have_small_disks():
            say("no small disks (mounting one needs root): `fill disk` is left out")
            suite.kinds = [kind for kind in suite.kinds if kind != "fill disk"]
        try:
            suite.undisturbed()
            suite.inject(list(indices))
        except KeyboardInterrupt:
            suite.violations.append("interrupted: the last search was not checked")
    _tell(suite, given, time.time() - began_s)
    if not suite.violations:
        shutil.rmtree(root, ignore_errors=True)
    else:
        say(f"logs are in {root}")
    return 1 if suite.violations else 0


def _tell(suite: Suite, given: argparse.Namespace, seconds: float) -> None:
    minutes = datetime.timedelta(seconds=round(seconds))
    faults = "\n".join(f"- {text}" for text in suite.violations) or "None: all invariants hold."
    text = (
        f"{len(suite.hits)} faults of {len({h.kind for h in suite.hits})} kinds in "
        f"{suite.searches} searches of {LONG.trials} trials × {LONG.epochs} epochs, seed "
        f"{suite.seed}, in {minutes}. {NODES} worker nodes, two trials at a time.\n\n"
        f"## Violations\n\n{faults}\n\n## By kind\n\n{by_kind(suite.hits)}\n\n"
        f"## Every fault\n\n{rows(suite.hits)}\n"
    )
    given.keep = given.results
    keep("chaos", text, given, module="tests.chaos")


def _arguments() -> argparse.Namespace:
    found = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    found.add_argument("--faults", type=int, default=50)
    found.add_argument("--seed", type=int, default=0)
    found.add_argument("--start", type=int, default=0, help="index of the first fault")
    found.add_argument("--only", type=int, nargs="*", help="indices of faults, instead of --faults")
    found.add_argument("--without", nargs="*", choices=list(KINDS), help="kinds to leave out")
    found.add_argument("--results", metavar="HARDWARE", help="write benchmarks/results/chaos_…md")
    return found.parse_args()


if __name__ == "__main__":
    sys.exit(main())
