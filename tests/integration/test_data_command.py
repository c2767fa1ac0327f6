"""``hopetune data`` against the real S3 server: prepared, killed, prepared again, looked at."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.settings import Settings

pytestmark = pytest.mark.servers

PLACE = "s3://hopetune/data/killed"


def test_a_killed_preparation_goes_on_and_leaves_no_trace(
    servers: Settings, faces: Path, hopetune: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    arguments = ["data", "prepare", "300w-lp", str(faces / "300W_LP"), "--to", PLACE]
    arguments += ["--pixels", "40"]
    code = (
        "import os, signal\n"
        "from headpose.data import preparation\n"
        "from rich.progress import Progress\n"
        "preparation.BLOCK = 32\n"
        "update = Progress.update\n"
        "def killing(self, task, **fields):\n"
        "    update(self, task, **fields)\n"
        "    if fields.get('completed') == 100: os.kill(os.getpid(), signal.SIGKILL)\n"
        "Progress.update = killing\n"
        "from tuning.cli.main import main; main()\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | {"HOPETUNE_STATE_DIR": str(servers.state_dir)},
        capture_output=True,
        timeout=100,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    workplace = servers.state_dir / "preparing"
    journals = list(workplace.glob("*/.set.partial/journal.jsonl"))
    assert len(journals) == 1
    assert len(journals[0].read_text().splitlines()) == 4, "a head and three blocks of 32"
    done = hopetune(*arguments)
    assert done.returncode == 0, done.stderr
    assert f"images in {PLACE}" in done.stdout
    assert list(workplace.iterdir()) == []


def test_a_place_with_another_set_is_refused_and_replaced_on_demand(
    servers: Settings, faces: Path, hopetune: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    place = "s3://hopetune/data/taken"

    def put(pixels: int, *more: str) -> subprocess.CompletedProcess[str]:
        arguments = ["data", "prepare", "aflw2000", str(faces / "AFLW2000"), "--to", place]
        return hopetune(*arguments, "--pixels", str(pixels), *more)

    def held() -> str:
        shown = hopetune("data", "inspect", place, "--json")
        return str(json.loads(shown.stdout)["fingerprint"])

    put_first = json.loads(put(40, "--json").stdout)
    first = held()
    assert (put_first["place"], put_first["fingerprint"]) == (place, first)
    refused = put(48)
    assert refused.returncode == 2
    assert f"error: {place}: is taken by another prepared set; got '{first[:16]}'" in refused.stderr
    assert held() == first
    assert put(48, "--replace").returncode == 0
    assert held() != first
    assert put(48).returncode == 0, "the same set is no other"


def test_inspect_tells_people_and_programs_what_a_set_holds(
    published: tuple[str, str], hopetune: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    shown = hopetune("data", "inspect", published[0])
    assert shown.returncode == 0, shown.stderr
    for words in ("percentile", "share of images", "-100° to -80°", "left out: 0", "40 px stored"):
        assert words in shown.stdout
    told = json.loads(hopetune("data", "inspect", published[0], "--json").stdout)
    assert told["images"] == sum(told["histogram"]["yaw"].values()) > 100
    assert set(told["percentiles_deg"]["roll"]) == {"1", "5", "25", "50", "75", "95", "99"}
    assert f"{told['images']} images of {told['photos']} photos" in shown.stdout


def test_inspect_sets_two_sets_and_the_papers_side_by_side(
    published: tuple[str, str], hopetune: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    shown = hopetune("data", "inspect", published[0], "--beside", published[1])
    assert shown.returncode == 0, shown.stderr
    table = [line for line in shown.stdout.splitlines() if " / " in line]
    assert [line.split("  ")[0] for line in table[1:]] == [
        *published,
        "300W-LP, published",
        "AFLW2000, published",
        "300W_AUG, published",
    ]
    assert "-18.9° / +15.7°" in table[3]
