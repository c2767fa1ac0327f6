"""The papers' tables on the synthetic twin: real searches by `hopetune run`, and their answers.

    hopetune up --gpus 2
    python -m benchmarks.twin_study --data /tmp/twin --keep epyc-2-cores

What is asked, and what was fixed beforehand, stands in ``benchmarks/twin_searches.py``. A search
goes on where it was broken off (the study knows) and is evaluated once on the wide test set; the
predictions are kept below ``--data``, so that ``--tables`` prints what there is at any time.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import yaml

from benchmarks.report import keep, parser
from benchmarks.twin_searches import AUGMENTED, PLAIN, SEARCHES, TEST, TURNED_SHARE, TwinSearch
from benchmarks.twin_tables import Answer, tables
from cluster.settings import Settings, load_settings
from headpose.data.manifest import PrepareSettings
from headpose.data.prepared import PreparedSet, is_prepared, prepare
from headpose.data.synthetic import synthesize
from headpose.data.turned import turn_set
from tuning.objects import Objects
from tuning.records import SearchRecord
from tuning.storage import Storage
from tuning.trained import fetch_weights, predict_test

TRAIN_IMAGES, TEST_IMAGES, FACES_SEED = 2400, 800, 11
FACE_PX, STORED_PX = 160, 60  # as the quickstart


def make_sets(folder: Path) -> None:
    """Faces and the three prepared sets; what is there already is left as it is."""
    faces = folder / "faces"
    synthesize(
        faces, train_images=TRAIN_IMAGES, test_images=TEST_IMAGES, size_px=FACE_PX, seed=FACES_SEED
    )
    _prepare("300w-lp", faces / "300W_LP", folder / PLAIN, "original")
    if not is_prepared(folder / AUGMENTED):
        turn_set(faces / "300W_LP", folder / "turned", share=TURNED_SHARE)
    _prepare("300w-lp", folder / "turned", folder / AUGMENTED, "original")
    _prepare("aflw2000", faces / "AFLW2000", folder / TEST, "visible-landmarks")


def _prepare(layout: str, source: Path, to: Path, policy: str) -> None:
    if not is_prepared(to):
        settings = PrepareSettings(stored_px=STORED_PX, policy=policy)  # type: ignore[arg-type]
        prepare(layout, source, to, settings)  # type: ignore[arg-type]


def run(search: TwinSearch, folder: Path, settings: Settings) -> SearchRecord:
    """Brings a search to its end, as a person would: from its file, by the command."""
    record = recorded(search.name, settings)
    if record is None or record.ended is None:
        path = folder / "searches" / f"{search.name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(search.spec(str(folder)), sort_keys=False), "utf-8")
        command = "from tuning.cli.main import main; main()"
        subprocess.run(
            [sys.executable, "-c", command, "run", str(path), "--name", search.name], check=True
        )
        record = recorded(search.name, settings)
    assert record is not None
    return record


def recorded(name: str, settings: Settings) -> SearchRecord | None:
    """What the study knows of a search; none where it has not begun."""
    with Storage(settings.require("study_url")) as storage:
        return storage.open(name).record() if name in storage.names() else None


def evaluate(record: SearchRecord, folder: Path, settings: Settings) -> None:
    """Predicts the test set with each completed trial's best epoch, once."""
    place = folder / "answers"
    place.mkdir(exist_ok=True)
    test = PreparedSet.open(folder / TEST)
    objects = Objects(settings)
    for trial in record.trials:
        path = place / f"{record.name}-{trial.number}.npz"
        if trial.state != "COMPLETE" or trial.best_epoch is None:
            continue
        # A folder may hold answers of an earlier study, of other training code.
        if path.exists() and _answer(path).checkpoint == trial.best_epoch.checkpoint_key:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            weights, _ = fetch_weights(trial, settings, objects, Path(scratch))
            predicted = predict_test(weights, test)
        told = {
            "search": record.name,
            "parameters": dict(trial.parameters),
            "val": trial.best_epoch.metrics,
            "best_epoch": trial.best_epoch.epoch,
            "epochs": len(trial.epochs),
            "trained": sum(not epoch.restored for epoch in trial.epochs),
            "seed": record.spec.fixed["seed"],
            "checkpoint": trial.best_epoch.checkpoint_key,
            "latency_ms": trial.epochs[-1].metrics.get("latency_ms"),
        }
        draft = path.with_suffix(".part.npz")
        np.savez(draft, predicted=predicted, told=np.array(json.dumps(told)))
        draft.replace(path)


def answers(folder: Path) -> list[Answer]:
    """All evaluated trials."""
    return [_answer(path) for path in sorted((folder / "answers").glob("*[0-9].npz"))]


def _answer(path: Path) -> Answer:
    with np.load(path) as content:
        told = json.loads(str(content["told"]))
        return Answer(predicted=content["predicted"], **told)


def main() -> None:
    """Runs what is missing, then prints the tables."""
    arguments = _arguments()
    folder = arguments.data.expanduser().resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[1])
    if not arguments.tables:
        make_sets(folder)
        settings = load_settings()
        for search in SEARCHES:
            if arguments.only and search.name not in arguments.only:
                continue
            evaluate(run(search, folder, settings), folder, settings)
    sets = {name: np.array(PreparedSet.open(folder / name).angles_deg) for name in (PLAIN, TEST)}
    keep("twin_study", tables(answers(folder), sets[PLAIN], sets[TEST]), arguments)


def _arguments() -> argparse.Namespace:
    found = parser(__doc__ or "")
    found.add_argument("--data", type=Path, required=True, help="folder of faces, sets and answers")
    found.add_argument("--only", nargs="*", help="names of searches; default: all")
    found.add_argument("--tables", action="store_true", help="run nothing, print what there is")
    return found.parse_args()


if __name__ == "__main__":
    main()
