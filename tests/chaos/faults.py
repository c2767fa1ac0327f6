"""The kinds of faults. Each breaks something, has it mended as an operator would, and waits until
the search goes on."""

import os
import random
import signal
import time
from collections.abc import Callable

import psutil

from tests.chaos.gate import Gate, Shut
from tests.chaos.hits import Hit
from tests.chaos.nodes import Node, signal_to
from tests.chaos.scene import RECOVERY_PATIENCE_S, NothingToHitError, Scene

Fault = Callable[[Scene, random.Random, Hit], None]
"""Fills in the hit; raises NothingToHitError where nothing is there to be hit."""


# -- workers ---------------------------------------------------------------------------------------


def _signal_worker(scene: Scene, rng: random.Random, hit: Hit, number: int) -> psutil.Process:
    node, worker, trial = scene.a_worker(rng)
    hit.target = f"trial {trial.number} on {node.address}"
    hit.trials = {trial.number}
    hit.at_s = time.time()
    signal_to(worker, number)
    return worker


def kill_worker(scene: Scene, rng: random.Random, hit: Hit) -> None:
    _signal_worker(scene, rng, hit, signal.SIGKILL)
    scene.wait_for_epoch(hit, hit.at_s)


def preempt_worker(scene: Scene, rng: random.Random, hit: Hit) -> None:
    _signal_worker(scene, rng, hit, signal.SIGTERM)
    scene.wait_for_epoch(hit, hit.at_s)


def stall_worker(scene: Scene, rng: random.Random, hit: Hit) -> None:
    worker = _signal_worker(scene, rng, hit, signal.SIGSTOP)
    # What was said before the freeze is still on its way for a moment.
    scene.wait_for_epoch(hit, hit.at_s + 0.5)
    signal_to(worker, signal.SIGCONT)  # where it still lives: it must find itself replaced


# -- nodes -----------------------------------------------------------------------------------------


def kill_node(scene: Scene, rng: random.Random, hit: Hit) -> None:
    node = _node_at_work(scene, rng, hit)
    hit.at_s = time.time()
    node.kill()
    scene.wait_for_epoch(hit, hit.at_s + 0.5)
    node.start()


def freeze_node(scene: Scene, rng: random.Random, hit: Hit) -> None:
    """Long enough to be given up; it thaws with all that it had in its hands."""
    node = _node_at_work(scene, rng, hit)
    hit.at_s = time.time()
    node.signal_all(signal.SIGSTOP)
    time.sleep(rng.uniform(12, 18))
    node.signal_all(signal.SIGCONT)
    hit.mended_s = time.time()
    scene.wait_for_epoch(hit, hit.at_s + 0.5)


def _node_at_work(scene: Scene, rng: random.Random, hit: Hit) -> Node:
    node, _, trial = scene.a_worker(rng)
    hit.target, hit.trials = f"{node.address}, trial {trial.number}", {trial.number}
    return node


# -- driver and head -------------------------------------------------------------------------------


def kill_driver(scene: Scene, rng: random.Random, hit: Hit) -> None:
    scene.a_worker(rng)
    hit.target, hit.trials = "driver", _running(scene)
    hit.at_s = time.time()
    scene.driver.kill()
    time.sleep(rng.uniform(0.2, 3))
    scene.driver.start(is_known=True)
    hit.mended_s = time.time()
    scene.wait_for_epoch(hit, hit.at_s + 0.5)


def kill_head(scene: Scene, rng: random.Random, hit: Hit) -> None:
    """The GCS dies, and with it, sooner or later, everything of Ray."""
    scene.a_worker(rng)
    hit.trials = _running(scene)
    gcs = [p for p in scene.world.server("ray") if "gcs_server" in _command(p)]
    hit.target = f"GCS, {len(gcs)} process"
    hit.at_s = time.time()
    for process in gcs:
        signal_to(process, signal.SIGKILL)
    if not scene.driver.wait(60):
        hit.note = "the driver did not end by itself"
        scene.driver.kill()
    scene.world.restore()
    for node in scene.world.nodes:
        node.kill()
    scene.world.have_nodes()
    hit.mended_s = time.time()
    scene.driver.start(is_known=True)
    scene.wait_for_epoch(hit, hit.mended_s)


def _command(process: psutil.Process) -> str:
    try:
        return process.cmdline()[0]
    except (psutil.Error, IndexError):
        return ""


# -- servers ---------------------------------------------------------------------------------------


def kill_mlflow(scene: Scene, rng: random.Random, hit: Hit) -> None:
    _kill_server(scene, rng, hit, "mlflow", everything=True)
    _wait_for_mlflow(scene, hit)


def kill_postgresql(scene: Scene, rng: random.Random, hit: Hit) -> None:
    _kill_server(scene, rng, hit, "postgresql", everything=False)
    scene.wait_for_epoch(hit, hit.mended_s or hit.at_s)


def kill_s3(scene: Scene, rng: random.Random, hit: Hit) -> None:
    _kill_server(scene, rng, hit, "s3", everything=True)
    _wait_for_store(scene, hit)


def cut_mlflow(scene: Scene, rng: random.Random, hit: Hit) -> None:
    _cut(scene, rng, hit, scene.world.mlflow)
    _wait_for_mlflow(scene, hit)


