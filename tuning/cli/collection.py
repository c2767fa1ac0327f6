"""``hopetune gc``: makes room in the store."""

from typing import TYPE_CHECKING, Annotated

import typer

from cluster.settings import load_settings
from tuning.cli.output import progress_bar, say, say_json, say_table

if TYPE_CHECKING:
    from tuning.collection import Survey

MB = 1e6


def gc(
    yes: Annotated[bool, typer.Option("--yes", help="Remove it; else it is only shown.")] = False,
    orphans: Annotated[
        bool, typer.Option("--orphans", help="Also what no search in this database explains.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Collect the heavy parts of checkpoints that no trial, run or model needs any more.

    The metrics of all epochs stay, so nothing is trained again that was reported. Without --yes it
    only shows what would go. Example: `hopetune gc`, then `hopetune gc --yes`
    """
    from tuning.collection import ORPHANS_AFTER_H, remove, survey
    from tuning.mlflow_client import registered_checkpoints
    from tuning.objects import Objects
    from tuning.places import checkpoints
    from tuning.storage import Storage
    from tuning.study import now_ms

    settings = load_settings()
    objects = Objects(settings)
    named = registered_checkpoints(settings)  # first: without an answer nothing may be collected
    with Storage(settings.require("study_url")) as storage:
        searches = storage.records()
    found = survey(objects, checkpoints(settings), searches, named, now_ms())
    chosen = [*found.collectable, *(found.orphans if orphans else ())]
    if yes and json:
        remove(objects, chosen)
    elif yes:
        with progress_bar() as bar:
            task = bar.add_task("removing", total=len(chosen))
            remove(objects, chosen, lambda count: bar.update(task, completed=count))
    if json:
        say_json({"removed": yes, **_summary(found)})
        return
    rows = [
        (name, count, f"{size / MB:,.1f}")
        for name, (count, size) in sorted(found.by_search().items())
    ]
    say_table(("search", "objects", "MB"), rows)
    _say_orphans(found, orphans, ORPHANS_AFTER_H)
    if found.damaged_bytes:
        say(f"damaged checkpoints, set aside: {found.damaged_bytes / MB:,.1f} MB; they stay")
    total = sum(piece.size for piece in chosen)
    say(f"kept: {found.kept_bytes / MB:,.1f} MB · {_verdict(yes)}: {total / MB:,.1f} MB")
    if chosen and not yes:
        say("nothing was removed; `hopetune gc --yes` does it")


def _say_orphans(found: "Survey", chosen: bool, after_h: float) -> None:
    if found.orphans:
        size = sum(piece.size for piece in found.orphans) / MB
        what = "" if chosen else "; they stay without --orphans: another database may know them"
        say(f"explained by no search here: {len(found.orphans)} objects, {size:,.1f} MB{what}")
    if found.young:
        size = sum(piece.size for piece in found.young) / MB
        say(f"the same, but younger than {after_h:g} h: {len(found.young)} objects, {size:,.1f} MB")


def _verdict(yes: bool) -> str:
    return "removed" if yes else "would go"


def _summary(found: "Survey") -> dict[str, object]:
    return {
        "collectable": {
            name: {"objects": count, "bytes": size}
            for name, (count, size) in found.by_search().items()
        },
        "collectable_bytes": sum(piece.size for piece in found.collectable),
        "orphans": [str(piece.place) for piece in found.orphans],
        "young": [str(piece.place) for piece in found.young],
        "kept_bytes": found.kept_bytes,
        "damaged_bytes": found.damaged_bytes,
    }


COMMANDS = (gc,)
