"""A search's table in the papers' form, from what the study knows; pure.

One row a trial: mean absolute errors of yaw, pitch and roll and their mean, on the validation
split, on the test set where it was evaluated, and as published where the search file says so.
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headpose.evaluate import PoseErrors
from tuning.published import Published
from tuning.records import SearchRecord, TrialRecord
from tuning.space import Settings
from tuning.spec import SearchSpec

VALIDATION, TEST = "validation", "test"
ANGLE_COLUMNS = ("Yaw", "Pitch", "Roll", "MAE")


@dataclass(frozen=True)
class Line:
    """Errors in degrees, of yaw, pitch, roll and their mean; none where a paper gives none."""

    measured_on: str
    """``validation``, ``test``, or ``published: SOURCE``."""
    degrees: tuple[float | None, float | None, float | None, float | None]

    @property
    def mae(self) -> float | None:
        return self.degrees[3]


@dataclass(frozen=True)
class Row:
    """A trial with all that is known of its error; or published figures that no trial answers."""

    trial: int | None
    settings: Settings
    """Values of the searched parameters."""
    state: str
    epochs: int
    best_epoch: int | None
    lines: tuple[Line, ...]
    others: tuple[float | None, ...] = ()
    """What it reached in the search's other objectives, such as milliseconds."""


@dataclass(frozen=True)
class Report:
    """What a search found and took."""

    search: str
    ended: str
    rows: tuple[Row, ...]
    parameters: tuple[str, ...]
    other_objectives: tuple[str, ...]
    epochs_needed: int
    """Of all trials together, each trained by itself."""
    epochs_trained: int
    """The others were found in the store: trained by a trial whose plan begins alike."""
    gpu_hours: float
    unit: str
    """Whose hours these are: ``GPU``, or ``CPU`` where trials ask for no GPU."""
    validation_share: float
    test_place: str | None

    @property
    def trained_share(self) -> float:
        return self.epochs_trained / self.epochs_needed if self.epochs_needed else math.nan


def report_of(search: SearchRecord, tested: Mapping[int, PoseErrors], now_ms: int) -> Report:
    """The report of a search: running, interrupted or ended.

    Args:
        search: all that the study knows.
        tested: errors on the test set by the trial's number.
        now_ms: the time, for the cost of trials that still run.
    """
    spec = search.spec
    found = [t for t in search.trials if t.best_epoch is not None]
    if spec.sampler.name != "grid":
        found.sort(key=lambda t: t.value if t.value is not None else math.inf)
    rows = [_row(trial, spec, tested) for trial in found]
    met = {
        id(published)
        for trial in found
        for published in spec.published
        if published.fits({**spec.fixed, **trial.parameters})
    }
    rows += [
        Row(None, dict(p.match), "not tried", 0, None, (_published(p),))
        for p in spec.published
        if id(p) not in met
    ]
    epochs = [epoch for trial in search.trials for epoch in trial.epochs]
    return Report(
        search=search.name,
        ended=search.ended or ("still running" if search.driven else "interrupted"),
        rows=tuple(rows),
        parameters=tuple(spec.parameters),
        other_objectives=tuple(spec.objectives[1:]),
        epochs_needed=len(epochs),
        epochs_trained=sum(not epoch.restored for epoch in epochs),
        gpu_hours=search.gpu_hours(search.ended_ms or now_ms),
        unit=spec.resources.unit,
        validation_share=spec.data.validation_fraction,
        test_place=spec.data.test,
    )


def as_markdown(report: Report) -> str:
    """The table with what it took, for people."""
    others = report.other_objectives
    head = ("trial", *report.parameters, "measured on", *ANGLE_COLUMNS, *others)
    head = (*head, "best epoch", "state")
    lines = [head, ["---"] * len(head)]
    for row in report.rows:
        settings = [_shown(row.settings.get(name)) for name in report.parameters]
        about = [f"{row.best_epoch}/{row.epochs}" if row.trial is not None else "", row.state]
        for index, line in enumerate(row.lines):
            first = index == 0
            number = "" if row.trial is None or not first else str(row.trial)
            cells = [number, *(settings if first else [""] * len(settings)), line.measured_on]
            cells += [_number(value) for value in line.degrees]
            reached = [_number(v) for v in row.others] if first else []
            cells += reached or [""] * len(others)
            lines.append([*cells, *(about if first else ["", ""])])
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"# {report.search}\n\n{table}\n\n{summary(report)}\n"


