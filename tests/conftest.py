"""Fixtures that every room's tests share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.local.servers import down, up
from cluster.settings import Settings, load_settings


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test's time counts its fixtures: whichever asks for the servers first starts them, which
    may take 60 + 90 s, and one command line then has 240 s of its own. A start that is broken off
    fails every later test of the process as well."""
    for item in items:
        asks = item.get_closest_marker("servers") or "servers" in getattr(item, "fixturenames", ())
        if asks and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(400))


@pytest.fixture(scope="session", autouse=True)
def _no_servers_but_the_tests_own() -> Iterator[None]:
    """What is exported for real work, servers or a state directory, reaches no test."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            is_ours = name.upper().startswith("HOPETUNE_") and name != "HOPETUNE_REALDATA"
            if is_ours or name.startswith("AWS_"):
                patch.delenv(name)
        yield


@pytest.fixture(scope="session")
def realdata() -> Path:
    """The folder of genuine AFLW2000 and 300W-LP samples, which may not be redistributed."""
    default = Path(__file__).resolve().parents[2] / "shared" / "realdata"
    folder = Path(os.environ.get("HOPETUNE_REALDATA", default))
    if not folder.is_dir():
        pytest.skip(f"no genuine samples at {folder}: research photos, not redistributed")
    return folder


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Real local servers in a fresh state directory, two logical GPUs, for all tests that ask."""
    state_dir = tmp_path_factory.mktemp("servers")
    try:
        up(state_dir, logical_gpus=2)
        yield load_settings(state_dir)
    finally:
        down(state_dir)
