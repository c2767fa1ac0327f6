"""Prepared data sets in S3: published once, fetched once a node, shared by all its trials.

A place can come to hold another set; a search keeps the one that it was begun with, by its
fingerprint.
"""

import errno
import hashlib
import io
import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from headpose.data.manifest import ANGLES_FILE, DATA_FILES, NAMES_FILE, Manifest
from headpose.data.prepared import PreparedSet
from headpose.data.set_files import sync, sync_folder
from tuning.node_lock import node_lock
from tuning.objects import AbsentObjectError, Objects, Place, is_in_s3, parse_place
from usererror import UserError

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Description:
    """All of a prepared set but its images; ``angles_deg`` is (N, 3) yaw, pitch, roll."""

    manifest: Manifest
    angles_deg: npt.NDArray[np.float32]
    photos: tuple[str, ...]


def publish(folder: Path, uri: str, objects: Objects, *, replace: bool = False) -> None:
    """Uploads a prepared set; its manifest goes last, so that nobody finds half of one.

    Where this very set lies there already, nobody who is reading it is disturbed.

    Raises:
        UserError: another set lies there, and it is not to be replaced.
    """
    place = parse_place(uri)
    ours, theirs = (folder / MANIFEST).read_bytes(), _object(objects, place / MANIFEST)
    if theirs == ours:
        return
    if theirs is not None and _named(theirs) != _named(ours):
        if not replace:
            raise taken(uri, _named(theirs))
        # First, for with the new files it would be a damaged set to all who come meanwhile.
        objects.delete(place / MANIFEST)
    for name in (*DATA_FILES, MANIFEST):
        objects.upload(folder / name, place / name)


def manifest_at(uri: str, objects: Objects) -> Manifest | None:
    """The manifest of the set at an ``s3://`` place; none where there is no set.

    Raises:
        UserError: it is no manifest, or of another version.
    """
    where = parse_place(uri) / MANIFEST
    content = _object(objects, where)
    return None if content is None else Manifest.from_json(_text(content), str(where))


def taken(uri: str, fingerprint: str) -> UserError:
    """What to say of a place where another set lies."""
    return UserError(
        uri,
        "is taken by another prepared set",
        got=fingerprint[:16],
        rule="searches that use it could not go on without it",
        remedy="choose another place, or replace it with --replace",
    )


def describe(uri: str, objects: Objects, fingerprint: str | None = None) -> Description:
    """What a set holds, from its small files: no image is fetched.

    Args:
        uri: where it lies.
        objects: the store.
        fingerprint: of the set that is meant; none = whatever lies there.

    Raises:
        UserError: no prepared set there, another one than is meant, or it does not have the
            contents of its manifest.
    """
    if not is_in_s3(uri):
        found = describe_folder(Path(uri).expanduser())
        _require(uri, found.manifest.fingerprint, fingerprint)
        return found
    place, manifest = parse_place(uri), manifest_of(uri, objects)
    _require(uri, manifest.fingerprint, fingerprint)
    contents = {name: _object(objects, place / name) or b"" for name in (ANGLES_FILE, NAMES_FILE)}
    for name, content in contents.items():
        if hashlib.sha256(content).hexdigest() != manifest.files[name]["sha256"]:
            remedy = "prepare the data set anew"
            raise UserError(str(place / name), "does not fit the set's manifest", remedy=remedy)
    angles_deg = np.load(io.BytesIO(contents[ANGLES_FILE]), allow_pickle=False)
    return Description(manifest, angles_deg, tuple(json.loads(contents[NAMES_FILE])["photos"]))


def describe_folder(folder: Path) -> Description:
    """What a set in a folder holds, for which no store is needed.

    Raises:
        UserError: no prepared set there, or a damaged one.
    """
    found = PreparedSet.open(folder)
    return Description(found.manifest, found.angles_deg, found.photos)


