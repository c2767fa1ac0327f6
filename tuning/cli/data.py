"""``hopetune data``: synthetic faces, preparation and inspection of data sets."""

import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tuning.cli.output import progress_bar, say, say_json, say_table

app = typer.Typer(
    help="Make, prepare and inspect data sets.", no_args_is_help=True, rich_markup_mode="markdown"
)


LEFT_OUT_SHOWN = 3


class LayoutName(StrEnum):
    """The on-disk layouts that can be read."""

    W300_LP = "300w-lp"
    AFLW2000 = "aflw2000"


class CropName(StrEnum):
    """Which landmarks span a face's box; state it with every figure."""

    ORIGINAL = "original"
    VISIBLE_LANDMARKS = "visible-landmarks"


@app.command()
def synthesize(
    folder: Annotated[Path, typer.Argument(help="Where to write; new or empty.")],
    train: Annotated[int, typer.Option(help="Training images, about.", min=1)] = 2000,
    test: Annotated[int, typer.Option(help="Test images.", min=1)] = 500,
    size: Annotated[int, typer.Option(help="Side of the pictures in pixels.", min=32)] = 450,
    seed: Annotated[int, typer.Option(help="The same seed gives the same faces.", min=0)] = 0,
) -> None:
    """Render faces with known poses, written just as 300W-LP and AFLW2000 are.

    Example: `hopetune data synthesize faces --train 2000 --test 500 --size 160`
    """
    from headpose.data.synthetic import synthesize as render

    with progress_bar() as bar:
        task = bar.add_task("rendering", total=None)
        render(
            folder,
            train_images=train,
            test_images=test,
            size_px=size,
            seed=seed,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )


@app.command()
def prepare(
    layout: Annotated[LayoutName, typer.Argument(help="How the source is laid out.")],
    source: Annotated[Path, typer.Argument(help="The folder with the pictures and .mat files.")],
    to: Annotated[str, typer.Option(help="A folder, or s3://BUCKET/KEY.")],
    pixels: Annotated[
        int, typer.Option(help="Side of the stored crops; leave room around the input.", min=32)
    ] = 280,
    crop: Annotated[
        CropName, typer.Option(help="Landmarks that span the face's box; `original`: as published.")
    ] = CropName.ORIGINAL,
) -> None:
    """Decode and crop a data set once, so that every trial on a node can share it in memory.

    Example: `hopetune data prepare 300w-lp /data/300W_LP --to s3://hopetune/data/300w-lp`
    """
    from cluster.settings import load_settings
    from headpose.data.manifest import PrepareSettings
    from headpose.data.prepared import prepare as decode
    from tuning.datasets import publish
    from tuning.objects import Objects, parse_place

    remote = to.startswith("s3://")
    objects = Objects(load_settings()) if remote else None
    if objects is not None:
        objects.check(parse_place(to).bucket)
    with tempfile.TemporaryDirectory(prefix="hopetune-prepare-") as scratch, progress_bar() as bar:
        folder = Path(scratch) / "set" if remote else Path(to).expanduser()
        task = bar.add_task("preparing", total=None)
        manifest = decode(
            layout.value,
            source.expanduser(),
            folder,
            PrepareSettings(stored_px=pixels, policy=crop.value),
            lambda done, total: bar.update(task, completed=done, total=total),
        )
        if objects is not None:
            publish(folder, to, objects)
    say(f"{manifest.count} images in {to}, fingerprint {manifest.fingerprint[:16]}")
    for entry in manifest.left_out[:LEFT_OUT_SHOWN]:
        say(f"  left out: {entry.name}: {entry.reason}")
    if (more := len(manifest.left_out) - LEFT_OUT_SHOWN) > 0:
        say(f"  left out: {more} more, all named in the set's manifest.json")


@app.command()
def inspect(
    place: Annotated[str, typer.Argument(help="A prepared set: a folder, or s3://BUCKET/KEY.")],
    json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Print counts and percentiles of the poses of a prepared set.

    Example: `hopetune data inspect s3://hopetune/data/quickstart-train`
    """
    import numpy as np

    from cluster.settings import load_settings
    from tuning.datasets import open_set
    from tuning.objects import Objects
    from tuning.places import data_cache

    settings = load_settings()
    found = open_set(place, data_cache(settings), Objects(settings))
    shares = (5, 25, 50, 75, 95)
    table = np.percentile(found.angles_deg, shares, axis=0)
    if json:
        angles = {
            name: dict(zip(map(str, shares), table[:, column].round(2).tolist(), strict=True))
            for column, name in enumerate(("yaw", "pitch", "roll"))
        }
        say_json(
            {
                "images": len(found.angles_deg),
                "photos": len(set(found.photos)),
                "fingerprint": found.fingerprint,
                "percentiles_deg": angles,
            }
        )
        return
    say(f"{len(found.angles_deg)} images of {len(set(found.photos))} photos")
    say(f"fingerprint {found.fingerprint}")
    rows = [
        (f"{share} %", *(f"{value:.1f}°" for value in row))
        for share, row in zip(shares, table, strict=True)
    ]
    say_table(("percentile", "yaw", "pitch", "roll"), rows)
