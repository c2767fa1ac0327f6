"""Prepared data sets in S3: published once, fetched once a node, shared by all its trials."""

import fcntl
import hashlib
import io
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from headpose.data.manifest import ANGLES_FILE, DATA_FILES, NAMES_FILE, Manifest
from headpose.data.prepared import PreparedSet
from headpose.files import write_atomically
from tuning.objects import AbsentObjectError, Objects, Place, StorageAwayError, parse_place
from usererror import UserError

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Description:
    """All of a prepared set but its images; ``angles_deg`` is (N, 3) yaw, pitch, roll."""

    manifest: Manifest
    angles_deg: npt.NDArray[np.float32]
    photos: tuple[str, ...]


def publish(folder: Path, uri: str, objects: Objects) -> None:
    """Uploads a prepared set; its manifest goes last, so that nobody finds half of one.

    Where this very set lies there already, nobody who is reading it is disturbed.
    """
    place = parse_place(uri)
    if _object(objects, place / MANIFEST) == (folder / MANIFEST).read_bytes():
        return
    for name in (*DATA_FILES, MANIFEST):
        objects.upload(folder / name, place / name)


def describe(uri: str, objects: Objects) -> Description:
    """What a set holds, from its small files: no image is fetched.

    Raises:
        UserError: no prepared set there, or it does not have the contents of its manifest.
    """
    if not uri.startswith("s3://"):
        found = PreparedSet.open(Path(uri).expanduser())
        return Description(found.manifest, found.angles_deg, found.photos)
    place = parse_place(uri)
    manifest = Manifest.from_json(_remote_manifest(place, objects).decode(), str(place / MANIFEST))
    contents = {name: _object(objects, place / name) or b"" for name in (ANGLES_FILE, NAMES_FILE)}
    for name, content in contents.items():
        if hashlib.sha256(content).hexdigest() != manifest.files[name]["sha256"]:
            remedy = "prepare the data set anew"
            raise UserError(str(place / name), "does not fit the set's manifest", remedy=remedy)
    angles_deg = np.load(io.BytesIO(contents[ANGLES_FILE]), allow_pickle=False)
    return Description(manifest, angles_deg, tuple(json.loads(contents[NAMES_FILE])["photos"]))


def open_set(
    uri: str, cache: Path, objects: Objects, fetching: Objects | None = None
) -> PreparedSet:
    """A prepared set by its folder or ``s3://`` place, memory-mapped.

    While the store does not answer, what this node has fetched from the place before must do.

    Args:
        uri: where it lies.
        cache: where this node keeps what it has fetched.
        objects: the store.
        fetching: the same with more patience, for large files.

    Raises:
        StorageAwayError: the store does not answer, and this node does not have the set.
        UserError: no prepared set there, or it does not have the contents of its manifest.
    """
    if not uri.startswith("s3://"):
        return PreparedSet.open(Path(uri).expanduser())
    place = parse_place(uri)
    note = cache / f"{hashlib.sha256(uri.encode()).hexdigest()[:32]}.place"
    try:
        fingerprint = str(json.loads(_remote_manifest(place, objects))["fingerprint"])
    except StorageAwayError:
        if not note.is_file():
            raise
        fingerprint = note.read_text("ascii")
    folder = cache / fingerprint
    with _lock(cache / f"{folder.name}.lock"):
        if not (folder / MANIFEST).is_file():
            _fetch(place, folder, fetching or objects)
        if not note.is_file() or note.read_text("ascii") != fingerprint:
            write_atomically(note, fingerprint.encode("ascii"))
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
    content = _object(objects, place / MANIFEST)
    if content is None:
        remedy = f"`hopetune data prepare LAYOUT SOURCE --to {place}`"
        raise UserError(str(place), "no prepared data set", remedy=remedy)
    return content


def _object(objects: Objects, place: Place) -> bytes | None:
    try:
        return objects.get(place)
    except AbsentObjectError:
        return None


def _fetch(place: Place, folder: Path, objects: Objects) -> None:
    """Downloads beside the final folder and renames: a killed fetch leaves nothing that counts.

    To be called under the lock, so what lies in the folder's way is a dead fetch's.
    """
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        objects.download(place / MANIFEST, part / MANIFEST)
        manifest = Manifest.from_json((part / MANIFEST).read_text("utf-8"), part / MANIFEST)
        _check_room(part, sum(int(file["bytes"]) for file in manifest.files.values()))
        for name in DATA_FILES:
            objects.download(place / name, part / name)
        PreparedSet.open(part, verify_images=True)
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _check_room(folder: Path, needed_bytes: int) -> None:
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        raise UserError(
            str(folder.parent),
            "no room on the disk for the data set",
            got=f"{free_bytes:,} bytes free",
            rule=f"{needed_bytes:,} bytes are needed",
            remedy="delete sets that no search needs any more, or set HOPETUNE_STATE_DIR",
        )


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """One fetch at a time on a node; the kernel lets go of it when its holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
