"""How long 10,000 trials take in the simulator: the real study, rules and sampler on one core.

python -m benchmarks.simulator --keep epyc-2-cores
"""

import time

import numpy as np

from benchmarks.report import keep, parser, table
from tuning.simulation.simulator import simulate
from tuning.simulation.surrogates import SPACE, Curve
from tuning.spec import Budget, Data, Sampler, SearchSpec, Stopping

TRIALS, EPOCHS, WORKERS = 10_000, 27, 16
AIM_S = 60.0


def main() -> None:
    given = parser(__doc__.split("\n")[0]).parse_args()
    rng = np.random.default_rng(5)

    def flat_curve() -> Curve:
        level = np.full(EPOCHS, rng.normal(10, 1))
        return Curve(level, level, seconds=100)

    spec = SearchSpec(
        name="simulated",
        data=Data(train="simulated"),
        parameters=SPACE,
        sampler=Sampler(name="random"),
        stopping=Stopping(rule="promotion"),
        budget=Budget(trials=TRIALS, epochs=EPOCHS),
    )
    began = time.process_time()
    trace, study = simulate(spec, lambda _: flat_curve(), WORKERS)
    seconds = time.process_time() - began
    found = len(study.record().trials)
    aim = "met" if found == TRIALS and seconds < AIM_S else "missed"
    columns = ("trials", "epochs", "workers", "seconds of a core", f"aim < {AIM_S:g} s")
    keep(
        "simulator", table(columns, [(found, trace.epochs, WORKERS, f"{seconds:.1f}", aim)]), given
    )


if __name__ == "__main__":
    main()
