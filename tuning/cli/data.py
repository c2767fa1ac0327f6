"""``hopetune data``: synthetic faces, preparation and inspection of data sets."""

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuning.cli.output import progress_bar, say, say_json, say_table

if TYPE_CHECKING:
    from headpose.data.manifest import Manifest, PrepareSettings
    from headpose.data.preparation import Progress
    from tuning.datasets import Description

app = typer.Typer(
    help="Make, prepare and inspect data sets.", no_args_is_help=True, rich_markup_mode="markdown"
)


MOST_PIXELS = 2048
"""`headpose.data.manifest.MAX_STORED_PX`, which `--help` need not import."""
LEFT_OUT_SHOWN = 3
BAR_LENGTH = 16


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
        int,
        typer.Option(
            help="Side of the stored crops; a network sees the inner 80% of it, `image_px`.",
            min=32,
            max=MOST_PIXELS,
        ),
    ] = 280,
    crop: Annotated[
        CropName, typer.Option(help="Landmarks that span the face's box; `original`: as published.")
    ] = CropName.ORIGINAL,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace", help="Put it in the place of another set, which searches may need."
        ),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Decode and crop a data set once, so that every trial on a node can share it in memory.

    Broken off in the middle, the same command goes on where it was.

    Example: `hopetune data prepare 300w-lp /data/300W_LP --to s3://hopetune/data/300w-lp`
    """
    from headpose.data.manifest import PrepareSettings

    settings = PrepareSettings(stored_px=pixels, policy=crop.value)
    with progress_bar(disable=json) as bar:
        task = bar.add_task("preparing", total=None)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        manifest = _prepared(layout, source.expanduser(), to, settings, show, replace=replace)
    if json:
        left_out = {entry.name: entry.reason for entry in manifest.left_out}
        found = {"place": to, "count": manifest.count, "fingerprint": manifest.fingerprint}
        say_json({**found, "left_out": left_out})
        return
    say(f"{manifest.count} images in {to}, fingerprint {manifest.fingerprint[:16]}")
    for entry in manifest.left_out[:LEFT_OUT_SHOWN]:
        say(f"  left out: {entry.name}: {entry.reason}")
    if (more := len(manifest.left_out) - LEFT_OUT_SHOWN) > 0:
        say(f"  left out: {more} more, all named in the set's manifest.json")


def _prepared(
    layout: LayoutName,
    source: Path,
    to: str,
    settings: "PrepareSettings",
    progress: "Progress",
    *,
    replace: bool,
) -> "Manifest":
    from cluster.settings import load_settings
    from headpose.data.prepared import prepare as decode
    from tuning.objects import Objects, is_in_s3, parse_place
    from tuning.places import preparing
    from tuning.preparing import prepare_and_publish

    if not is_in_s3(to):
        folder = Path(to).expanduser()
        return decode(layout.value, source, folder, settings, progress, replace=replace)
    servers = load_settings()
    objects = Objects(servers)
    objects.check(parse_place(to).bucket)
    return prepare_and_publish(
        layout.value,
        source,
        to,
        settings,
        objects,
        preparing(servers),
        progress,
        replace=replace,
    )


@app.command()
def augment(
    source: Annotated[Path, typer.Argument(help="A folder in the layout of 300W-LP.")],
    target: Annotated[Path, typer.Argument(help="Where to write the copy; new or empty.")],
    share: Annotated[
        float, typer.Option(help="Of the pictures, turned by each angle.", min=0.001, max=1.0)
    ] = 0.1,
    seed: Annotated[int, typer.Option(help="Another seed turns other pictures.", min=0)] = 0,
) -> None:
    """Copy 300W-LP with pictures turned by -20, -10, 10 and 20 degrees added: 300W_AUG.

    Poses and landmarks turn with the pictures. To turn on the fly instead, search or set
    `rotate_deg` and `rotate_share`.

    Example: `hopetune data augment /data/300W_LP /data/300W_AUG`
    """
    from headpose.data.turned import turn_set

    with progress_bar() as bar:
        task = bar.add_task("turning", total=None)
        found = turn_set(
            source.expanduser(),
            target.expanduser(),
            share=share,
            seed=seed,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    say(f"{found.copied} pictures copied, {found.turned} turned ones added")
    say(f"  {found.beyond_limit} turns left out: an angle would lie beyond ±99°")
    if found.unusable:
        say(f"  {found.unusable} pictures without a usable label, or damaged: copied as they are")


@app.command()
def inspect(
    place: Annotated[str, typer.Argument(help="A prepared set: a folder, or s3://BUCKET/KEY.")],
    beside: Annotated[
        str | None, typer.Option(help="Another prepared set, to compare the poses of both.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Print what poses a prepared set holds and what was left out; no image is fetched.

    Example: `hopetune data inspect s3://hopetune/data/quickstart-train`
    """
    from headpose.data.statistics import histogram, percentiles, reasons

    found = _described(place)
    other = None if beside is None else percentiles(_described(beside).angles_deg)
    manifest, angles_deg = found.manifest, found.angles_deg
    shares, bins = percentiles(angles_deg), histogram(angles_deg)
    why = reasons(manifest.left_out)
    if json:
        say_json(
            {
                "images": manifest.count,
                "photos": len(set(found.photos)),
                "fingerprint": manifest.fingerprint,
                "settings": asdict(manifest.settings),
                "percentiles_deg": shares,
                "percentiles_beside_deg": other,
                "histogram": bins,
                "left_out": why,
            }
        )
        return
    settings = manifest.settings
    say(f"{manifest.count} images of {len(set(found.photos))} photos")
    say(f"fingerprint {manifest.fingerprint}")
    say(
        f"{settings.stored_px} px stored, {settings.view_fraction:.0%} of them in view; "
        f"crop {settings.policy}, looseness {settings.looseness_of(manifest.layout):g}"
    )
    _say_published({place: shares} if other is None else {place: shares, str(beside): other})
    _say_poses(shares, bins, manifest.count)
    say(f"\nleft out: {len(manifest.left_out)}")
    for reason, count in why.items():
        say(f"  {count} × {reason}")
    for entry in manifest.left_out[:LEFT_OUT_SHOWN]:
        say(f"    {entry.name}: {entry.reason}")


