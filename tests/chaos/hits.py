"""One fault and what came of it."""

from dataclasses import dataclass, field


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
    """Seconds of training that were done twice, of the unfinished epoch included."""
    note: str = ""
    violations: list[str] = field(default_factory=list)

    def hits(self, trial: int) -> bool:
        return self.trials is None or trial in self.trials
