"""Collecting the heavy parts of checkpoints that nobody needs any more.

What is needed says ``tuning/retention.py``; here the store is listed and what is left over removed.
Manifests stay. What no known search explains may belong to a search in another database: it is
shown, and removed only where a person says so.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tuning.damage import damaged
from tuning.manifest import MANIFEST, PARTS
from tuning.objects import Listed, Objects, Place
from tuning.records import SearchRecord
from tuning.retention import Keep, keys_of, needed

ORPHANS_AFTER_H = 24.0
"""What is younger may belong to a search that has not written it down yet. Untuned."""
HOUR_MS = 3600 * 1000


@dataclass(frozen=True)
class Piece:
    """An object that holds the weights or the optimiser of a checkpoint."""

    place: Place
    size: int
    """In bytes."""
    searches: tuple[str, ...]
    """Those that trained or used the checkpoint; none where no known one did."""


@dataclass(frozen=True)
class Survey:
    """What a collection would do."""

    collectable: tuple[Piece, ...]
    orphans: tuple[Piece, ...]
    """Explained by no known search, and old enough to be removed where a person says so."""
    young: tuple[Piece, ...]
    """Explained by no known search yet."""
    kept_bytes: int
    damaged_bytes: int = 0

    def by_search(self) -> dict[str, tuple[int, int]]:
        """Objects and bytes to collect, by the first search that trained them."""
        found: dict[str, tuple[int, int]] = {}
        for piece in self.collectable:
            count, size = found.get(piece.searches[0], (0, 0))
            found[piece.searches[0]] = count + 1, size + piece.size
        return found


def survey(
    objects: Objects,
    root: Place,
    searches: Sequence[SearchRecord],
    registered: Collection[str],
    now_ms: int,
    trunks: Collection[str] | None = None,
) -> Survey:
    """Looks at all checkpoints, or at those of some trunks.

    ``registered`` are keys that versions of models name.

    Raises:
        UserError: the store cannot be listed.
    """
    folders = [root] if trunks is None else [root / trunk for trunk in trunks]
    listed = [entry for folder in folders for entry in objects.listed(folder)]
    keep = needed(
        searches,
        registered=registered,
        loadable=_loadable(listed, root),
        now_ms=now_ms,
    )
    users: dict[str, list[str]] = {}
    for search in searches:
        for key in keys_of(search):
            users.setdefault(key, []).append(search.name)
    aside = sum(e.size for e in objects.listed(damaged(root))) if trunks is None else 0
    return sort_out(listed, root, keep, users, now_ms, aside)


def sort_out(
    listed: Iterable[Listed],
    root: Place,
    keep: Mapping[str, Keep],
    users: Mapping[str, Sequence[str]],
    now_ms: int,
    damaged_bytes: int = 0,
) -> Survey:
    """What is to be done with each object; a pure function."""
    collectable, orphans, young = [], [], []
    kept_bytes = 0
    for entry in listed:
        key, name = _parts(entry, root)
        what = keep.get(key)
        is_kept = what == Keep.STATE or (what == Keep.WEIGHTS and not name.startswith("optimiser"))
        if name == MANIFEST or is_kept:
            kept_bytes += entry.size
            continue
        piece = Piece(Place(root.bucket, entry.key), entry.size, tuple(users.get(key, ())))
        if piece.searches:
            collectable.append(piece)
        elif now_ms - entry.modified_ms > ORPHANS_AFTER_H * HOUR_MS:
            orphans.append(piece)
        else:
            young.append(piece)
    return Survey(tuple(collectable), tuple(orphans), tuple(young), kept_bytes, damaged_bytes)


def remove(
    objects: Objects, pieces: Iterable[Piece], tell: Callable[[int], None] = lambda _count: None
) -> None:
    """Removes objects; ``tell`` takes how many are gone.

    Raises:
        UserError: the store cannot be written to; what is gone stays gone.
    """
    for count, piece in enumerate(pieces, start=1):
        objects.delete(piece.place)
        tell(count)


def _loadable(listed: Iterable[Listed], root: Place) -> set[str]:
    names: dict[str, set[str]] = {}
    for entry in listed:
        key, name = _parts(entry, root)
        names.setdefault(key, set()).add(name.split("-", maxsplit=1)[0])
    return {key for key, found in names.items() if found >= {MANIFEST, *PARTS}}


def _parts(entry: Listed, root: Place) -> tuple[str, str]:
    """Key and name of an object."""
    key, _, name = entry.key.removeprefix(f"{root.key}/").rpartition("/")
    return key, name
