"""ImageNet weights as this node has them: fetched from S3 once and kept, known by their content."""

import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path

from headpose.files import version_of, write_atomically
from headpose.networks.weight_files import SUFFIXES, file_for
from tuning.node_lock import node_lock
from tuning.objects import Listed, Objects, Place, StorageAwayError, is_in_s3, parse_place
from tuning.spec import SearchSpec
from usererror import NotHereError


def content_of(file: Path) -> str:
    """The sha256 of a file; one that has not changed since is not read again by this process.

    Raises:
        NotHereError: it cannot be read.
    """
    try:
        return _digest(file, version_of(file))
    except OSError as error:
        raise NotHereError(str(file), "cannot be read", got=error.strerror) from error


@functools.lru_cache
def _digest(file: Path, version: tuple[int, int]) -> str:  # noqa: ARG001
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def require_stored(spec: SearchSpec, objects: Objects) -> None:
    """Refuses a search whose networks cannot begin with what it names in S3, before any of them is
    trained. What lies on the nodes, only they know.

    Raises:
        StorageAwayError: the store does not answer.
        UserError: not exactly one file of weights for one of its backbones.
    """
    for place in spec.values_of("imagenet"):
        if isinstance(place, str) and is_in_s3(place):
            stored = _listed(place, objects)
            for backbone in spec.values_of("backbone"):
                _chosen(place, str(backbone), stored)


def fetched(uri: str, backbone: str, cache: Path, objects: Objects) -> Path:
    """The file of a backbone's ImageNet weights, on this node.

    Args:
        uri: ``s3://`` place of the file, or of a folder with one for each backbone, as
            :func:`headpose.networks.imagenet.imagenet_state` takes them.
        backbone: a legal backbone name.
        cache: where this node keeps such files; one that changes in S3 is fetched anew, and the
            one that was fetched last serves while the store is away.
        objects: the store.

    Raises:
        StorageAwayError: the store does not answer, and this node has none.
        NotHereError: the weights are not there.
        UserError: there are several of this backbone.
    """
    note = cache / hashlib.sha256(f"{uri} {backbone}".encode()).hexdigest()[:32]
    try:
        file = _fetched(uri, backbone, cache, objects)
    except StorageAwayError:
        if not note.is_file() or not (file := cache / note.read_text("utf-8")).is_file():
            raise
        return file
    write_atomically(note, str(file.relative_to(cache)).encode())
    return file


def _fetched(uri: str, backbone: str, cache: Path, objects: Objects) -> Path:
    entry = _chosen(uri, backbone, _listed(uri, objects))
    bucket = parse_place(uri).bucket
    identity = f"{bucket}/{entry.key} {entry.size} {entry.modified_ms}"
    name = entry.key.rpartition("/")[2]
    target = cache / hashlib.sha256(identity.encode()).hexdigest()[:32] / name
    with node_lock(target.with_name("lock")):
        if not target.is_file() or target.stat().st_size != entry.size:
            part = target.with_name("part")
            objects.download(Place(bucket, entry.key), part)
            part.replace(target)
    return target


def _listed(uri: str, objects: Objects) -> dict[str, Listed]:
    """What lies in a folder, or beside a file, by name."""
    place = parse_place(uri)
    folder = place.key.rpartition("/")[0] if _is_file(place) else place.key
    found = {}
    for entry in objects.listed(Place(place.bucket, folder)):
        above, _, name = entry.key.rpartition("/")
        if above == folder:
            found[name] = entry
    return found


def _chosen(uri: str, backbone: str, stored: Mapping[str, Listed]) -> Listed:
    """The one that holds a backbone's weights."""
    place = parse_place(uri)
    is_file = _is_file(place)
    name = place.key.rpartition("/")[2] if is_file else file_for(backbone, stored, uri)
    if name not in stored:
        raise NotHereError(uri, "no such object", remedy="put the ImageNet weights there")
    return stored[name]


def _is_file(place: Place) -> bool:
    return place.key.endswith(SUFFIXES)
