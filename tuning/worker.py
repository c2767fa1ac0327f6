"""What a worker process sets up once and all its trials share: settings, storage, data, device.

A trial leaves nothing behind but what is meant to stay: the mapped data, their copy on the GPU, the
weights that its backbone began with, and its last checkpoint on its way to the store while the next
trial begins.
"""

import gc
import logging
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TypeVar

import torch

from cluster.gpus import real_gpus
from cluster.settings import load_settings
from headpose.allocator import keep_freed_memory
from headpose.config import TrainConfig
from headpose.data.prepared import PreparedSet
from headpose.data.sources import ImageSource, Keep
from headpose.gpu_memory import allotted_bytes, is_lack_of_memory
from tuning.checkpoints import CheckpointStore
from tuning.datasets import open_set
from tuning.initial_weights import fetched
from tuning.measures import measured
from tuning.objects import Objects, StorageAwayError, is_in_s3
from tuning.places import checkpoints, data_cache, spool, weights_cache
from tuning.space import Settings
from tuning.spec import SearchSpec
from tuning.spool import FULL, Spool
from tuning.trial import EpochReport, TrialPlan, train_trial
from tuning.uploads import CLOSE_PATIENCE_S
from usererror import NotHereError, UserError

_Got = TypeVar("_Got")

log = logging.getLogger(__name__)

LOOK_TIMEOUT_S = 5.0
"""For how long a silent store holds a trial up that looks for its data or its beginning; uploads
are more patient. With 15 s and two attempts each trial that began while a store hung waited for
28 s (benchmarks/s3_away, trials of a minute)."""

LOAD_TIMEOUT_S = 15.0
"""For how long it may be silent while what is there is loaded. Untuned."""

DATA_POLL_S = 2.0  # untuned
DATA_PATIENCE_S = 300.0
"""How long a worker waits for a store that is away and what its node does not have, data set or
ImageNet weights: then the trial goes to another node. Untuned."""


