"""`scripts/quickstart` with a `hopetune` that only writes down what it is asked."""

import os
import shutil
import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
HOPETUNE = """#!/bin/sh
mkdir -p quickstart/faces
echo "$@" >> asked
env | grep -i ^hopetune_ >> seen
exit 0
"""


def test_it_stays_on_its_own_servers_and_names_its_own_model(tmp_path: Path) -> None:
    for file in ("scripts/quickstart", "search_spaces/quickstart.yaml"):
        (tmp_path / file).parent.mkdir()
        shutil.copy(ROOT / file, tmp_path / file)
    hopetune = tmp_path / "bin" / "hopetune"
    hopetune.parent.mkdir()
    hopetune.write_text(HOPETUNE)
    hopetune.chmod(0o755)
    of_other_servers = {
        "HOPETUNE_S3_BUCKET": "production",
        "hopetune_mlflow_uri": "http://production",
        "HOPETUNE_SETTINGS": "/etc/production.toml",
    }
    environment = os.environ | of_other_servers | {"HOPETUNE_STATE_DIR": "/kept"}
    environment["PATH"] = f"{hopetune.parent}{os.pathsep}{environment['PATH']}"
    subprocess.run([tmp_path / "scripts" / "quickstart"], env=environment, check=True)

    asked = (tmp_path / "asked").read_text().splitlines()
    assert set((tmp_path / "seen").read_text().splitlines()) == {"HOPETUNE_STATE_DIR=/kept"}
    submitted = next(line for line in asked if line.startswith("submit ")).split()
    search = submitted[submitted.index("--name") + 1]
    assert f"promote {search}" in asked, "and no other search that was begun meanwhile"
    model = yaml.safe_load((ROOT / "search_spaces" / "quickstart.yaml").read_text())["model_name"]
    assert model != "headpose"
    assert [f"--model {model} " in line for line in asked if line.startswith("predict ")] == [True]
