"""Workers without trainings: they ask the search, take their time, and report made-up epochs."""

import heapq
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tuning.conductor import Conductor, Progress
from tuning.events import SearchEvents, Work
from tuning.exits import ExitReason
from tuning.grid import Configuration, configuration
from tuning.records import EpochRecord
from tuning.simulation.clock import VirtualClock
from tuning.simulation.surrogates import Curve
from tuning.space import Settings
from tuning.spec import SearchSpec
from tuning.storage import Storage
from tuning.storing import AtOnce
from tuning.study import Study

Trainings = Callable[[Settings], Curve]


@dataclass(frozen=True)
class Found:
    """A new best error that the search has seen."""

    epochs: int
    """Epochs trained until then, by all workers."""
    gpu_hours: float
    seen_deg: float
    true_deg: float
    """The same without noise."""


@dataclass
class Trace:
    """What a simulated search spent and found."""

    epochs: int = 0
    gpu_s: float = 0.0
    seconds: float = 0.0
    """Until its last report."""
    stretches: int = 0
    found: list[Found] = field(default_factory=list)

    def true_deg_after(self, epochs: int) -> float:
        """Error without noise of the configuration that looked best after so many epochs."""
        known = [f.true_deg for f in self.found if f.epochs <= epochs]
        return known[-1] if known else math.inf

    def arrival(self, target_deg: float) -> Found | None:
        """When what looked best first was as good as ``target_deg``."""
        return next((f for f in self.found if f.true_deg <= target_deg), None)


@dataclass
class _Stretch:
    number: int
    attempt: int
    curve: Curve
    key: Configuration
    epoch: int


class Simulator:
    """``workers`` GPUs that train for a search until it ends, or ``max_epochs`` are spent."""

    def __init__(
        self,
        events: SearchEvents,
        trainings: Trainings,
        clock: VirtualClock,
        workers: int,
        max_epochs: int | None = None,
    ) -> None:
        self._events, self._trainings, self._clock = events, trainings, clock
        self._free, self._max_epochs = workers, max_epochs
        self._began_ms = clock()
        self._due: list[tuple[int, int, _Stretch]] = []
        self._stored: dict[Configuration, int] = {}
        """Epochs of a configuration of which checkpoints exist."""
        self.trace = Trace()

    def run(self) -> Trace:
        for _ in self.steps():
            pass
        return self.trace

    def steps(self) -> Iterator[None]:
        """Runs the search; pauses after every report, so that a test can look."""
        while not self._must_end():
            self._hand_out()
            if not self._due:
                return
            at_ms, _, stretch = heapq.heappop(self._due)
            self._clock.move_to(at_ms)
            self.trace.seconds = (at_ms - self._began_ms) / 1000
            if self._train(stretch):
                self._schedule(stretch)
            else:
                self._free += 1
            yield

    def _must_end(self) -> bool:
        spent = self._max_epochs is not None and self.trace.epochs >= self._max_epochs
        return spent or self._events.must_end()

    def _hand_out(self) -> None:
        while self._free:
            work = self._events.next_trial()
            if not isinstance(work, Work):
                return
            self.trace.stretches += 1
            self._start(work)

    def _start(self, work: Work) -> None:
        self._events.on_start(work.number, work.attempt, "simulated", 0)
        curve, key = self._trainings(work.parameters), configuration(work.parameters)
        if curve.out_of_memory:
            self._events.on_end(work.number, work.attempt, ExitReason.OUT_OF_MEMORY, "simulated")
            return
        stretch = _Stretch(work.number, work.attempt, curve, key, 0)
        for _ in range(self._stored.get(key, 0)):
            stretch.epoch += 1
            if not self._report(stretch, restored=True):
                return
        self._free -= 1
        self._schedule(stretch)

    def _schedule(self, stretch: _Stretch) -> None:
        due_ms = self._clock() + round(1000 * stretch.curve.seconds)
        heapq.heappush(self._due, (due_ms, stretch.number, stretch))

    def _train(self, stretch: _Stretch) -> bool:
        """One epoch; says whether the stretch goes on."""
        stretch.epoch += 1
        self.trace.epochs += 1
        self.trace.gpu_s += stretch.curve.seconds
        if stretch.curve.crashes_in == stretch.epoch:
            attempt = stretch.attempt
            self._events.on_end(stretch.number, attempt, ExitReason.CRASHED, "simulated")
            return False
        seen = float(stretch.curve.seen_deg[stretch.epoch - 1])
        if math.isfinite(seen):
            self._stored[stretch.key] = stretch.epoch
            if not self.trace.found or seen < self.trace.found[-1].seen_deg:
                true = float(stretch.curve.true_deg[: stretch.epoch].min())
                hours = self.trace.gpu_s / 3600
                self.trace.found.append(Found(self.trace.epochs, hours, seen, true))
        return self._report(stretch, restored=False)

    def _report(self, stretch: _Stretch, *, restored: bool) -> bool:
        seen = float(stretch.curve.seen_deg[stretch.epoch - 1])
        # As a latency stands what a network costs: any number that differs between networks.
        seconds = stretch.curve.seconds
        metrics = {"val_mae": seen, "epoch_seconds": seconds, "latency_ms": seconds}
        record = EpochRecord(stretch.epoch, self._clock(), metrics, "simulated", restored)
        return self._events.on_epoch(stretch.number, stretch.attempt, record)


def _ignored(*_: object, **__: object) -> None: ...


class Silent(Progress):
    """Progress that nobody watches."""

    line = started = goes_on = epoch = ended = _ignored


def simulate(
    spec: SearchSpec, trainings: Trainings, workers: int, max_epochs: int | None = None
) -> tuple[Trace, Study]:
    """A whole search in memory: the trace, and the study that it left."""
    clock = VirtualClock()
    spec = spec.model_copy(update={"warm_start": ()})  # no earlier search lies in memory
    study = Storage.in_memory().create(spec.name, spec, "simulated", clock)
    conductor = Conductor(study, Silent(), AtOnce(), clock)
    trace = Simulator(conductor, trainings, clock, workers, max_epochs).run()
    study.finish_running(ExitReason.SEARCH_ENDED, conductor.ended_by)
    study.end(conductor.ended_by)
    return trace, study