def cut_s3(scene: Scene, rng: random.Random, hit: Hit) -> None:
    _cut(scene, rng, hit, scene.world.s3)
    _wait_for_store(scene, hit)


def _kill_server(
    scene: Scene, rng: random.Random, hit: Hit, name: str, *, everything: bool
) -> None:
    scene.a_worker(rng)
    family = scene.world.server(name)
    hit.target, hit.trials = name, _running(scene)
    hit.at_s = time.time()
    for process in family if everything else family[:1]:
        signal_to(process, signal.SIGKILL)
    time.sleep(rng.uniform(2, 6))
    scene.world.restore()
    hit.mended_s = time.time()


def _cut(scene: Scene, rng: random.Random, hit: Hit, gate: Gate) -> None:
    scene.a_worker(rng)
    how: Shut = rng.choice(("refuse", "hang"))
    seconds = rng.uniform(5, 15)
    hit.target, hit.trials = f"{how}, {seconds:.0f} s", _running(scene)
    hit.at_s = time.time()
    gate.shut(how)
    time.sleep(seconds)
    gate.reopen()
    hit.mended_s = time.time()


def _wait_for_store(scene: Scene, hit: Hit) -> None:
    """Until a checkpoint has been stored after the store was mended."""
    until = time.monotonic() + RECOVERY_PATIENCE_S
    while time.monotonic() < until:
        stored = (c.at_s for c in scene.world.changes() if c.method == "PUT")
        later = [at_s for at_s in stored if at_s > (hit.mended_s or 0)]
        if later or scene.is_over:
            hit.recovered_s = min(later, default=time.time())
            return
        time.sleep(0.2)
    hit.violations.append("no checkpoint was stored after S3 was back")


def _wait_for_mlflow(scene: Scene, hit: Hit) -> None:
    """Until MLflow shows what the study knew when it was mended."""
    wanted = {t.number: max(t.epochs, default=0) for t in scene.trials()}
    until = time.monotonic() + RECOVERY_PATIENCE_S
    while time.monotonic() < until:
        shown = scene.world.runs.epochs_shown(scene.search)
        if all(shown.get(number, 0) >= epoch for number, epoch in wanted.items()):
            hit.recovered_s = time.time()
            return
        if not scene.driver.is_alive:
            hit.note = "the search ended before MLflow was up to date"
            hit.recovered_s = time.time()
            return
        time.sleep(0.5)
    hit.violations.append("MLflow was not brought up to date")


# -- disks and objects -----------------------------------------------------------------------------


def damage_checkpoint(scene: Scene, rng: random.Random, hit: Hit) -> None:
    """Its worker is frozen, its latest stored checkpoint damaged, its worker killed: whoever goes
    on has to notice."""
    world = scene.world
    stored = None
    while stored is None:
        _, worker, trial = scene.a_worker(rng)
        epochs = sorted(trial.epochs.items(), reverse=True)
        stored = next((e.key for _, e in epochs if world.store.has(e.key)), None)
    signal_to(worker, signal.SIGSTOP)
    how = rng.choice(("flip", "truncate", "empty"))
    hit.target, hit.trials = f"{how}, trial {trial.number}", {trial.number}
    hit.at_s = time.time()
    hit.damaged = {stored}
    world.store.damage(stored, how)
    signal_to(worker, signal.SIGKILL)
    scene.wait_for_epoch(hit, hit.at_s + 0.5)
    if not list(world.store.keys(f"damaged/checkpoints/{stored}/")):
        hit.note = "a later one was there, so nobody read it"


def fill_disk(scene: Scene, rng: random.Random, hit: Hit) -> None:
    node, _, trial = scene.a_worker(rng)
    if not node.has_small_disk:
        raise NothingToHitError("no small disk: mounting one needs root")
    hit.target, hit.trials = f"{node.address}, trial {trial.number}", {trial.number}
    hit.at_s = time.time()
    filler = node.state / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(os.urandom(1 << 16)):
                pass
        except OSError as error:
            hit.note = error.strerror or ""
    time.sleep(rng.uniform(4, 10))
    filler.unlink()
    hit.mended_s = time.time()
    scene.wait_for_epoch(hit, hit.at_s + 1.0)


def _running(scene: Scene) -> set[int]:
    return {t.number for t in scene.running()}


KINDS: dict[str, Fault] = {
    "kill worker": kill_worker,
    "preempt worker": preempt_worker,
    "stall worker": stall_worker,
    "kill node": kill_node,
    "freeze node": freeze_node,
    "kill driver": kill_driver,
    "kill head": kill_head,
    "kill MLflow": kill_mlflow,
    "kill PostgreSQL": kill_postgresql,
    "kill S3": kill_s3,
    "cut MLflow": cut_mlflow,
    "cut S3": cut_s3,
    "damage checkpoint": damage_checkpoint,
    "fill disk": fill_disk,
}

DETECTED = {
    "kill MLflow": r"MLflow|mlflow",
    "cut MLflow": r"MLflow|mlflow",
    "kill PostgreSQL": r"database|PostgreSQL|study",
    "kill S3": r"S3|checkpoint|store",
    "cut S3": r"S3|checkpoint|store",
    "damage checkpoint": r"damage|sha256|truncated",
    "fill disk": r"disk",
}
"""What the driver's log says once it has noticed; by default that a trial goes on."""
GOES_ON = "goes on"
