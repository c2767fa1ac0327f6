"""A checkpoint is named by what was trained, not by who trained it.

What epoch *e* does follows from the static settings (network, loss, batch, augmentation, seed,
data, version of the training code) and from the schedule of the epochs up to *e* (learning rate,
stem frozen or not). The key is the hash of exactly that, so two trials whose plans begin alike
share checkpoints, and a longer search goes on from a shorter one. Before it stands the hash of the
first epoch, which all share that share anything: one listing finds whatever is stored of a plan.
"""

import dataclasses
import hashlib
import json

from headpose.config import TRAINING_CODE_VERSION, TrainConfig
from headpose.networks.names import AT_PLUS_MINUS_ONE
from headpose.schedule import SCHEDULE_FIELDS, schedule_of

ADDED_LATER = {"rotate_share": 1.0}
"""Settings that came when checkpoints had been stored already, each with the value that trains as
before it was there. With that value a setting is no part of the key: what was stored is found."""


@dataclasses.dataclass(frozen=True)
class DataIdentity:
    """Which images a trial learns from and which it is validated on."""

    fingerprint: str
    validation_fraction: float
    split_seed: int


def prefix_keys(
    config: TrainConfig, data: DataIdentity, epochs: int, weights: str | None = None
) -> list[str]:
    """Keys after each epoch, ``TRUNK/STATE``: ``keys[e - 1]`` names the state after epoch ``e``.

    ``weights``: what the file of ImageNet weights holds, as a hash, where there is one; else the
    name of their place says it.
    """
    static = {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if field.name not in SCHEDULE_FIELDS
    }
    if weights is not None:
        static["imagenet"] = weights
    if config.backbone in AT_PLUS_MINUS_ONE:
        static["input"] = "±1"  # before, these were trained like all others
    for name, as_before in ADDED_LATER.items():
        if static[name] == as_before:
            del static[name]
    start = {
        "code": TRAINING_CODE_VERSION,
        "static": static,
        "data": dataclasses.asdict(data),
    }
    keys = []
    key = _digest(start)
    for epoch in range(1, epochs + 1):
        step = dataclasses.asdict(schedule_of(config, epoch))
        key = _digest({"before": key, "epoch": step})
        keys.append(key)
    return [f"{keys[0]}/{key}" for key in keys]


def _digest(value: object) -> str:
    # repr of a float is its shortest exact form, which json.dumps writes: equal floats, equal keys.
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]
