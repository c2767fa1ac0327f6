"""What commands print for programs."""

import json
import math
from pathlib import Path

import pytest

from tuning.cli.output import say_json


def test_json_has_null_for_what_is_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    diverged = {"epochs": [{"val_mae": math.nan}, {"val_mae": 5.5}], "best": (math.inf, -math.inf)}
    say_json({"trial": diverged, "number": 3, "where": Path("/a"), "is_done": True})

    def fail(word: str) -> None:
        pytest.fail(f"{word} is not JSON")

    assert json.loads(capsys.readouterr().out, parse_constant=fail) == {
        "trial": {"epochs": [{"val_mae": None}, {"val_mae": 5.5}], "best": [None, None]},
        "number": 3,
        "where": "/a",
        "is_done": True,
    }
