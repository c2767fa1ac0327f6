"""The short form of ``make chaos``: a worker and a driver are killed in one small search."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.settings import Settings
from tests.chaos.alone import trained_alone
from tests.chaos.faults import KINDS
from tests.chaos.lent import LentWorld
from tests.chaos.searches import SHORT
from tests.chaos.suite import Suite, plan
from tests.chaos.world import World


@pytest.fixture
def lent(servers: Settings, tmp_path: Path) -> Iterator[World]:
    found = LentWorld(tmp_path, servers, SHORT)
    found.start()
    yield found
    found.close()


@pytest.mark.servers
@pytest.mark.timeout(900)  # a minute on a quiet machine, and much more beside others
def test_a_search_loses_nothing_to_a_killed_worker_and_a_killed_driver(lent: World) -> None:
    suite = Suite(lent, seed=0, kinds=["kill worker", "kill driver"])
    suite.wanted = trained_alone(lent.file, lent.root / "prepared")
    suite.inject([0, 1])
    assert suite.violations == []
    assert [hit.recovered_s is not None for hit in suite.hits] == [True, True]


def test_each_kind_comes_once_before_any_comes_again() -> None:
    kinds = list(KINDS)
    for first in range(0, 3 * len(kinds), len(kinds)):
        of_a_deck = {plan(7, index, kinds).kind for index in range(first, first + len(kinds))}
        assert of_a_deck == set(kinds)


def test_a_fault_is_the_same_whichever_others_are_made() -> None:
    assert plan(3, 17, list(KINDS)) == plan(3, 17, list(KINDS))
    assert plan(3, 17, list(KINDS)) != plan(4, 17, list(KINDS))
