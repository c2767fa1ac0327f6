"""Old checkpoints are collected, and nothing that was reported is ever trained again."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.settings import Settings
from tuning.manifest import MANIFEST, read_manifest
from tuning.objects import Objects, Place
from tuning.places import checkpoints
from tuning.records import SearchRecord
from tuning.storage import Storage

pytestmark = [pytest.mark.servers, pytest.mark.timeout(400)]

SearchFile = Callable[..., Path]


def data_of(servers: Settings, record: SearchRecord) -> dict[str, list[str]]:
    """Heavy objects of each checkpoint of a search."""
    objects, root = Objects(servers), checkpoints(servers)
    found = {}
    for key in {e.checkpoint_key for t in record.trials for e in t.epochs}:
        names = [listed.key.rsplit("/", 1)[1] for listed in objects.listed(root / key)]
        assert MANIFEST in names, "manifests stay for ever"
        found[key] = sorted(name.split("-")[0] for name in names if name != MANIFEST)
    return found


def test_the_same_search_twice_proposes_the_same_and_trains_nothing(
    servers: Settings, storage: Storage, hopetune: Callable, search_file: SearchFile
) -> None:
    path = search_file(
        sampler="{name: tpe, startup_trials: 2, seed: 11}",
        stopping="{rule: promotion, rungs: [1, 2], factor: 2}",
        budget="{trials: 5, epochs: 3}",
        resources="{parallel_trials: 1}",
        checkpoints="{keep_top: 1}",
    )
    first = hopetune("run", str(path), "--name", "small-first")
    assert first.returncode == 0, first.stderr
    assert hopetune("gc", "--yes").returncode == 0
    one = storage.open("small-first").record()

    # By the driver at its end, or by the command where the driver had no time for it: all but the
    # best weights of completed trials and the best trial's latest state.
    done = [t for t in one.trials if t.state == "COMPLETE" and t.best_epoch]
    best = min(done, key=lambda t: t.value or 0.0)
    expected: dict[str, set[str]] = {
        t.best_epoch.checkpoint_key: {"weights"} for t in done if t.best_epoch
    }
    expected[best.epochs[-1].checkpoint_key] = {"weights", "optimiser"}
    held = data_of(servers, one)
    assert {key: set(parts) for key, parts in held.items() if parts} == expected

    second = hopetune("run", str(path), "--name", "small-second")
    assert second.returncode == 0, second.stderr
    two = storage.open("small-second").record()
    assert "    0 epochs trained" in second.stdout
    assert [t.parameters for t in two.trials] == [t.parameters for t in one.trials]
    assert [t.curve for t in two.trials] == [t.curve for t in one.trials]
    assert [t.exit_reason for t in two.trials] == [t.exit_reason for t in one.trials]

    # A shorter plan is complete where the weights of another epoch were kept, or none.
    path = search_file(
        sampler="{name: tpe, startup_trials: 2, seed: 11}",
        stopping="{rule: none}",
        budget="{trials: 2, epochs: 2}",
        resources="{parallel_trials: 1}",
    )
    shorter = hopetune("run", str(path), "--name", "small-shorter")
    assert shorter.returncode == 0, shorter.stderr
    three = storage.open("small-shorter").record()
    kept = data_of(servers, three)
    for trial, longer in zip(three.trials, one.trials, strict=False):
        assert all(longer.curve.get(epoch, mae) == mae for epoch, mae in trial.curve.items())
        assert trial.best_epoch is not None
        assert "weights" in kept[trial.best_epoch.checkpoint_key]


def test_gc_shows_first_and_then_removes_and_orphans_need_to_be_asked_for(
    servers: Settings, storage: Storage, hopetune: Callable, search_file: SearchFile
) -> None:
    path = search_file(
        parameters="{alpha: {low: 0.011, high: 0.9, log: true}}",
        stopping="{rule: none}",
        budget="{trials: 2, epochs: 2}",
    )
    done = hopetune("run", str(path), "--name", "small-gc")
    assert done.returncode == 0, done.stderr
    assert hopetune("gc", "--yes").returncode == 0  # the driver may have had no time for it
    record = storage.open("small-gc").record()
    kept = data_of(servers, record)
    # As if a killed driver had not come to collect: a state that nobody needs.
    objects, root = Objects(servers), checkpoints(servers)
    first = record.trials[0].epochs[0].checkpoint_key
    manifest = read_manifest(objects, root, first)
    assert manifest is not None
    left = root / first / manifest.parts["optimiser"].name
    assert "optimiser" not in kept[first], "the first epoch's state was superseded"
    objects.put(left, b"left over")
    stranger = Place(root.bucket, f"{root.key}/aa/bb/weights-0.safetensors")
    objects.put(stranger, b"another database's")

    shown = json.loads(hopetune("gc", "--json").stdout)
    assert shown["removed"] is False
    assert shown["collectable"]["small-gc"] == {"objects": 1, "bytes": 9}
    assert str(stranger) in shown["young"]
    assert objects.exists(left)
    said = hopetune("gc")
    assert "small-gc" in said.stdout
    assert "nothing was removed" in said.stdout

    assert hopetune("gc", "--yes", "--orphans").returncode == 0
    assert not objects.exists(left)
    assert objects.exists(stranger), "it is younger than a day"
    assert data_of(servers, record) == kept
    objects.delete(stranger)


def test_gc_collects_nothing_while_mlflow_cannot_be_asked(hopetune: Callable) -> None:
    done = hopetune("gc", "--yes", HOPETUNE_MLFLOW_URI="http://127.0.0.1:9")
    assert done.returncode == 2
    assert "the MLflow server cannot be used" in done.stderr
