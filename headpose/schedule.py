"""What changes from epoch to epoch: the learning rate, and whether the stem may learn.

Pure functions of the configuration. Two configurations that differ only in the fields named here
train alike up to the first epoch in which their schedules differ.
"""

from dataclasses import dataclass

from headpose.config import TrainConfig
from usererror import UserError

# The fields of TrainConfig that act only through the schedule; all others are static.
SCHEDULE_FIELDS = ("learning_rate", "decay_rate", "unfreeze_epoch", "second_learning_rate")


@dataclass(frozen=True)
class EpochSchedule:
    """One epoch's share of the schedule; ``learning_rate`` is the body's, not the heads'."""

    learning_rate: float
    stem_frozen: bool


def schedule_of(config: TrainConfig, epoch: int) -> EpochSchedule:
    """The schedule of an epoch; epochs count from 1.

    Raises:
        UserError: ``epoch`` is below 1.
    """
    if epoch < 1:
        raise UserError("epoch", "there is no such epoch", got=epoch, rule="epochs count from 1")
    stem_frozen = epoch <= config.unfreeze_epoch
    if config.second_learning_rate is not None and not stem_frozen:
        decays = epoch - config.unfreeze_epoch - 1
        return EpochSchedule(config.second_learning_rate * config.decay_rate**decays, False)
    return EpochSchedule(config.learning_rate * config.decay_rate ** (epoch - 1), stem_frozen)
