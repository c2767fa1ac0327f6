"""The papers' questions as searches over the synthetic twin, scaled to two CPU cores.

Fixed before any test figure was seen, but for what is told below of rotation:

- **The base** is the quickstart's first configuration (ResNet18 from scratch, 48 px, batch 32,
  alpha 0.02, bins of 3°, rate 1e-3, heads at twice that, no frozen stem). It was chosen on faces of
  other seeds. 10 epochs instead of 6, with the decay that ends at the same rate: 0.6^5 = 0.753^9.
- **Rotation** was at first to be on the fly: every picture, every epoch, turned by up to 20°, the
  largest angle of the papers' own 300W_AUG. The first seed (``twin-rotation-0``) showed a network
  from scratch that 10 epochs do not suffice for: its validation error too was worse. Added after
  that, each before any figure of its own:
  - as the papers did it: 300W_AUG on disk, the unturned pictures kept, as many epochs, hence more
    steps; 20% of the pictures turned by each angle, for with the 10% that the paper names the
    percentiles of its table are not reached (see the table of poses); over three seeds;
  - the plain set for as many steps, over the same seeds: what the additional steps alone give;
  - on the fly over 30 epochs, as many as the papers train, with a decay to the same last rate:
    0.916^29 = 0.753^9. One seed, another machine.
  Added after 300W_AUG's first seed (7.02° against 7.89°), before any figure of as many steps: on
  the fly again, but only 44% of the pictures an epoch, as many as are turned in 300W_AUG (0.8 of
  1.8), for as many steps as it takes, over the same seeds. Nothing of the base, of the poses or of
  the pictures was changed at any time.
- **The checkpoint** of a trial is that of its best validation epoch, as in `hopetune promote`.
- **Networks** are those that two cores train in minutes; from scratch, as no ImageNet weights are
  at hand here. Inception v4 needs 75 px and is left out.
- **Decay, joint, latency** were added last. The joint search begins with the base, has the networks
  that learn anything here in ten epochs, ranges about the base's rates, and the default search and
  early stopping; error against latency has the sampler and the rule of its search file.
- **Two-step** keeps the papers' proportion, 25 of 30 epochs with a frozen stem: 5 of 6, with the
  quickstart's own decay for 6 epochs.

As all searches have the base in common, it is trained once and found by its prefix key afterwards.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

EPOCHS, DECAY = 10, 0.753
TWO_STEP_EPOCHS, FROZEN_EPOCHS, TWO_STEP_DECAY = 6, 5, 0.6
ROTATE_DEG = 20.0
# As many steps on the plain set as 10 epochs on 1.76 times its pictures; 0.86^17 = 0.753^9.
STEPS_EPOCHS, STEPS_DECAY = 18, 0.86
LONGER_EPOCHS, LONGER_DECAY = 30, 0.916
TURNED_SHARE = 0.2
# 4 × 0.2 turned copies beside each unturned picture.
SHARE_ON_THE_FLY = 0.44
SEEDS = (0, 1, 2)

PLAIN, AUGMENTED, TEST = "train", "train-aug", "test"
"""The prepared sets: training faces, the same with 300W_AUG's turned copies, wide test faces."""

BASE: dict[str, object] = {
    "backbone": "resnet18",
    "image_px": 48,
    "batch_size": 32,
    "alpha": 0.02,
    "bin_width": 3.0,
    "learning_rate": 1e-3,
    "decay_rate": DECAY,
    "head_learning_rate_factor": 2.0,
    "seed": 0,
}


@dataclass(frozen=True)
class TwinSearch:
    """One search: a whole grid over ``choices``, but for ``sections``, which replace those of the
    search file; ``settings`` replaces settings of the base."""

    name: str
    choices: Mapping[str, list[object]]
    settings: Mapping[str, object] = field(default_factory=dict)
    ranges: Mapping[str, object] = field(default_factory=dict)
    sections: Mapping[str, object] = field(default_factory=dict)
    train: str = PLAIN
    epochs: int = EPOCHS
    one_at_a_time: bool = False

    def spec(self, folder: str) -> dict[str, object]:
        """The content of its search file; ``folder`` holds the prepared sets."""
        fixed = {**BASE, **self.settings}
        choices = {name: {"choices": values} for name, values in self.choices.items()}
        parameters = {**choices, **self.ranges}
        count = 1
        for values in self.choices.values():
            count *= len(values)
        return {
            "name": self.name,
            "data": {
                "train": f"{folder}/{self.train}",
                "test": f"{folder}/{TEST}",
                "validation_fraction": 0.15,  # as the quickstart
            },
            "parameters": parameters,
            "fixed": {name: value for name, value in fixed.items() if name not in parameters},
            "sampler": {"name": "grid"},
            "stopping": {"rule": "none"},
            "budget": {"trials": count, "epochs": self.epochs},
            "checkpoints": {"keep_top": count},  # all are evaluated
            "resources": {
                "cpus_per_trial": 1,
                "parallel_trials": 1 if self.one_at_a_time else 2,
            },
            **self.sections,
        }


