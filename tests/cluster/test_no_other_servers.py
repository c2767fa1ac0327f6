"""What is exported for real work reaches no test."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_no_server_is_named() -> None:
    assert "HOPETUNE_S3_BUCKET" not in os.environ
    assert "hopetune_settings" not in os.environ
    assert "HOPETUNE_STATE_DIR" not in os.environ
    assert "AWS_PROFILE" not in os.environ


def test_exported_servers_are_put_aside() -> None:
    exported = {
        "HOPETUNE_S3_BUCKET": "production",
        "hopetune_settings": "/etc/production.toml",
        "HOPETUNE_STATE_DIR": "/var/lib/hopetune",
        "AWS_PROFILE": "production",
    }
    one = f"{__file__}::{test_no_server_is_named.__name__}"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", one],
        cwd=ROOT,
        env=os.environ | exported,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
