"""Why a trial, or an attempt at it, ended: a type, each reason with exactly one fate in the study
and in MLflow. Which of them end a trial only after several attempts: ``tuning/attempts.py``."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

StudyState = Literal["COMPLETE", "PRUNED", "FAIL"]
RunStatus = Literal["FINISHED", "KILLED", "FAILED", "SCHEDULED"]


class ExitReason(StrEnum):
    """Why a trial ended."""

    COMPLETED = "completed"
    STOPPED_EARLY = "stopped_early"
    PAUSED = "paused"
    DIVERGED = "diverged"
    OUT_OF_MEMORY = "out_of_memory"
    INVALID_CONFIG = "invalid_config"
    CRASHED = "crashed"
    PREEMPTED = "preempted"
    STALLED = "stalled"
    DISK_FULL = "disk_full"
    UNFIT_NODE = "unfit_node"
    SEARCH_ENDED = "search_ended"


@dataclass(frozen=True)
class Fate:
    """What a reason means for the study, for MLflow and for a reader."""

    study_state: StudyState
    """PRUNED goes with all values that were reported."""
    run_status: RunStatus
    meaning: str


FATES: dict[ExitReason, Fate] = {
    ExitReason.COMPLETED: Fate("COMPLETE", "FINISHED", "trained to its last epoch"),
    ExitReason.STOPPED_EARLY: Fate("PRUNED", "KILLED", "stopped early: others did better by then"),
    # Told like a stopped trial: that is what is known of it until it is taken up again.
    ExitReason.PAUSED: Fate("PRUNED", "SCHEDULED", "paused: goes on if it comes to lead its rung"),
    # PRUNED, so that the sampler learns to keep away; FAIL would be ignored by it.
    ExitReason.DIVERGED: Fate("PRUNED", "FAILED", "loss or error became NaN or infinite"),
    ExitReason.OUT_OF_MEMORY: Fate("PRUNED", "FAILED", "does not fit into the GPU's memory"),
    ExitReason.INVALID_CONFIG: Fate("FAIL", "FAILED", "a configuration that cannot be trained"),
    ExitReason.CRASHED: Fate("FAIL", "FAILED", "its worker failed more often than allowed"),
    # Trials go on after these four (tuning/attempts.py); so they end only where none can.
    ExitReason.PREEMPTED: Fate("FAIL", "FAILED", "its worker was taken away"),
    ExitReason.STALLED: Fate("FAIL", "FAILED", "its epochs hung more often than allowed"),
    ExitReason.DISK_FULL: Fate("FAIL", "FAILED", "no node was left that had room on its disk"),
    ExitReason.UNFIT_NODE: Fate("FAIL", "FAILED", "its node lacked what a training needs"),
    ExitReason.SEARCH_ENDED: Fate("PRUNED", "KILLED", "the search was stopped or its budget ended"),
}
