"""From files to crops: the pictures of a data set, decoded, cut and resized by a pool.

Threads, not processes: decoding and resizing (5 ms a picture of 450 px) run without Python's
lock, reading a label (0.1 ms) needs it, and threads start at once and share nothing by copy.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from headpose.cores import cores
from headpose.data.crops import NoBoxError, face_box, square_view
from headpose.data.decoding import DamagedPictureError, decode, raise_if_passing
from headpose.data.manifest import PrepareSettings
from headpose.data.readers import Layout, LeftOut, Sample, read_sample

# So many pictures are in flight at most: 512 of 280 px are 120 MB.
_IN_FLIGHT = 512


@dataclass(frozen=True)
class Source:
    """What is prepared: a data set's names, and how they are cut."""

    layout: Layout
    root: Path
    names: tuple[str, ...]
    settings: PrepareSettings


@dataclass(frozen=True)
class Picture:
    """A sample with its crop, (S, S, 3) uint8."""

    sample: Sample
    pixels: npt.NDArray[np.uint8]


def pictures(
    source: Source, names: Sequence[str], workers: int | None
) -> Iterator[Picture | LeftOut]:
    """Crops of the names, in their order, by a pool that never runs far ahead of its reader.

    Args:
        source: where they lie and how they are cut.
        names: some of the source's.
        workers: threads; None = one for each core that this process may use.
    """
    waiting: deque[Future[Picture | LeftOut]] = deque()
    pool = ThreadPoolExecutor(workers or cores())
    try:
        for name in names:
            waiting.append(pool.submit(_picture, source, name))
            if len(waiting) >= _IN_FLIGHT:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _picture(source: Source, name: str) -> Picture | LeftOut:
    sample = read_sample(source.layout, source.root, name)
    if isinstance(sample, LeftOut):
        return sample
    return _cut(source.layout, sample, source.settings)


def _cut(layout: Layout, sample: Sample, settings: PrepareSettings) -> Picture | LeftOut:
    try:
        image = decode(sample.image_path)
    except OSError as error:
        raise_if_passing(sample.image_path, error)
        return LeftOut(sample.name, f"the jpg file cannot be read: {error.strerror}")
    except DamagedPictureError as error:
        return LeftOut(sample.name, f"the jpg file is damaged: {error}")
    try:
        box = face_box(
            layout,
            sample.landmarks_px,
            looseness=settings.looseness_of(layout),
            policy=settings.policy,
        )
        view = square_view(image, box, settings.stored_px, scale=1 / settings.view_fraction)
    except NoBoxError as error:
        return LeftOut(sample.name, str(error))
    return Picture(sample, np.asarray(view))
