"""One fault and what came of it."""

from dataclasses import dataclass, field

LOSES_WORKERS = frozenset(
    {
        *("kill worker", "preempt worker", "stall worker", "kill node", "freeze node"),
        *("kill driver", "kill head", "damage checkpoint", "fill disk"),
    }
)


@dataclass
class Hit:
    """A fault that was injected; times in seconds since the epoch."""

    index: int
    kind: str
    search: str
    target: str
    at_s: float
    trials: set[int] | None = None
    """The trials that lost their worker; none: all that ran."""
    mended_s: float | None = None
    """When what was broken was there again, where somebody had to mend it."""
    detected_s: float | None = None
    recovered_s: float | None = None
    damaged: set[str] = field(default_factory=set)
    """Keys of checkpoints that were damaged."""
    lost_epochs: int = 0
    lost_s: float = 0.0
    """Seconds of training that were in vain: of epochs trained again, and of the one in flight."""
    note: str = ""
    violations: list[str] = field(default_factory=list)

    @property
    def loses_workers(self) -> bool:
        """Whether it takes their workers from the trials that it hits."""
        return self.kind in LOSES_WORKERS

    def hits(self, trial: int) -> bool:
        return self.trials is None or trial in self.trials