class Worker:
    """A place where trials run one after the other.

    Args:
        has_gpu: the cluster has given it one, or a share of one; what else its node has is others'.

    Raises:
        NotHereError: torch cannot use the GPU.
        UserError: this node's settings cannot be read, or name no keys of the store.
    """

    def __init__(self, *, has_gpu: bool) -> None:
        settings = load_settings()
        keep_freed_memory()
        self._looking = Objects(settings, timeout_s=LOOK_TIMEOUT_S, attempts=1)
        self._fetching = Objects(settings, timeout_s=LOAD_TIMEOUT_S)
        self._cache: Path = data_cache(settings)
        self._weights_cache: Path = weights_cache(settings)
        self._data: dict[tuple[str, str | None, Keep], tuple[PreparedSet, ImageSource]] = {}
        self._weights: dict[tuple[str, str], Path] = {}
        self._notes: list[str] = []
        self._trial: Generator[EpochReport] | None = None
        self._share = 1.0
        self.device = _device(has_gpu)
        # Several clients: the uploads of one trial go on while the next one reads.
        self._checkpoints = CheckpointStore(
            Objects(settings, timeout_s=LOAD_TIMEOUT_S, attempts=2),
            checkpoints(settings),
            Spool(spool(settings), settings.spool_bytes),
            tell=self._note,
            looking=self._looking,
            uploader=Objects(settings),
        )
        # What the libraries hold stays; looking through it would take 0.2 s between two trials.
        gc.collect()
        gc.freeze()

    def start(
        self,
        spec: SearchSpec,
        parameters: Settings,
        fingerprint: str | None = None,
        trained_epochs: int = 0,
        trained_s: float = 0.0,
    ) -> Generator[EpochReport]:
        """A trial, ready to give its first report; the one before it is over.

        Args:
            spec: of its search.
            parameters: its own.
            fingerprint: of the training set that the search was begun with; none = whatever lies
                at its place.
            trained_epochs: up to where the study knows it to be trained.
            trained_s: how long that took.

        Raises:
            NotHereError: this node cannot have that set, or the weights to begin with.
            UserError: a configuration that cannot be trained.
        """
        self._end_trial()
        self._share = min(1.0, spec.resources.gpus_per_trial)
        if self.device.type == "cpu":
            torch.set_num_threads(max(1, int(spec.resources.cpus_per_trial)))
        elif self._share < 1:  # what does not fit then is this trial's fault and no neighbour's
            total_bytes = torch.cuda.mem_get_info(self.device)[1]
            allotted = allotted_bytes(self._share, total_bytes)
            torch.cuda.set_per_process_memory_fraction(allotted / total_bytes)
        plan = TrialPlan(
            config=spec.train_config(parameters),
            epochs=spec.budget.epochs,
            validation_fraction=spec.data.validation_fraction,
            split_seed=spec.data.split_seed,
        )
        data, images = self._placed(spec.data.train, fingerprint, spec.resources.images_on_gpu)
        known, imagenet = (trained_epochs, trained_s), self._initial(plan.config)

        def trained() -> Generator[EpochReport]:
            return train_trial(plan, data, self._checkpoints, self.device, images, known, imagenet)

        reports = self._with_room(trained, images)
        self._trial = measured(reports, plan.config, spec.objectives, plan.epochs, self.device)
        return self._trial

    def _with_room(
        self, trained: Callable[[], Generator[EpochReport]], images: ImageSource
    ) -> Generator[EpochReport]:
        """A trial's reports. Where it does not fit into the GPU's memory beside the set, the set
        gives way and the trial goes on from its latest checkpoint; what it has is told again."""
        try:
            yield from trained()
        except RuntimeError as error:
            if not is_lack_of_memory(error) or not images.give_way():
                raise
        else:
            return
        # Here, as the error held on to all that the training had.
        self._free_memory()
        self._note(f"a trial does not fit beside the set: {images.describe()}")
        yield from trained()

    def take_notes(self) -> list[str]:
        """What a person should know and has not been told yet."""
        notes, self._notes = self._notes, []
        return notes

    def _note(self, text: str) -> None:
        self._notes.append(text)

    def close(self) -> None:
        """Waits for the uploads that are on their way, but not for a store that is away: the GPU is
        somebody else's now."""
        try:
            self._end_trial()
        finally:  # a GPU that failed takes no checkpoint along
            self._checkpoints.flush(CLOSE_PATIENCE_S)

    def _end_trial(self) -> None:
        """Frees what the last trial held before the next one asks for memory."""
        if self._trial is not None:
            self._trial.close()
            self._trial = None
        self._free_memory()

    def _free_memory(self) -> None:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _placed(
        self, uri: str, fingerprint: str | None, keep: Keep
    ) -> tuple[PreparedSet, ImageSource]:
        key = uri, fingerprint, keep
        if key not in self._data:
            data = self._opened(uri, fingerprint)
            images = ImageSource(data, self.device, keep, self._share)
            self._notes.append(images.describe())
            self._data[key] = data, images
        return self._data[key]

    def _opened(self, uri: str, fingerprint: str | None) -> PreparedSet:
        """A data set, once the store answers where this node does not have it."""
        try:
            return _patiently(
                lambda: open_set(uri, self._cache, self._looking, self._fetching, fingerprint)
            )
        except UserError as error:  # no configuration's fault: none would fare better here
            raise NotHereError.of(error) from error

    def _initial(self, config: TrainConfig) -> Path | None:
        """The ImageNet weights on this node, where the configuration names a place in S3."""
        place = config.imagenet
        if place is None or not is_in_s3(place):
            return None
        key = place, config.backbone
        if key not in self._weights:
            self._weights[key] = _patiently(
                lambda: fetched(*key, self._weights_cache, self._fetching)
            )
        return self._weights[key]


def _device(has_gpu: bool) -> torch.device:
    """Where trials are trained: a logical GPU, as a laptop's cluster has, is the CPU."""
    if has_gpu and torch.cuda.is_available():
        return torch.device("cuda")
    if has_gpu and real_gpus():
        raise NotHereError(
            "GPU",
            "torch cannot use the one that this node has",
            rule="a driver that is new enough, and a torch built for CUDA",
            remedy="`python -c 'import torch; torch.zeros(1).cuda()'` on that node says why",
        )
    return torch.device("cpu")


def _patiently(get: Callable[[], _Got]) -> _Got:
    """What comes from the store, once that answers.

    Raises:
        NotHereError: it does not come, or this node cannot keep it.
    """
    until_s = time.monotonic() + DATA_PATIENCE_S
    while True:
        try:
            return get()
        except StorageAwayError as error:
            if time.monotonic() >= until_s:
                raise NotHereError.of(error) from error  # another node may have it
            log.warning("what a trial begins with is waited for: %s", error)
            time.sleep(DATA_POLL_S)
        except OSError as error:
            if error.errno in FULL:
                raise
            where = str(error.filename or "this node")
            what = "what a trial begins with cannot be read or kept there"
            raise NotHereError(where, what, got=error.strerror or str(error)) from error
