"""What several tests of this folder need."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk takes root")
    yield folder
    # The thread of uploads that are closed gives up its files a moment later.
    unmount, until_s = ["umount", str(folder)], time.monotonic() + 20
    while subprocess.run(unmount, capture_output=True, check=False).returncode:
        assert time.monotonic() < until_s, "the small disk is still in use"
        time.sleep(0.05)
