"""Synthetic faces on disk, as 300W-LP and AFLW2000 lie there."""

import io
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from headpose.cores import cores
from headpose.data.synthetic.geometry import View
from headpose.data.synthetic.identity import draw_identity
from headpose.data.synthetic.plan import FaceJob, plan_test, plan_training
from headpose.data.synthetic.records import Label, label_of, mirrored_label
from headpose.data.synthetic.render import Figure, Pose, render
from headpose.data.synthetic.scene import draw_scene
from headpose.files import write_atomically
from usererror import UserError

MARKER = "synthetic.json"
#: Changes whenever the same seed would give other pictures.
GENERATOR = 2
SMALLEST_PX, LARGEST_PX = 32, 1024
# Starting processes costs some seconds each; below this they do not pay.
_IN_PROCESS_UP_TO = 64

# Where 300W-LP's faces stand: the landmarks of its samples span 0.4 of the canvas's side around
# (0.504, 0.652) of it; the landmarks of this head span 134 mm seen from the front.
_PX_PER_MM = 0.4 / 134
_CENTRE = (0.504, 0.652)

Progress = Callable[[int, int], None]


def synthesize(
    root: Path,
    *,
    train_images: int,
    test_images: int,
    size_px: int = 450,
    seed: int = 0,
    progress: Progress | None = None,
    processes: int | None = None,
) -> None:
    """Write ``root/300W_LP`` and ``root/AFLW2000``: jpg and .mat files of procedural heads.

    The files follow from the arguments alone, not from ``processes``. A finished folder of the
    same arguments is left as it is; an unfinished one is written again.

    Args:
        root: a new or an empty folder, or one of this function's own.
        train_images, test_images: how many pictures; mirrored twins count.
        size_px: side of the square pictures; the originals have 450.
        seed: of everything random.
        progress: called with pictures done and pictures in all.
        processes: None for one a core; 1 renders in this process.

    Raises:
        UserError: an argument is out of range, or ``root`` holds something else.
    """
    _check(train_images, test_images, size_px, seed, processes)
    arguments = {
        "generator": GENERATOR,
        "train_images": train_images,
        "test_images": test_images,
        "size_px": size_px,
        "seed": seed,
    }
    report = progress or _say_nothing
    total = train_images + test_images
    if _is_finished(root, arguments):
        report(total, total)
        return
    root.mkdir(parents=True, exist_ok=True)
    _mark(root, arguments, finished=False)
    jobs = [*plan_training(train_images, seed), *plan_test(test_images, seed)]
    for folder in {Path(stem).parent for job in jobs for stem in (*job.stems, *job.twin_stems)}:
        (root / folder).mkdir(parents=True, exist_ok=True)
    done = 0
    for written in _run(jobs, partial(write_face, root, size_px), total, processes):
        done += written
        report(done, total)
    os.sync()  # the marker must not outlive a power cut that the pictures did not
    _mark(root, arguments, finished=True)


def write_face(root: Path, size_px: int, job: FaceJob) -> int:
    """Render one job and write its files; returns how many pictures that were."""
    identity = draw_identity(np.random.default_rng(job.face_seed))
    scene = draw_scene(np.random.default_rng(job.scene_seed))
    rng = np.random.default_rng(job.pictures_seed)
    px_per_mm = size_px * _PX_PER_MM * float(np.exp(rng.normal(0, 0.06)))
    for k, stem in enumerate(job.stems):
        figure = Figure(identity, Pose(job.head[k], job.body[k]))
        view = _framed(figure, size_px, px_per_mm, rng)
        picture = render(figure, view, scene, rng)
        label = label_of(figure, job.angles_deg[k], view, rng, is_test=job.is_test)
        _write_pair(root / stem, picture, label, scene.camera.jpeg_quality)
        if k < len(job.twin_stems):
            twin = mirrored_label(label, job.twin_angles_deg[k])
            flipped = ImageOps.mirror(picture)
            _write_pair(root / job.twin_stems[k], flipped, twin, scene.camera.jpeg_quality)
    return job.count


def _framed(figure: Figure, size_px: int, px_per_mm: float, rng: np.random.Generator) -> View:
    """The middle of the landmarks' box near the place where 300W-LP has it."""
    flat = figure.landmarks[:, :2]
    middle = (flat.min(axis=0) + flat.max(axis=0)) / 2
    target = size_px * (np.array(_CENTRE) + rng.normal(0, 0.012, 2))
    x, y = target - middle * px_per_mm
    return View(size_px, (float(x), float(y)), px_per_mm)


def _run(
    jobs: list[FaceJob], work: Callable[[FaceJob], int], total: int, processes: int | None
) -> Iterator[int]:
    workers = processes or (1 if total <= _IN_PROCESS_UP_TO else cores())
    if workers == 1:
        yield from map(work, jobs)
        return
    # Spawned: a fork of a process in which torch has threads may hang.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(work, jobs, chunksize=4)


def _write_pair(stem: Path, picture: Image.Image, label: Label, quality: int) -> None:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    # Not with_suffix: a stem may hold a dot.
    _write(stem.parent / f"{stem.name}.jpg", buffer.getvalue())
    _write(stem.parent / f"{stem.name}.mat", label.as_mat())


def _write(path: Path, content: bytes) -> None:
    """Nobody sees half a file; not forced to disk, as the folder's marker says when all is done."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    draft.write_bytes(content)
    draft.replace(path)


def _mark(root: Path, arguments: dict[str, int], *, finished: bool) -> None:
    text = json.dumps({**arguments, "finished": finished}, indent=1)
    write_atomically(root / MARKER, text.encode())


def _is_finished(root: Path, arguments: dict[str, int]) -> bool:
    """Whether the folder holds all of this already; refuses what is not this function's own."""
    if root.exists() and not root.is_dir():
        raise UserError(str(root), "is a file", rule="a folder to write synthetic faces into")
    if not root.exists() or not any(root.iterdir()):
        return False
    found = _read_marker(root / MARKER)
    finished = found.pop("finished", False)
    if found != arguments:
        raise UserError(
            str(root),
            "the folder holds other synthetic faces" if found else "the folder is not empty",
            got=found or sorted(path.name for path in root.iterdir())[:5],
            rule=f"a new or empty folder, or one with {arguments}",
            remedy="name another folder, or delete this one",
        )
    return bool(finished)


def _read_marker(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return content if isinstance(content, dict) else {}


def _check(
    train_images: int, test_images: int, size_px: int, seed: int, processes: int | None
) -> None:
    limits = {
        "train_images": (train_images, 0, 200_000),
        "test_images": (test_images, 0, 99_999),  # five digits in a name
        "size_px": (size_px, SMALLEST_PX, LARGEST_PX),
        "seed": (seed, 0, 2**63 - 1),
        "processes": (1 if processes is None else processes, 1, 1024),
    }
    for name, (value, low, high) in limits.items():
        if not low <= value <= high:
            raise UserError(
                f"synthesize.{name}", "out of range", got=value, rule=f"from {low} to {high}"
            )


def _say_nothing(_done: int, _total: int) -> None:
    """The progress of a caller who asked for none."""
