"""Making a prepared set: read, decode, cut and resize every picture once.

It grows in a hidden folder beside its destination and appears there when it is whole. Killed or
interrupted in the middle, it goes on where it was when it is asked for again.
"""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from headpose.data.cutting import Source, pictures
from headpose.data.destination import check_free, claimed, resolved, set_aside, settle
from headpose.data.journal import BLOCK, Done, Journal
from headpose.data.manifest import (
    ANGLES_FILE,
    DATA_FILES,
    IMAGES_FILE,
    MANIFEST_FILE,
    NAMES_FILE,
    Manifest,
    PrepareSettings,
)
from headpose.data.readers import Layout, LeftOut, find_names
from headpose.data.set_files import (
    NPY_HEADER_BYTES,
    described,
    sync,
    sync_folder,
    write_header,
    write_text,
)
from usererror import NotHereError, UserError

Progress = Callable[[int, int], None]

_NAMES_SHOWN = 10


def prepare(
    layout: Layout,
    source: Path,
    destination: Path,
    settings: PrepareSettings,
    progress: Progress | None = None,
    *,
    workers: int | None = None,
    replace: bool = False,
) -> Manifest:
    """Prepare a data set, or go on with a preparation of it that was broken off.

    Args:
        layout: how ``source`` is laid out.
        source: the genuine or synthetic data set.
        destination: a folder that does not exist yet or is empty, or that holds another set which
            is to be replaced, and nothing else; or a link to one. The set appears when it is whole.
        settings: how pictures are cut and stored.
        progress: called with pictures done and pictures in all; first with what an earlier,
            broken-off preparation has left, if anything.
        workers: threads; None = one for each core that this process may use.
        replace: put the set in the place of another one, which goes when the new one is there.

    Returns:
        The manifest of the new set, with all that was left out.

    Raises:
        UserError: a bad source or destination, too many damaged files, no room on the disk, or
            another preparation is at work there.
        NotHereError: a file cannot be read now.
    """
    found = Source(layout, source, find_names(layout, source), settings)
    place = resolved(destination)
    with claimed(place) as partial:
        settle(place)  # an earlier replacement may have been killed in the middle
        check_free(place, replace=replace)
        journal = Journal(partial, found)
        try:
            manifest = _write_set(partial, journal, found, progress, workers)
        except NotHereError:
            raise  # what was done is left to the next call, as after a signal or a power cut
        except UserError:  # the data were refused, or what was done cannot be trusted
            shutil.rmtree(partial, ignore_errors=True)
            raise
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise  # and so here
            if not journal.taken_up:  # a full disk is no place for the leavings of one call
                shutil.rmtree(partial, ignore_errors=True)
            raise _no_room(place, error, partial if journal.taken_up else None) from error
        # Looked at again: what came to lie there meanwhile may be somebody's work.
        check_free(place, replace=replace)
        if replace:
            set_aside(place)
        try:
            journal.remove()  # not before, or whoever is refused here would have to begin anew
            partial.replace(place)
            sync_folder(place.parent)
        finally:
            settle(place)
    return manifest


def _write_set(
    folder: Path,
    journal: Journal,
    source: Source,
    progress: Progress | None,
    workers: int | None,
) -> Manifest:
    with (folder / IMAGES_FILE).open("ab") as images:
        done = _write_images(images, journal, source, progress, workers)
    _check_left_out(source, len(done.rows), done.left_out)
    write_header(folder / IMAGES_FILE, len(done.rows), source.settings.stored_px)
    angles_deg = done.angles_deg()
    with (folder / ANGLES_FILE).open("wb") as file:
        np.save(file, angles_deg, allow_pickle=False)
        sync(file)
    columns = {
        "names": [row.name for row in done.rows],
        "photos": [row.photo for row in done.rows],
    }
    write_text(folder / NAMES_FILE, json.dumps(columns, indent=0) + "\n")
    manifest = Manifest(
        layout=source.layout,
        settings=source.settings,
        count=len(done.rows),
        left_out=tuple(done.left_out),
        files={name: described(folder / name) for name in DATA_FILES},
        percentiles_deg=_percentiles(angles_deg),
    )
    write_text(folder / MANIFEST_FILE, manifest.to_json())
    return manifest


