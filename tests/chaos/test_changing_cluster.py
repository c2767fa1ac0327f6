"""A cluster that grows while it searches, one that comes back without its GPUs, one with a node
that lacks what a training needs."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.driving import hopetune
from tests.chaos.nodes import Node, wait_until
from tests.chaos.searches import Size
from tests.chaos.world import World, world
from tuning.exits import ExitReason
from tuning.records import SearchRecord
from tuning.storage import Storage

PATIENCE_S = 300.0
POLL_S = 1.0
"""Reading the study takes a good part of that on a busy machine."""
SIZE = Size(faces=40, trials=4, epochs=5000)
"""More than is ever trained: however long a node takes to join, there is work for it."""


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


def epochs(cluster: World, name: str) -> int:
    return sum(len(trial.epochs) for trial in record_of(cluster, name).trials)


@pytest.mark.servers
@pytest.mark.timeout(1200)  # minutes even on a quiet machine: nodes are started four times
def test_a_node_that_joins_gets_trials_and_gpus_that_left_are_waited_for(short_path: Path) -> None:
    with world(short_path, 2, SIZE) as cluster:
        # As many trials at a time as there are GPUs.
        text = cluster.file.read_text("utf-8").replace("parallel_trials: 2, ", "")
        cluster.file.write_text(text, "utf-8")
        first, second = cluster.nodes
        driver = cluster.driver("changing")

        def trained(address: str) -> bool:
            return address in nodes_that_trained(cluster, "changing")

        cluster.join(first)
        driver.start()
        wait_until(lambda: trained(first.address), PATIENCE_S, "a trial trains", POLL_S)
        cluster.join(second)
        wait_until(lambda: trained(second.address), PATIENCE_S, "the new node trains", POLL_S)

        driver.kill()
        for node in cluster.nodes:
            node.kill()
        addresses = {first.address, second.address}
        wait_until(lambda: not addresses & cluster.counted(), PATIENCE_S, "the nodes are gone")
        trained_before = epochs(cluster, "changing")
        driver.start(is_known=True)
        wait_until(
            lambda: any("waits for their return" in line.text for line in driver.said()),
            PATIENCE_S,
            "the driver says that it waits",
        )
        cluster.join(first)
        wait_until(
            lambda: epochs(cluster, "changing") > trained_before,
            PATIENCE_S,
            "it trains again",
            POLL_S,
        )
        stopped = hopetune("stop", "changing", environment=cluster.operator_environment())
        assert stopped.returncode == 0, stopped.stderr
        assert driver.wait(PATIENCE_S), [line.text for line in driver.said()]
        # The head has CPUs: a trial that did not ask for a GPU would have gone there.
        assert nodes_that_trained(cluster, "changing") == addresses


def give_wrong_keys(node: Node) -> None:
    wrong = node.folder / "wrong keys"
    wrong.write_text("[default]\naws_access_key_id = nobody\naws_secret_access_key = none\n")
    path = node.folder / "settings.toml"
    lines = path.read_text("utf-8").splitlines()
    kept = [line for line in lines if not line.startswith("s3_credentials_file")]
    path.write_text("\n".join([*kept, f's3_credentials_file = "{wrong}"\n']), "utf-8")


@pytest.mark.servers
@pytest.mark.timeout(1200)
def test_a_node_with_wrong_keys_costs_no_trial_and_nothing_but_such_nodes_end_a_search(
    short_path: Path,
) -> None:
    with world(short_path, 2, Size(faces=40, trials=4, epochs=3)) as cluster:
        unfit, fit = cluster.nodes
        driver = cluster.driver("unfit")
        give_wrong_keys(unfit)
        cluster.join(unfit, fit)
        driver.start()
        assert driver.wait(PATIENCE_S), [line.text for line in driver.said()]
        trials = record_of(cluster, "unfit").trials
        assert [trial.exit_reason for trial in trials] == [ExitReason.COMPLETED] * 4
        causes = {(a.node, a.cause) for trial in trials for a in trial.attempts}
        assert causes == {(unfit.address, ExitReason.UNFIT_NODE), (fit.address, None)}

        driver = cluster.driver("lacking")
        give_wrong_keys(unfit)
        give_wrong_keys(fit)
        driver.start()
        assert driver.wait(PATIENCE_S), [line.text for line in driver.said()]
        record = record_of(cluster, "lacking")
        # The head, which has no GPU, is none of the nodes that a trial could have gone to.
        assert record.ended == "no node has what a training needs"
        assert {trial.exit_reason for trial in record.trials} == {ExitReason.SEARCH_ENDED}
        said = "\n".join(line.text for line in driver.said())
        assert "the S3 server refuses these keys" in said
