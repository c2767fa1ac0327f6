"""Fixtures that every room's tests share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def realdata() -> Path:
    """The folder of genuine AFLW2000 and 300W-LP samples, which may not be redistributed."""
    default = Path(__file__).resolve().parents[2] / "shared" / "realdata"
    folder = Path(os.environ.get("HOPETUNE_REALDATA", default))
    if not folder.is_dir():
        pytest.skip(f"no genuine samples at {folder}: research photos, not redistributed")
    return folder