def _write_images(
    images: IO[bytes],
    journal: Journal,
    source: Source,
    progress: Progress | None,
    workers: int | None,
) -> Done:
    """Appends the crops of all names that no earlier preparation has dealt with."""
    total, image_bytes = len(source.names), source.settings.stored_px**2 * 3
    done = _taken_up(journal, images, image_bytes)
    _check_room(Path(images.name), (total - done.names) * image_bytes)
    if done.names and progress is not None:
        progress(done.names, total)
    block = Done()
    for entry in pictures(source, source.names[done.names :], workers):
        block.add(entry)
        if not isinstance(entry, LeftOut):
            images.write(entry.pixels.tobytes())
        if progress is not None:
            progress(done.names + block.names, total)
        if block.names == BLOCK:
            _close(block, done, images, journal, image_bytes)
            block = Done()
    _close(block, done, images, journal, image_bytes)
    return done


def _taken_up(journal: Journal, images: IO[bytes], image_bytes: int) -> Done:
    """What an earlier preparation has left, with the array cut to exactly that."""
    done = journal.read()
    length = NPY_HEADER_BYTES + len(done.rows) * image_bytes
    if done.rows and images.seek(0, os.SEEK_END) < length:  # the journal of images that are gone
        journal.remove()
        return _taken_up(journal, images, image_bytes)
    images.truncate(length)  # also makes the room of the header, which is written last
    images.seek(0, os.SEEK_END)
    return done


def _close(block: Done, done: Done, images: IO[bytes], journal: Journal, image_bytes: int) -> None:
    sync(images)
    _check_length(images, NPY_HEADER_BYTES + (len(done.rows) + len(block.rows)) * image_bytes)
    journal.close_block(block, done.names)
    done.extend(block)


def _check_length(images: IO[bytes], expected: int) -> None:
    """Refuses images that others have written as well: not every disk heeds locks."""
    if (found := os.fstat(images.fileno()).st_size) != expected:
        raise UserError(
            images.name,
            "somebody else writes here",
            got=f"{found} bytes",
            rule=f"this preparation wrote {expected}",
            remedy="see to it that no other one is at work here, then begin anew",
        )


def _check_room(images: Path, needed_bytes: int) -> None:
    free_bytes = shutil.disk_usage(images.parent).free
    if free_bytes < needed_bytes:
        raise OSError(errno.ENOSPC, f"{free_bytes:,} bytes of up to {needed_bytes:,} needed")


def _no_room(place: Path, error: OSError, kept: Path | None) -> UserError:
    return UserError(
        str(place),
        "no room on the disk",
        got=error.strerror,
        rule=None if kept is None else f"what was done is kept in {kept}",
        remedy="free some, choose another place, or ask for fewer --pixels",
    )


def _check_left_out(source: Source, kept: int, left_out: list[LeftOut]) -> None:
    found, allowed = len(source.names), source.settings.max_left_out_fraction
    damaged = [entry for entry in left_out if entry.is_damage]
    if kept and len(damaged) <= allowed * found:
        return
    shown = damaged or left_out
    lines = [f"{entry.name!r}: {entry.reason}" for entry in shown[:_NAMES_SHOWN]]
    if len(shown) > _NAMES_SHOWN:
        lines.append(f"and {len(shown) - _NAMES_SHOWN} more")
    raise UserError(
        str(source.root),
        f"{len(damaged)} of {found} samples are damaged" if damaged else "no sample can be used",
        rule=f"at most {allowed:.0%} may be ({', '.join(lines)})"
        if damaged
        else f"at least one ({', '.join(lines)})",
        remedy="repair the source, or delete from it what is damaged",
    )


def _percentiles(angles_deg: npt.NDArray[np.float32]) -> dict[str, tuple[float, float, float]]:
    rows = np.percentile(angles_deg.astype(np.float64), (5, 50, 95), axis=0).round(2)
    return {
        name: (float(low), float(middle), float(high))
        for name, (low, middle, high) in zip(("yaw", "pitch", "roll"), rows.T, strict=True)
    }
