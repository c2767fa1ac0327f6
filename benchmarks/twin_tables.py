"""The answers of the twin study as tables, in the papers' form."""

import itertools
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.report import table
from headpose.angles import turn_clockwise, within_limit
from headpose.data.statistics import PUBLISHED_DEG, percentiles
from headpose.data.turned import TURNS_DEG
from headpose.evaluate import constant_baseline

Poses = NDArray[np.floating]
COLUMNS = ("Yaw", "Pitch", "Roll", "MAE")
ANGLES = ("yaw", "pitch", "roll")
TURNED_SHARES = (0.1, 0.2, 0.25)
ROTATION = {
    "Rotation": ("twin-rotation", "twin-plain", "twin-300w-aug", "twin-as-many-steps"),
    "Rotation, 30 epochs": ("twin-longer-rotation",),
}
"""How the searches begin whose answers are set beside one another."""
LIMITS_DEG = (0.0, 15.0, 30.0, 60.0, 99.0)
WIDE_DEG = 30.0
NONE, MORE_STEPS = "none", ", as many steps"
"""Treatments are named by these; as many steps as 300W_AUG takes."""


@dataclass(frozen=True)
class Answer:
    """One evaluated trial; ``predicted`` is (N, 3) degrees on the test set."""

    search: str
    parameters: dict[str, object]
    val: dict[str, float]
    best_epoch: int
    epochs: int
    trained: int
    seed: int
    predicted: Poses
    checkpoint: str = ""
    """Key of the best epoch, from which all that made it follows."""
    latency_ms: float | None = None

    def errors(self, true: Poses) -> NDArray[np.float64]:
        """(N, 3) absolute errors, without wrapping, as the AFLW2000 protocol has them."""
        found: NDArray[np.float64] = np.abs(np.asarray(self.predicted, np.float64) - true)
        return found

    def mae(self, true: Poses) -> float:
        return float(self.errors(true).mean())


def tables(answers: Sequence[Answer], train: Poses, test: Poses) -> str:
    """All tables that the answers suffice for."""
    baseline = constant_baseline(train, test).mae
    parts = ["## Poses", _poses(train, test)]
    parts += [f"Always answering the mean training pose: {baseline:.2f}° on the test set."]
    by_search: dict[str, list[Answer]] = {}
    for answer in answers:
        by_search.setdefault(answer.search, []).append(answer)
    for title, beginnings in ROTATION.items():
        rotated = [a for a in answers if a.search.startswith(beginnings)]
        if rotated:
            parts += [f"## {title}", _rotation(rotated, test), _gain_by_angle(rotated, test)]
    for name, found in by_search.items():
        if not _is_of_rotation(name):
            parts += [f"## {name}", _plain(found, test), _sharing(found)]
    return "\n\n".join(parts)


def _poses(train: Poses, test: Poses) -> str:
    """5th and 95th percentiles, ours beside those published; turned sets from their labels."""
    sets = {"training faces": train, "test faces": test}
    for share in TURNED_SHARES:
        sets[f"training faces and {share:.0%} of them turned by each angle"] = _with_turned(
            train, share
        )
    rows: list[Sequence[object]] = []
    for name, angles in sets.items():
        found = percentiles(angles, (5, 95))
        rows.append((name, *(f"{found[a][5]:.1f} / {found[a][95]:.1f}" for a in ANGLES)))
    for name, limits in PUBLISHED_DEG.items():
        rows.append((f"{name}, published", *(f"{low} / {high}" for low, high in limits)))
    return table(("5% / 95%", *ANGLES), rows)


def _with_turned(train: Poses, share: float) -> Poses:
    random = np.random.default_rng(0)
    parts = [train]
    for turn_deg in TURNS_DEG:
        turned = turn_clockwise(
            torch.from_numpy(train[random.random(len(train)) < share]), turn_deg
        )
        parts.append(turned[within_limit(turned)].numpy())
    return np.concatenate(parts)


def _is_of_rotation(search: str) -> bool:
    return any(search.startswith(beginnings) for beginnings in ROTATION.values())


def _treatment(answer: Answer) -> str:
    if answer.search.startswith("twin-300w-aug"):
        return "300W_AUG"
    turn = float(str(answer.parameters["rotate_deg"]))
    share = float(str(answer.parameters.get("rotate_share", 1.0)))
    of = "" if share == 1 else f", {share:.0%} of the pictures"
    longer = MORE_STEPS if answer.search.startswith("twin-as-many-steps") else ""
    return (f"on the fly, ±{turn:g}°{of}" if turn else NONE) + longer


def _kinds(answers: Sequence[Answer]) -> list[str]:
    kinds = {_treatment(a) for a in answers}
    return sorted(kinds, key=lambda kind: (kind.removesuffix(MORE_STEPS) != NONE, kind))


def _comparisons(kinds: Sequence[str]) -> list[tuple[str, str]]:
    """Treatments, each with what it is to be compared with: the plain set for as many epochs, and
    for as many steps where the treatment takes more of them."""
    found = []
    for kind in kinds:
        if kind in (NONE, NONE + MORE_STEPS):
            continue
        if not kind.endswith(MORE_STEPS):
            found.append((kind, NONE))
        if kind.endswith(MORE_STEPS) or kind == "300W_AUG":
            found.append((kind, NONE + MORE_STEPS))
    return [(kind, other) for kind, other in found if other in kinds]


