"""Prepared data sets in S3: published once, fetched once a node, shared by all its trials."""

import fcntl
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headpose.data.prepared import PreparedSet
from tuning.objects import AbsentObjectError, Objects, Place, parse_place
from usererror import UserError

MANIFEST = "manifest.json"


def publish(folder: Path, uri: str, objects: Objects) -> None:
    """Uploads a prepared set; its manifest goes last, so that nobody finds half of one."""
    place = parse_place(uri)
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    for name in [name for name in names if name != MANIFEST] + [MANIFEST]:
        objects.upload(folder / name, place / name)


def open_set(uri: str, cache: Path, objects: Objects) -> PreparedSet:
    """A prepared set by its folder or ``s3://`` place, memory-mapped.

    Raises:
        UserError: no prepared set there, or it does not have the contents of its manifest.
    """
    if not uri.startswith("s3://"):
        return PreparedSet.open(Path(uri).expanduser())
    place = parse_place(uri)
    manifest = _remote_manifest(place, objects)
    folder = cache / json.loads(manifest)["fingerprint"]
    with _lock(cache / f"{folder.name}.lock"):
        if not (folder / MANIFEST).is_file():
            _fetch(place, folder, objects)
    return PreparedSet.open(folder)


def fingerprint_of(uri: str, objects: Objects) -> str:
    """The fingerprint of a set without fetching it.

    Raises:
        UserError: no prepared set there.
    """
    if not uri.startswith("s3://"):
        return PreparedSet.open(Path(uri).expanduser()).fingerprint
    return str(json.loads(_remote_manifest(parse_place(uri), objects))["fingerprint"])


def _remote_manifest(place: Place, objects: Objects) -> bytes:
    try:
        return objects.get(place / MANIFEST)
    except AbsentObjectError:
        remedy = f"`hopetune data prepare LAYOUT SOURCE --to {place}`"
        raise UserError(str(place), "no prepared data set", remedy=remedy) from None


def _fetch(place: Place, folder: Path, objects: Objects) -> None:
    """Downloads beside the final folder and renames: a killed fetch leaves nothing that counts."""
    part = Path(tempfile.mkdtemp(prefix=f"{folder.name}.part-", dir=folder.parent))
    try:
        for key in objects.keys(place / ""):
            objects.download(Place(place.bucket, key), part / Path(key).name)
        PreparedSet.open(part, verify_images=True)
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """One fetch at a time on a node; the kernel lets go of it when its holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
