"""``none``: every trial is trained to its end."""

from tuning.rules.base import NeverPausing, Verdict
from tuning.spec import Stopping


class Never(NeverPausing):
    def __init__(self, settings: Stopping, last_epoch: int) -> None:
        pass

    def enter(self, trial: int, epoch: int, value: float) -> None:
        pass

    def verdict(self, trial: int, epoch: int) -> Verdict:  # noqa: ARG002
        return Verdict.GO_ON
