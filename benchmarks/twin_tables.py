"""The answers of the twin study as tables, in the papers' form."""

import itertools
import statistics
from collections.abc import Callable, Sequence
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
    "Rotation, 30 epochs": ("twin-longer-rotation",),
    "Rotation, 10 epochs": ("twin-rotation", "twin-300w-aug", "twin-as-many-steps"),
}
"""How the searches begin whose answers are set beside one another."""
LIMITS_DEG = (0.0, 15.0, 30.0, 60.0, 99.0)


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
    if answer.search.startswith("twin-as-many-steps"):
        return "none, as many steps as 300W_AUG"
    turn = float(str(answer.parameters["rotate_deg"]))
    return f"on the fly, ±{turn:g}°" if turn else "none"


def _rotation(answers: Sequence[Answer], test: Poses) -> str:
    rows: list[Sequence[object]] = []
    summary: list[Sequence[object]] = []
    kinds = sorted({_treatment(a) for a in answers}, key=lambda kind: (kind != "none", kind))
    means = {}
    for kind in kinds:
        found = sorted((a for a in answers if _treatment(a) == kind), key=lambda a: a.seed)
        rows += [(kind, a.seed, *_cells(a.errors(test)), f"{a.val['val_mae']:.2f}") for a in found]
        maes = [a.mae(test) for a in found]
        means[kind] = statistics.mean(maes)
        spread = f"{statistics.stdev(maes):.2f}" if len(maes) > 1 else "-"
        width = f"{max(maes) - min(maes):.2f}"
        gain = f"{means['none'] - means[kind]:+.2f}" if "none" in means else "-"
        summary.append((kind, len(maes), f"{means[kind]:.2f}", spread, width, gain))
    head = ("rotation", "seed", *COLUMNS, "validation MAE")
    last = ("rotation", "seeds", "mean MAE", "standard deviation", "largest − smallest", "gain")
    told = [_verdict(kind, answers, test) for kind in kinds if kind != "none"]
    return "\n\n".join((table(head, rows), table(last, summary), "\n".join(told)))


def _verdict(kind: str, answers: Sequence[Answer], test: Poses) -> str:
    """Seeds that both have, and whether the mean gain is larger than what a seed changes."""
    by_seed = {
        k: {a.seed: a.mae(test) for a in answers if _treatment(a) == k} for k in ("none", kind)
    }
    seeds = sorted(set(by_seed["none"]) & set(by_seed[kind]))
    if not seeds:
        return f"- {kind}: not to be compared yet."
    gain = statistics.mean(by_seed["none"][seed] - by_seed[kind][seed] for seed in seeds)
    if len(seeds) == 1:
        return f"- {kind}: gain {gain:+.2f}° with one seed, which says nothing of chance."
    spread = max(
        max(found[seed] for seed in seeds) - min(found[seed] for seed in seeds)
        for found in by_seed.values()
    )
    relation = "more" if gain > spread else "not more"
    return (
        f"- {kind}: gain {gain:+.2f}° over {len(seeds)} seeds, {relation} than the "
        f"largest difference between seeds, {spread:.2f}°."
    )


def _gain_by_angle(answers: Sequence[Answer], test: Poses) -> str:
    """Error of an angle by its own absolute true value, means over the seeds."""
    kinds = sorted({_treatment(a) for a in answers}, key=lambda kind: (kind != "none", kind))
    rows = []
    for column, angle in enumerate(ANGLES):
        size = np.abs(test[:, column])
        for above, limit in itertools.pairwise(LIMITS_DEG):
            inside = (size >= above) & (size <= limit)
            if not inside.any():
                continue
            cells = [_mean_of(answers, kind, lambda e: e[inside, column], test) for kind in kinds]  # noqa: B023
            count = int(inside.sum())
            shown = [f"{value:.2f}" for value in cells]
            gains = [f"{cells[0] - value:+.2f}" for value in cells[1:]]
            rows.append((f"{angle} ±{above:.0f}–{limit:.0f}°", count, *shown, *gains))
    head = ("range", "images", *kinds, *(f"gain, {kind}" for kind in kinds[1:]))
    return table(head, rows)


def _mean_of(
    answers: Sequence[Answer],
    kind: str,
    part: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    test: Poses,
) -> float:
    values = [part(a.errors(test)).mean() for a in answers if _treatment(a) == kind]
    return float(np.mean(values))


def _plain(answers: Sequence[Answer], test: Poses) -> str:
    names = list(answers[0].parameters)
    rows = [
        (
            *(a.parameters[name] for name in names),
            *_cells(a.errors(test)),
            f"{a.val['val_mae']:.2f}",
            f"{a.best_epoch}/{a.epochs}",
            a.trained,
        )
        for a in sorted(answers, key=lambda a: [str(a.parameters[n]) for n in reversed(names)])
    ]
    return table((*names, *COLUMNS, "validation MAE", "best epoch", "epochs trained"), rows)


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