def _rotation(answers: Sequence[Answer], test: Poses) -> str:
    rows: list[Sequence[object]] = []
    summary: list[Sequence[object]] = []
    kinds = _kinds(answers)
    for kind in kinds:
        found = sorted((a for a in answers if _treatment(a) == kind), key=lambda a: a.seed)
        rows += [(kind, a.seed, *_cells(a.errors(test)), f"{a.val['val_mae']:.2f}") for a in found]
        maes = [a.mae(test) for a in found]
        spread = f"{statistics.stdev(maes):.2f}" if len(maes) > 1 else "-"
        width = f"{max(maes) - min(maes):.2f}" if len(maes) > 1 else "-"
        summary.append((kind, len(maes), f"{statistics.mean(maes):.2f}", spread, width))
    head = ("rotation", "seed", *COLUMNS, "validation MAE")
    last = ("rotation", "seeds", "mean MAE", "standard deviation", "largest − smallest")
    told = [_verdict(kind, other, answers, test) for kind, other in _comparisons(kinds)]
    return "\n\n".join((table(head, rows), table(last, summary), "\n".join(told)))


def _verdict(kind: str, other: str, answers: Sequence[Answer], test: Poses) -> str:
    """Seeds that both have, and whether the mean gain is larger than what a seed changes."""
    by_seed = {
        k: {a.seed: a.mae(test) for a in answers if _treatment(a) == k} for k in (other, kind)
    }
    seeds = sorted(set(by_seed[other]) & set(by_seed[kind]))
    told = f"- {kind} against {other}:"
    if not seeds:
        return f"{told} no seed in common."
    gains = [by_seed[other][seed] - by_seed[kind][seed] for seed in seeds]
    gain = statistics.mean(gains)
    if len(seeds) == 1:
        return f"{told} gain {gain:+.2f}° with one seed, which says nothing of chance."
    spread = max(
        max(found[seed] for seed in seeds) - min(found[seed] for seed in seeds)
        for found in by_seed.values()
    )
    relation = "more" if gain > spread else "not more"
    return (
        f"{told} gain {gain:+.2f}° over {len(seeds)} seeds "
        f"({', '.join(f'{one:+.2f}' for one in gains)}), {relation} than the "
        f"largest difference between seeds, {spread:.2f}°."
    )


def _gain_by_angle(answers: Sequence[Answer], test: Poses) -> str:
    """Error of an angle by its own absolute true value, and of all three by whether pitch and roll
    are large; means over the seeds, gains over those that both have."""
    kinds = _kinds(answers)
    comparisons = _comparisons(kinds)
    rows = []
    for name, inside, columns in _ranges(test):
        cells: dict[str, dict[int, float]] = {kind: {} for kind in kinds}
        for answer in answers:
            error = float(answer.errors(test)[inside][:, columns].mean())
            cells[_treatment(answer)][answer.seed] = error
        shown = [f"{statistics.mean(found.values()):.2f}" for found in cells.values()]
        gains = [_gain(cells[kind], cells[other]) for kind, other in comparisons]
        rows.append((name, int(inside.sum()), *shown, *gains))
    against = (f"gain, {kind} against {other}" for kind, other in comparisons)
    return table(("range", "images", *kinds, *against), rows)


def _gain(errors: Mapping[int, float], other: Mapping[int, float]) -> str:
    common = errors.keys() & other.keys()
    return f"{statistics.mean(other[s] - errors[s] for s in common):+.2f}" if common else "-"


def _ranges(test: Poses) -> Iterator[tuple[str, NDArray[np.bool_], list[int]]]:
    """Name, images (N,) and the angles whose errors count."""
    sizes = np.abs(test)
    for column, angle in enumerate(ANGLES):
        for above, limit in itertools.pairwise(LIMITS_DEG):
            inside = (sizes[:, column] >= above) & (sizes[:, column] <= limit)
            if inside.any():
                yield f"{angle}, where ±{above:.0f}–{limit:.0f}°", inside, [column]
    wide = np.any(sizes[:, 1:] > WIDE_DEG, axis=1)
    yield f"all three, pitch or roll beyond {WIDE_DEG:.0f}°", wide, [0, 1, 2]
    yield f"all three, pitch and roll within {WIDE_DEG:.0f}°", ~wide, [0, 1, 2]


def _plain(answers: Sequence[Answer], test: Poses) -> str:
    """A grid in its own order, anything else by validation MAE."""
    names = list(answers[0].parameters)
    is_grid = math.prod(len({a.parameters[n] for a in answers}) for n in names) == len(answers)

    def place(answer: Answer) -> tuple[float, list[str]]:
        if is_grid:
            return 0.0, [str(answer.parameters[name]) for name in reversed(names)]
        return answer.val["val_mae"], []

    has_latency = any(a.latency_ms for a in answers)
    rows = [
        (
            *(_short(a.parameters[name]) for name in names),
            *_cells(a.errors(test)),
            f"{a.val['val_mae']:.2f}",
            *([f"{a.latency_ms:.2f}"] if has_latency else []),
            f"{a.best_epoch}/{a.epochs}",
            a.trained,
        )
        for a in sorted(answers, key=place)
    ]
    latency = ["ms an image"] if has_latency else []
    head = (*names, *COLUMNS, "validation MAE", *latency, "best epoch", "epochs trained")
    return table(head, rows)


def _short(value: object) -> object:
    """Drawn values to three digits."""
    return float(f"{value:.3g}") if isinstance(value, float) else value


def _sharing(answers: Sequence[Answer]) -> str:
    needed = sum(a.epochs for a in answers)
    trained = sum(a.trained for a in answers)
    return (
        f"The trials take {needed} epochs; {trained} were trained ({trained / needed:.0%}), "
        "the rest was found in the store."
    )


def _cells(errors: NDArray[np.float64]) -> tuple[str, ...]:
    means = errors.mean(axis=0)
    return (*(f"{value:.2f}" for value in means), f"**{means.mean():.2f}**")
