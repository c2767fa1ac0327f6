"""A small prepared data set in the real S3 server, and the command line in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster.settings import Settings
from headpose.data.manifest import PrepareSettings
from headpose.data.prepared import prepare
from headpose.data.synthetic import synthesize
from tuning.cli.main import main
from tuning.datasets import publish
from tuning.objects import Objects
from tuning.storage import Storage

Hopetune = Callable[..., subprocess.CompletedProcess[str]]

TRAIN_PLACE = "s3://hopetune/data/small-train"
TEST_PLACE = "s3://hopetune/data/small-test"


@pytest.fixture(scope="session")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic faces on disk: 300W_LP/ and AFLW2000/."""
    root = tmp_path_factory.mktemp("small faces")
    synthesize(root / "set", train_images=160, test_images=40, size_px=96, seed=3)
    return root / "set"


@pytest.fixture(scope="session")
def published(
    servers: Settings, faces: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, str]:
    """Places of a training and of a test set in S3."""
    folder = tmp_path_factory.mktemp("prepared")
    settings = PrepareSettings(stored_px=40, policy="visible-landmarks")
    objects = Objects(servers)
    prepare("300w-lp", faces / "300W_LP", folder / "train", settings)
    prepare("aflw2000", faces / "AFLW2000", folder / "test", settings)
    publish(folder / "train", TRAIN_PLACE, objects)
    publish(folder / "test", TEST_PLACE, objects)
    return TRAIN_PLACE, TEST_PLACE


@pytest.fixture(scope="session")
def storage(servers: Settings) -> Iterator[Storage]:
    """The studies of the real servers."""
    opened = Storage(servers.require("study_url"))
    yield opened
    opened.close()


@pytest.fixture
def hopetune_here(
    servers: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Hopetune:
    """As ``hopetune``, within this process: for what ends before a cluster is joined."""

    def call(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["hopetune", *arguments])
        monkeypatch.setenv("HOPETUNE_STATE_DIR", str(servers.state_dir))
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as exit_:
            main()
        printed = capsys.readouterr()
        code = exit_.value.code if isinstance(exit_.value.code, int) else 0
        return subprocess.CompletedProcess(arguments, code, printed.out, printed.err)

    return call


@pytest.fixture(scope="session")
def hopetune(servers: Settings) -> Hopetune:
    """Runs a command line to its end: ``hopetune("show", "latest").stdout``."""

    def call(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", "from tuning.cli.main import main; main()", *arguments],
            env=os.environ | {"HOPETUNE_STATE_DIR": str(servers.state_dir)} | environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    return call


@pytest.fixture
def search_file(published: tuple[str, str], tmp_path: Path) -> Callable[..., Path]:
    """Writes a small search file; keyword arguments replace whole sections."""
    sections = {
        "name": "small",
        "data": f"{{train: {published[0]}, test: {published[1]}, validation_fraction: 0.2}}",
        "parameters": "{alpha: {low: 0.01, high: 1.0, log: true}, "
        "learning_rate: {low: 1e-4, high: 3e-3, log: true}, unfreeze_epoch: {low: 0, high: 2}}",
        "fixed": "{backbone: squeezenet1_1, image_px: 32, batch_size: 16}",
        "sampler": "{name: random, seed: 4}",
        "stopping": "{rule: stopping, first_rung: 1, factor: 2}",
        "budget": "{trials: 6, epochs: 3}",
        "resources": "{parallel_trials: 2}",
    }

    def write(**replaced: str) -> Path:
        path = tmp_path / "a small search.yaml"
        lines = [f"{name}: {value}\n" for name, value in (sections | replaced).items()]
        path.write_text("".join(lines), encoding="utf-8")
        return path

    return write