def summary(report: Report) -> str:
    """What stands below the table."""
    test = f"Test set: {report.test_place}." if report.test_place else "No test set is named."
    shares = f"hours of trials' shares of {report.unit}s"
    if report.unit == "GPU":
        shares += "; where the cluster has none, of logical ones"
    return "\n".join(
        (
            f"Mean absolute errors in degrees. Validation: {report.validation_share:.0%} of the "
            f"training photos. {test} A trial's figures are those of its best validation epoch; "
            "to choose by the test figures would spend them.",
            "",
            f"- It ended: {report.ended}.",
            f"- Its trials take {report.epochs_needed} epochs; {report.epochs_trained} were "
            f"trained ({report.trained_share:.0%}), the rest was found in the store."
            if report.epochs_needed
            else "- No epoch was trained.",
            f"- It cost {report.gpu_hours:.2f} {report.unit}-hours ({shares}).",
        )
    )


def as_csv(report: Report) -> str:
    """One line a trial and measurement, for programs."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = ("trial", *report.parameters, "measured_on", "yaw_mae", "pitch_mae", "roll_mae", "mae")
    writer.writerow((*head, *report.other_objectives, "best_epoch", "epochs", "state"))
    for row in report.rows:
        settings = [row.settings.get(name) for name in report.parameters]
        others = row.others or (None,) * len(report.other_objectives)
        for line in row.lines:
            about = (*others, row.best_epoch, row.epochs, row.state)
            writer.writerow((row.trial, *settings, line.measured_on, *line.degrees, *about))
    return text.getvalue()


def series(report: Report) -> tuple[list[str], dict[str, list[float | None]]]:
    """For a figure: a label for each row, and MAE in degrees by what it was measured on."""
    labels = [_label(row, report.parameters) for row in report.rows]
    found = {
        kind: [_mae(row, kind) for row in report.rows] for kind in (VALIDATION, TEST, "published")
    }
    return labels, {kind: values for kind, values in found.items() if any(values)}


def _mae(row: Row, kind: str) -> float | None:
    return next((line.mae for line in row.lines if line.measured_on.startswith(kind)), None)


def _row(
    trial: TrialRecord,
    spec: SearchSpec,
    tested: Mapping[int, PoseErrors],
) -> Row:
    best = trial.best_epoch
    lines = []
    if best is not None:
        names = ("val_yaw_mae", "val_pitch_mae", "val_roll_mae", "val_mae")
        yaw, pitch, roll, mae = (best.metrics.get(name) for name in names)
        lines.append(Line(VALIDATION, (yaw, pitch, roll, mae)))
    if trial.number in tested:
        e = tested[trial.number]
        lines.append(Line(TEST, (e.yaw_mae, e.pitch_mae, e.roll_mae, e.mae)))
    settings = {**spec.fixed, **trial.parameters}
    lines += [_published(p) for p in spec.published if p.fits(settings)]
    last = trial.end.metrics if trial.end else {}
    return Row(
        trial=trial.number,
        settings=dict(trial.parameters),
        state=trial.exit_reason or trial.state.lower(),
        epochs=len(trial.epochs),
        best_epoch=best.epoch if best else None,
        lines=tuple(lines),
        others=tuple(last.get(name) for name in spec.objectives[1:]),
    )


def _published(row: Published) -> Line:
    return Line(f"published: {row.source}", (row.yaw, row.pitch, row.roll, row.mae))


def _label(row: Row, parameters: Sequence[str]) -> str:
    values = [_shown(row.settings[name]) for name in parameters if name in row.settings]
    return ", ".join(values)


def _shown(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