def open_set(
    uri: str,
    cache: Path,
    objects: Objects,
    fetching: Objects | None = None,
    fingerprint: str | None = None,
) -> PreparedSet:
    """A prepared set by its folder or ``s3://`` place, memory-mapped.

    One that is meant by its fingerprint, and that this node has fetched before, needs no store,
    whatever lies at the place by now; if its disk has damaged it, it is fetched once more.

    Args:
        uri: where it lies.
        cache: where this node keeps what it has fetched.
        objects: the store.
        fetching: the same with more patience, for large files.
        fingerprint: of the set that is meant; none = whatever lies there.

    Raises:
        StorageAwayError: the store does not answer, and this node does not have the set.
        UserError: no prepared set there, another one than is meant, an incomplete one, one that
            does not have the contents of its manifest, or no room for it.
    """
    if not is_in_s3(uri):
        found = PreparedSet.open(Path(uri).expanduser())
        _require(uri, found.fingerprint, fingerprint)
        return found
    if fingerprint is None or not (cache / fingerprint / MANIFEST).is_file():
        there = fingerprint_of(uri, objects)
        _require(uri, there, fingerprint)
        fingerprint = there
    folder = cache / fingerprint
    with node_lock(cache / f"{folder.name}.lock"):
        if (folder / MANIFEST).is_file():
            try:
                return PreparedSet.open(folder)
            except UserError as error:
                log.warning("fetched again: %s", error)
        _fetch(uri, folder, fetching or objects)
        return PreparedSet.open(folder)


def fingerprint_of(uri: str, objects: Objects) -> str:
    """The fingerprint of a set without fetching it, see :func:`manifest_of`."""
    return manifest_of(uri, objects).fingerprint


def manifest_of(uri: str, objects: Objects) -> Manifest:
    """The manifest of a set without fetching that.

    Raises:
        UserError: no prepared set there.
    """
    if not is_in_s3(uri):
        return PreparedSet.open(Path(uri).expanduser()).manifest
    found = manifest_at(uri, objects)
    if found is None:
        remedy = f"`hopetune data prepare LAYOUT SOURCE --to {uri}`"
        raise UserError(uri, "no prepared data set", remedy=remedy)
    return found


def _require(uri: str, found: str, meant: str | None) -> None:
    if meant not in (None, found):
        raise UserError(
            uri,
            "another prepared set lies here than the search was begun with",
            got=found[:16],
            rule=f"its set has the fingerprint {str(meant)[:16]}",
            remedy="prepare that set here again, or begin another search",
        )


def _named(manifest: bytes) -> str:
    """The fingerprint that a manifest gives itself, if it is one at all."""
    try:
        return str(json.loads(manifest)["fingerprint"])
    except (ValueError, KeyError, TypeError):
        return "no manifest that can be read"


def _text(content: bytes) -> str:
    return content.decode("utf-8", errors="replace")


def _object(objects: Objects, place: Place) -> bytes | None:
    try:
        return objects.get(place)
    except AbsentObjectError:
        return None


def _fetch(uri: str, folder: Path, objects: Objects) -> None:
    """Downloads beside the final folder and renames: a killed fetch leaves nothing that counts.

    To be called under the lock, so what lies in the folder's way is a dead fetch's, or damaged. The
    folder has the fingerprint as its name.

    Raises:
        UserError: see :func:`open_set`.
    """
    place = parse_place(uri)
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        objects.download(place / MANIFEST, part / MANIFEST)
        manifest = Manifest.from_json(_text((part / MANIFEST).read_bytes()), part / MANIFEST)
        _require(uri, manifest.fingerprint, folder.name)
        _check_room(part, sum(int(file["bytes"]) for file in manifest.files.values()))
        for name in DATA_FILES:
            objects.download(place / name, part / name)
        PreparedSet.open(part, verify_images=True)
        for name in (*DATA_FILES, MANIFEST):  # the rename must not reach the disk before these do
            with (part / name).open("rb") as file:
                sync(file)
        sync_folder(part)
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
        sync_folder(folder.parent)
    except AbsentObjectError as error:
        remedy = "prepare the data set anew, or copy all of it"
        raise UserError(
            uri, "the prepared set is incomplete", got=f"no object {error}", remedy=remedy
        ) from error
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
        ) from OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder.parent))
