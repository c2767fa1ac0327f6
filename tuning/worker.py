"""What a worker process sets up once and all its trials share: settings, storage, data, device."""

from collections.abc import Iterator
from pathlib import Path

import torch

from cluster.settings import load_settings
from headpose.data.prepared import PreparedSet
from tuning.checkpoints import CheckpointStore
from tuning.datasets import open_set
from tuning.objects import Objects
from tuning.places import checkpoints, data_cache
from tuning.space import Settings
from tuning.spec import SearchSpec
from tuning.trial import EpochReport, TrialPlan, train_trial


class Worker:
    """A place where trials run one after the other."""

    def __init__(self) -> None:
        settings = load_settings()
        self._objects = Objects(settings)
        self._cache: Path = data_cache(settings)
        self._sets: dict[str, PreparedSet] = {}
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._checkpoints = CheckpointStore(self._objects, checkpoints(settings))

    def start(self, spec: SearchSpec, parameters: Settings) -> Iterator[EpochReport]:
        """A trial, ready to give its first report."""
        if self.device.type == "cpu":
            torch.set_num_threads(max(1, int(spec.resources.cpus_per_trial)))
        else:
            torch.cuda.empty_cache()
        plan = TrialPlan(
            config=spec.train_config(parameters),
            epochs=spec.budget.epochs,
            validation_fraction=spec.data.validation_fraction,
            split_seed=spec.data.split_seed,
        )
        return train_trial(plan, self._set(spec.data.train), self._checkpoints, self.device)

    def _set(self, uri: str) -> PreparedSet:
        if uri not in self._sets:
            self._sets[uri] = open_set(uri, self._cache, self._objects)
        return self._sets[uri]
