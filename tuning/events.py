"""What a search and whoever runs its trials say to each other: Ray Tune, or the simulator."""

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from tuning.exits import ExitReason
from tuning.records import EpochRecord
from tuning.space import Settings


@dataclass(frozen=True)
class Work:
    """A stretch of training: a new trial, or one that goes on."""

    number: int
    parameters: Settings


class Idle(Enum):
    """There is nothing to train now."""

    WAIT = "running trials may free some"
    DONE = "nor will there be"


class SearchEvents(Protocol):
    """The search's side: decides from the study, writes into it."""

    def next_trial(self) -> Work | Idle:
        """What a free worker does next."""

    def on_epoch(self, number: int, record: EpochRecord, node: str) -> bool:
        """Takes an epoch; says whether the trial goes on."""

    def on_note(self, number: int, text: str) -> None:
        """Takes what a trial's worker has to say to a person."""

    def on_end(self, number: int, reason: ExitReason, detail: str | None) -> None:
        """Takes the end of a trial that said itself why it ends, or that failed for good."""

    def must_end(self) -> bool:
        """Whether running trials must stop now, too."""
