"""Preparing a data set for S3: in a folder of this machine that survives a kill, then published."""

import hashlib
import shutil
from pathlib import Path

from headpose.data.cutting import Source
from headpose.data.journal import state_of
from headpose.data.manifest import Manifest, PrepareSettings
from headpose.data.preparation import Progress
from headpose.data.prepared import PreparedSet, is_prepared, prepare
from headpose.data.readers import Layout, find_names
from headpose.files import write_atomically
from tuning.datasets import publish
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
) -> Manifest:
    """Prepares a set and uploads it; broken off in either, the next call goes on.

    Args:
        layout, source, settings, progress: as for :func:`headpose.data.prepared.prepare`.
        uri: the ``s3://`` place.
        objects: of its endpoint.
        workplace: a folder for what is not uploaded yet; left as it was.

    Raises:
        UserError: as for preparing, or the storage cannot be used.
    """
    folder = workplace / hashlib.sha256(uri.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    made_from = folder / _MADE_FROM
    state = state_of(Source(layout, source, find_names(layout, source), settings))
    if is_prepared(folder / "set") and made_from.read_text(encoding="utf-8") == state:
        manifest = PreparedSet.open(folder / "set", verify_images=True).manifest
    else:
        shutil.rmtree(folder / "set", ignore_errors=True)
        write_atomically(made_from, state.encode())
        manifest = prepare(layout, source, folder / "set", settings, progress)
    publish(folder / "set", uri, objects)
    shutil.rmtree(folder)
    return manifest
