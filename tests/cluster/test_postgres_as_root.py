"""Root hands PostgreSQL to `nobody`, who has to find its programs below a private folder."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from cluster.local import postgres

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root hands PostgreSQL to nobody")


def test_programs_in_a_private_folder_pass_for_executable(tmp_path: Path) -> None:
    # What PostgreSQL itself asks, by access(2), of each of its programs.
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    program = shutil.copy("/bin/true", private / "program")
    asks = [*postgres._as_allowed_user(), "/usr/bin/test", "-x", program]
    assert subprocess.run(asks, check=False).returncode == 0
