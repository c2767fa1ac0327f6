"""What a trial gets of a cluster, and how many run at a time."""

import pytest

from tuning.capacity import at_a_time, gpus_of_a_trial
from usererror import UserError


def test_a_search_that_begins_takes_what_there_is() -> None:
    assert gpus_of_a_trial(1.0, 4.0, has_had_gpus=False) == 1.0
    assert gpus_of_a_trial(1.0, 0.0, has_had_gpus=False) == 0.0
    assert gpus_of_a_trial(0.0, 4.0, has_had_gpus=False) == 0.0
    with pytest.raises(UserError, match=r"more than there are; got 2"):
        gpus_of_a_trial(2.0, 1.0, has_had_gpus=False)


@pytest.mark.parametrize("offered", [0.0, 1.0, 4.0])
def test_a_search_that_has_had_gpus_waits_for_them(offered: float) -> None:
    assert gpus_of_a_trial(2.0, offered, has_had_gpus=True) == 2.0


def test_as_many_trials_as_there_is_room_for() -> None:
    assert at_a_time(None, 1.0, 4.0) == 4
    assert at_a_time(None, 2.0, 5.0) == 2
    assert at_a_time(None, 0.1, 0.3) == 3
    assert at_a_time(None, 1.0, 0.0) == 1
    assert at_a_time(None, 0.0, 4.0) == 1
    assert at_a_time(7, 1.0, 2.0) == 7
