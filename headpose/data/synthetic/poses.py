"""Which poses a set holds: the distributions of 300W-LP (training) and AFLW2000 (test).

Drawn by inverting piecewise linear distribution functions, so that the published percentiles are
met as they stand. Angles in degrees.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Degrees = npt.NDArray[np.float64]

_SHARES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)

# The 5th and 95th percentiles are those published for the two sets (Hopenet's successors' table
# of pose percentiles); the others are untuned: bell-shaped between them.
_TRAIN_PITCH = (-55.0, -38.0, -27.0, -13.0, -7.0, -1.0, 11.0, 20.0, 40.0)
_TRAIN_ROLL = (-60.0, -32.0, -18.9, -6.5, -1.0, 4.5, 15.7, 28.0, 55.0)
_TEST_YAW = (-98.0, -84.0, -68.1, -22.0, 0.0, 22.0, 68.4, 84.0, 98.0)
_TEST_PITCH = (-85.0, -45.0, -31.0, -12.0, -4.0, 4.0, 26.3, 40.0, 85.0)
_TEST_ROLL = (-90.0, -48.0, -33.5, -8.0, 0.0, 8.0, 33.7, 48.0, 90.0)
_TRAIN_FAR_YAW = 92.0  # with the spread of the sources it gives the published ±81.8

# Of AFLW2000's 2,000 images 31 have an angle beyond ±99°, of 300W-LP's 122,450 only 35.
_TEST_BEYOND_LIMIT = 31 / 2000
_TRAIN_BEYOND_LIMIT = 35 / 122_450


@dataclass(frozen=True)
class BodyTurn:
    """The shares of the head's angles that the shoulders follow."""

    yaw: float
    pitch: float
    roll: float

    def of(self, angles_deg: Degrees) -> Degrees:
        """Angles (..., 3) of the body for those of the head."""
        turned: Degrees = angles_deg * np.array([self.yaw, self.pitch, self.roll])
        return turned


def draw_body_turn(rng: np.random.Generator) -> BodyTurn:
    """How one person holds the shoulders (untuned)."""
    yaw, pitch, roll = rng.uniform([0.0, 0.0, 0.0], [0.5, 0.3, 0.4])
    return BodyTurn(float(yaw), float(pitch), float(roll))


def draw_training_poses(rng: np.random.Generator, count: int) -> Degrees:
    """The poses (count, 3) of one face in 300W-LP.

    k = 0 is the source, near frontal; then |yaw| grows to one side as far as the profile, while
    pitch and roll stay, as the authors of 300W-LP turned their faces.
    """
    pitch, roll = _draw(rng, _TRAIN_PITCH), _draw(rng, _TRAIN_ROLL)
    side = rng.choice([-1.0, 1.0])
    source = min(np.abs(rng.normal(0, 13)), 45.0)
    further = np.sort(rng.uniform(source, _TRAIN_FAR_YAW, count - 1))
    yaw = side * np.concatenate([[source], further])
    angles = np.stack([yaw, np.full(count, pitch), np.full(count, roll)], axis=1)
    angles[1:] += rng.normal(0, [0.0, 0.5, 0.5], (count - 1, 3))
    if rng.random() < _TRAIN_BEYOND_LIMIT * count:
        angles[-1, 0] = side * rng.uniform(99.5, 112)
    return angles


def draw_test_pose(rng: np.random.Generator) -> Degrees:
    """One pose (3,) of AFLW2000: wider pitch and roll than the training's."""
    pose = np.array([_draw(rng, table) for table in (_TEST_YAW, _TEST_PITCH, _TEST_ROLL)])
    if rng.random() < _TEST_BEYOND_LIMIT:
        pose[int(rng.integers(3))] = rng.choice([-1.0, 1.0]) * rng.uniform(99.5, 125)
    return pose


def _draw(rng: np.random.Generator, quantiles: tuple[float, ...]) -> float:
    return float(np.interp(rng.random(), _SHARES, quantiles))
