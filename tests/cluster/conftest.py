"""Fixtures that tests of the local servers share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.local import processes
from cluster.local.state import StateDir


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDir]:
    """A state directory with a space in its name; servers called ``toy`` end with the test."""
    directory = StateDir(tmp_path / "a state")
    directory.create()
    yield directory
    for process in processes.marked(directory.root, ["toy"]):
        process.kill()
