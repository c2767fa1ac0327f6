"""What a search and whoever runs its trials say to each other: Ray Tune, or the simulator."""

from collections.abc import Collection
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
    attempt: int = 1
    """Whoever has it names it in all that it says: what a stale worker says is not listened to."""
    trained_epochs: int = 0
    """Epochs that were reported already, by whomever."""
    trained_s: float = 0.0
    """How long these took."""
    avoid: tuple[str, ...] = ()
    """Addresses of nodes that must not have it."""


class Idle(Enum):
    """There is nothing to train now."""

    WAIT = "running trials may free some"
    DONE = "nor will there be"


class SearchEvents(Protocol):
    """The search's side: decides from the study, writes into it."""

    def next_trial(self) -> Work | Idle:
        """What a free worker does next."""

    def on_start(self, number: int, attempt: int, node: str, pid: int) -> None:
        """Takes where a trial is being trained now: a node's address, and a process there."""

    def on_epoch(self, number: int, attempt: int, record: EpochRecord) -> bool:
        """Takes an epoch; says whether the trial goes on."""

    def on_note(self, number: int, text: str) -> None:
        """Takes what a trial's worker has to say to a person."""

    def on_end(self, number: int, attempt: int, cause: ExitReason, detail: str | None) -> None:
        """Takes the end of an attempt that said itself why it ends, or whose worker is gone.

        Whether the trial is over or goes on elsewhere is decided here: if it goes on, it is handed
        out again by ``next_trial``.
        """

    def hung(self) -> list[tuple[int, int]]:
        """Trials and attempts that are given up, as their workers say nothing any more; whoever
        runs these workers kills them."""

    def must_end(self) -> bool:
        """Whether running trials must stop now, too."""


class PlacedEvents(SearchEvents, Protocol):
    """The search's side towards whoever has nodes to place trials on."""

    def has_place(self, avoid: Collection[str]) -> bool:
        """Whether a node is left, or may come back, that is none of these: if not, a trial that
        waits for one is handed back, as preempted."""
