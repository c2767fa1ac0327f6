"""When a silent worker counts as hung."""

from tuning.spec import Resources
from tuning.stalls import Pace, limit_s, longest

LIMITS = Resources(stall_factor=10, stall_minutes=1, start_minutes=5)


def test_a_trials_own_epochs_say_more_than_those_of_others() -> None:
    assert limit_s(Pace(own_s=30.0, others_s=600.0), begins=False, resources=LIMITS) == 300
    assert limit_s(Pace(own_s=None, others_s=600.0), begins=False, resources=LIMITS) == 6000


def test_short_epochs_have_a_floor() -> None:
    assert limit_s(Pace(own_s=0.5, others_s=0.5), begins=False, resources=LIMITS) == 60


def test_whoever_begins_may_fetch_its_data_first() -> None:
    assert limit_s(Pace(own_s=0.5, others_s=0.5), begins=True, resources=LIMITS) == 300
    assert limit_s(Pace(own_s=None, others_s=None), begins=True, resources=LIMITS) == 300
    assert limit_s(Pace(own_s=90.0, others_s=None), begins=True, resources=LIMITS) == 900


def test_the_slowest_epoch_is_what_is_expected() -> None:
    assert longest([3.0, 9.0, 4.0]) == 9.0
    assert longest([]) is None
