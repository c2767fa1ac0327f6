"""A cluster that grows while it searches, and one that comes back without its GPUs."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.nodes import wait_until
from tests.chaos.searches import Size
from tests.chaos.world import World, world
from tuning.exits import ExitReason
from tuning.records import SearchRecord
from tuning.storage import Storage

PATIENCE_S = 200.0
SIZE = Size(faces=40, trials=4, epochs=20)


@pytest.fixture
def short_path() -> Iterator[Path]:
    """Unix sockets lie below it, whose paths end at 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="hopetune-") as name:
        yield Path(name)


def record_of(cluster: World, name: str) -> SearchRecord:
    with Storage(cluster.settings.require("study_url")) as storage:
        return storage.open(name).record()


def nodes_that_trained(cluster: World, name: str) -> set[str | None]:
    with Storage(cluster.settings.require("study_url")) as storage:
        if name not in storage.names():
            return set()
    return {
        attempt.node
        for trial in record_of(cluster, name).trials
        if trial.epochs
        for attempt in trial.attempts
    }


@pytest.mark.servers
@pytest.mark.timeout(900)  # two minutes on a quiet machine, and much more beside others
def test_a_node_that_joins_gets_trials_and_gpus_that_left_are_waited_for(short_path: Path) -> None:
    with world(short_path, 2, SIZE) as cluster:
        # As many trials at a time as there are GPUs.
        text = cluster.file.read_text("utf-8").replace("parallel_trials: 2, ", "")
        cluster.file.write_text(text, "utf-8")
        first, second = cluster.nodes
        driver = cluster.driver("changing")

        def trained(address: str) -> bool:
            return address in nodes_that_trained(cluster, "changing")

        cluster.nodes = [first]
        cluster.have_nodes()
        driver.start()
        wait_until(lambda: trained(first.address), PATIENCE_S, "a trial trains")
        cluster.nodes = [first, second]
        second.start()
        wait_until(lambda: trained(second.address), PATIENCE_S, "the new node trains")

        driver.kill()
        for node in cluster.nodes:
            node.kill()
        addresses = {first.address, second.address}
        wait_until(lambda: not addresses & cluster.counted(), PATIENCE_S, "the nodes are gone")
        driver.start(is_known=True)
        wait_until(
            lambda: any("waits for their return" in line.text for line in driver.said()),
            PATIENCE_S,
            "the driver says that it waits",
        )
        first.start()
        assert driver.wait(PATIENCE_S), [line.text for line in driver.said()]

        record = record_of(cluster, "changing")
        assert [trial.exit_reason for trial in record.trials] == [ExitReason.COMPLETED] * 4
        assert nodes_that_trained(cluster, "changing") == addresses
