"""``hopetune promote``, ``rollback``, ``predict``: from a search to degrees."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from cluster.settings import load_settings
from tuning.cli.output import say, say_json, say_table
from tuning.cli.searches import record_of
from usererror import UserError

REFUSED = 3

Json = Annotated[bool, typer.Option("--json", help="For programs.")]


def promote(
    search: Annotated[str, typer.Argument(help="Name of a search, or `latest`.")] = "latest",
    trial: Annotated[int | None, typer.Option(help="Another trial than the best.")] = None,
    force: Annotated[bool, typer.Option(help="Promote against the evidence; give --why.")] = False,
    why: Annotated[str | None, typer.Option(help="Recorded with a forced promotion.")] = None,
    json: Json = False,
) -> None:
    """Evaluate a search's best trial on the test set; make it the champion if it is better.

    Exits with 3 where the champion stays. Example: `hopetune promote latest`
    """
    from tuning.promotion import promote as decide

    if force != (why is not None):
        rule = "--force and --why go together: a forced promotion is recorded with its reason"
        raise UserError("hopetune promote", "half of a forced promotion", rule=rule)
    settings = load_settings()
    quiet = (lambda _text: None) if json else say
    verdict = decide(record_of(search), settings, trial_number=trial, force_why=why, tell=quiet)
    if json:
        say_json(dataclasses.asdict(verdict))
    else:
        rows = [
            (name, *(f"{value:.2f}°" for value in (e.yaw_mae, e.pitch_mae, e.roll_mae, e.mae)))
            for name, e in (
                (f"trial {verdict.trial}", verdict.errors),
                ("training mean", verdict.baseline),
            )
        ]
        say_table(("test set", "yaw", "pitch", "roll", "MAE"), rows)
        ratio = verdict.errors.mae / verdict.baseline.mae
        say(f"test MAE is {ratio:.2f} of that of always answering the training mean")
        if verdict.version is not None:
            say(f"{verdict.model_name} version {verdict.version} is champion: {verdict.reason}")
        else:
            say(verdict.reason)
    if verdict.version is None:
        raise typer.Exit(REFUSED)


def rollback(
    model: Annotated[str, typer.Option(help="Registered model whose champion goes.")] = "headpose",
    json: Json = False,
) -> None:
    """Make the version that a model's champion replaced the champion again.

    Example: `hopetune rollback --model headpose-quickstart`
    """
    from tuning.mlflow_client import MlflowRuns, Registry
    from tuning.objects import Objects

    settings = load_settings()
    registry = Registry(settings, MlflowRuns(settings, Objects(settings)))
    before, now = registry.roll_back(model)
    if json:
        say_json({"model": model, "version": now, "instead_of": before})
    else:
        say(f"{model} version {now} is champion again, instead of version {before}")


def predict(
    images: Annotated[list[Path], typer.Argument(help="Pictures, each of one head.")],
    model: Annotated[
        str,
        typer.Option(help="Registered model (a search's `model_name`); its champion answers."),
    ] = "headpose",
    weights: Annotated[
        Path | None,
        typer.Option(
            help="Instead: a checkpoint's weights.safetensors, or a released Hopenet's .pkl."
        ),
    ] = None,
    box: Annotated[
        tuple[int, int, int, int] | None,
        typer.Option(
            help="Face: left top right bottom. Default: from a .mat beside the picture, "
            "else the whole picture."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for copies with the axes drawn.")] = None,
    json: Json = False,
) -> None:
    """Say where heads are looking, in degrees, and draw the three axes on copies of the pictures.

    Example: `hopetune predict face.jpg --model headpose-quickstart --out predictions`
    """
    from tuning.prediction import predict_files

    # No shell expands the `~` of `--out=~/drawings`.
    weights, out = weights and weights.expanduser(), out and out.expanduser()
    found = predict_files(images, load_settings(), model=model, weights=weights, box=box, out=out)
    if json:
        say_json([dataclasses.asdict(prediction) for prediction in found])
        return
    rows = [
        (p.image, *(f"{value:+.1f}°" for value in (p.yaw_deg, p.pitch_deg, p.roll_deg)), p.drawing)
        for p in found
    ]
    say_table(("picture", "yaw", "pitch", "roll", "drawing"), rows)


COMMANDS = (promote, rollback, predict)