def _described(place: str) -> "Description":
    """What a set holds; a folder's needs no keys of S3."""
    from cluster.settings import load_settings
    from tuning.datasets import describe, describe_folder
    from tuning.objects import Objects, is_in_s3

    if is_in_s3(place):
        return describe(place, Objects(load_settings()))
    return describe_folder(Path(place).expanduser())


def _say_published(sets: dict[str, dict[str, dict[int, float]]]) -> None:
    """5th and 95th percentiles as the papers tabulate them, theirs below ours."""
    from headpose.data.statistics import ANGLES, PUBLISHED_DEG

    rows = [
        (name, *(f"{found[a][5]:+.1f}° / {found[a][95]:+.1f}°" for a in ANGLES))
        for name, found in sets.items()
    ]
    rows += [
        (f"{name}, published", *(f"{low:+.1f}° / {high:+.1f}°" for low, high in limits))
        for name, limits in PUBLISHED_DEG.items()
    ]
    say("")
    say_table(("5 % / 95 %", *ANGLES), rows)


def _say_poses(
    shares: dict[str, dict[int, float]], bins: dict[str, dict[float, int]], count: int
) -> None:
    """Percentiles, and histograms side by side."""
    say("")
    names = tuple(shares)
    rows = [
        (f"{share} %", *(f"{shares[name][share]:.1f}°" for name in names))
        for share in shares[names[0]]
    ]
    say_table(("percentile", *names), rows)
    say("")
    highest = max(max(of_angle.values()) for of_angle in bins.values())
    edges = list(bins[names[0]])
    width = edges[1] - edges[0]
    rows = [
        (
            f"{edge:.0f}° to {edge + width:.0f}°",
            *(_bar(bins[name][edge], count, highest) for name in names),
        )
        for edge in edges
    ]
    say_table(("share of images", *names), rows)


def _bar(number: int, count: int, highest: int) -> str:
    return f"{number / count:6.1%} {'█' * round(BAR_LENGTH * number / highest)}"