def plain(seed: int) -> TwinSearch:
    """The base with another seed."""
    return TwinSearch(f"twin-plain-{seed}", {"rotate_deg": [0.0]}, {"seed": seed})


def rotation(seed: int) -> TwinSearch:
    """The base with and without rotation on the fly."""
    return TwinSearch(f"twin-rotation-{seed}", {"rotate_deg": [0.0, ROTATE_DEG]}, {"seed": seed})


def longer_rotation(seed: int) -> TwinSearch:
    """The same for as many epochs as the papers train."""
    return TwinSearch(
        f"twin-longer-rotation-{seed}",
        {"rotate_deg": [0.0, ROTATE_DEG]},
        {"seed": seed, "decay_rate": LONGER_DECAY},
        epochs=LONGER_EPOCHS,
    )


def augmented(seed: int) -> TwinSearch:
    """The base on the set with turned copies."""
    return TwinSearch(
        f"twin-300w-aug-{seed}", {"rotate_deg": [0.0]}, {"seed": seed}, train=AUGMENTED
    )


def as_many_steps(seed: int) -> TwinSearch:
    """The base for as many steps as the set with turned copies takes."""
    return TwinSearch(
        f"twin-as-many-steps-{seed}",
        {"rotate_deg": [0.0]},
        {"seed": seed, "decay_rate": STEPS_DECAY},
        epochs=STEPS_EPOCHS,
    )


def share_on_the_fly(seed: int) -> TwinSearch:
    """As many turned pictures as in 300W_AUG, at any angle, for as many steps."""
    return TwinSearch(
        f"twin-as-many-steps-share-{seed}",
        {"rotate_deg": [ROTATE_DEG], "rotate_share": [SHARE_ON_THE_FLY]},
        {"seed": seed, "decay_rate": STEPS_DECAY},
        epochs=STEPS_EPOCHS,
    )


TWO_STEP = TwinSearch(
    "twin-two-steps",
    {
        "unfreeze_epoch": [TWO_STEP_EPOCHS, FROZEN_EPOCHS],
        "backbone": ["squeezenet1_1", "mobilenet_v2", "resnet18"],
    },
    {"decay_rate": TWO_STEP_DECAY},
    epochs=TWO_STEP_EPOCHS,
    one_at_a_time=True,  # else a trial may begin before the trunk that it shares is stored
)
BINS = TwinSearch("twin-bins", {"bin_width": [3.0, 6.0, 1.0]})
ALPHA = TwinSearch("twin-alpha", {"alpha": [0.02, 0.2, 1.0, 2.0]})
NETWORKS = TwinSearch(
    "twin-networks",
    {"backbone": ["resnet18", "mobilenet_v2", "squeezenet1_1", "squeezenet1_0", "resnet34",
                  "resnet50"]},
)  # fmt: skip
DECAYS = TwinSearch("twin-decay", {"decay_rate": [1.0, 0.9, 0.753, 0.6]})
JOINT = TwinSearch(
    "twin-joint",
    {
        "bin_width": [1.0, 2.0, 3.0, 6.0, 11.0],
        "backbone": ["resnet18", "resnet34", "squeezenet1_0", "squeezenet1_1", "mobilenet_v2"],
    },
    ranges={
        "alpha": {"low": 0.01, "high": 1.0, "log": True},
        "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
        "decay_rate": {"low": 0.5, "high": 1.0},
        "unfreeze_epoch": {"low": 0, "high": 8},
    },
    sections={
        "try_first": [
            {
                "bin_width": 3.0,
                "backbone": "resnet18",
                "alpha": 0.02,
                "learning_rate": 1e-3,
                "decay_rate": DECAY,
                "unfreeze_epoch": 0,
            }
        ],
        "sampler": {"seed": 0},
        "stopping": {},
        "budget": {"trials": 20, "epochs": EPOCHS},
        "checkpoints": {"keep_top": 20},
    },
)
LATENCY = TwinSearch(
    "twin-latency",
    {
        "backbone": ["squeezenet1_1", "squeezenet1_0", "mobilenet_v2", "resnet18", "resnet34"],
        "image_px": [32, 40, 48],
    },
    {"decay_rate": TWO_STEP_DECAY},
    ranges={
        "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
        "alpha": {"low": 0.01, "high": 1.0, "log": True},
    },
    sections={
        "objectives": ["val_mae", "latency_ms"],
        "sampler": {"name": "nsga2", "seed": 0},
        "budget": {"trials": 16, "epochs": TWO_STEP_EPOCHS},
        "checkpoints": {"keep_top": 16},
    },
)

SEARCHES = (
    rotation(SEEDS[0]),
    *(plain(seed) for seed in SEEDS[1:]),
    *(augmented(seed) for seed in SEEDS),
    *(as_many_steps(seed) for seed in SEEDS),
    *(share_on_the_fly(seed) for seed in SEEDS),
    TWO_STEP,
    BINS,
    ALPHA,
    NETWORKS,
    DECAYS,
    JOINT,
    LATENCY,
    longer_rotation(SEEDS[0]),
)
"""In the order of their weight: a study that is broken off has answered the first ones."""
