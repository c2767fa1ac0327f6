"""Preparing a data set for S3: in a folder of this machine that survives a kill, then published."""

import dataclasses
import hashlib
import shutil
from pathlib import Path

from headpose.data.cutting import Source
from headpose.data.destination import alone
from headpose.data.journal import state_of
from headpose.data.manifest import Manifest, PrepareSettings
from headpose.data.preparation import Progress
from headpose.data.prepared import PreparedSet, is_prepared, prepare
from headpose.data.readers import Layout, find_names
from headpose.files import write_atomically
from tuning.datasets import manifest_at, publish, taken
from tuning.objects import Objects

_MADE_FROM = "made-from"


def prepare_and_publish(
    layout: Layout,
    source: Path,
    uri: str,
    settings: PrepareSettings,
    objects: Objects,
    workplace: Path,
    progress: Progress | None = None,
    *,
    replace: bool = False,
) -> Manifest:
    """Prepares a set and uploads it; broken off in either, the next call goes on.

    Args:
        layout, source, settings, progress: as for :func:`headpose.data.prepared.prepare`.
        uri: the ``s3://`` place.
        objects: of its endpoint.
        workplace: a folder for what is not uploaded yet; left as it was.
        replace: put it in the place of another set.

    Raises:
        UserError: as for preparing, the storage cannot be used, another set lies there, or another
            call is at work for it. What is prepared by then is kept for the next call.
    """
    folder = workplace / hashlib.sha256(uri.encode()).hexdigest()[:16]
    with alone(folder.with_suffix(".lock"), uri):
        if not replace:
            _refuse_other_settings(layout, uri, settings, objects)
        manifest = _made(layout, source, folder, settings, progress)
        publish(folder / "set", uri, objects, replace=replace)
        shutil.rmtree(folder)
    return manifest


def _made(
    layout: Layout,
    source: Path,
    folder: Path,
    settings: PrepareSettings,
    progress: Progress | None,
) -> Manifest:
    """The manifest of the set, made in the folder or found there."""
    folder.mkdir(parents=True, exist_ok=True)
    made_from = folder / _MADE_FROM
    state = state_of(Source(layout, source, find_names(layout, source), settings))
    if is_prepared(folder / "set") and made_from.read_text(encoding="utf-8") == state:
        return PreparedSet.open(folder / "set", verify_images=True).manifest
    shutil.rmtree(folder / "set", ignore_errors=True)
    write_atomically(made_from, state.encode())
    return prepare(layout, source, folder / "set", settings, progress)


def _refuse_other_settings(
    layout: Layout, uri: str, settings: PrepareSettings, objects: Objects
) -> None:
    """Sees before the work what can be seen by then: a set that was made otherwise is another."""
    there = manifest_at(uri, objects)
    if there is None:
        return
    # How many may be damaged makes no other set.
    alike = dataclasses.replace(
        there.settings, max_left_out_fraction=settings.max_left_out_fraction
    )
    if (there.layout, alike) != (layout, settings):
        raise taken(uri, there.fingerprint)
