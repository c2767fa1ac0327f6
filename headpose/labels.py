"""Labels as 300W-LP and AFLW2000 write them: which angles there are, and how a file holds them.

Without torch, which takes more than a second to load: whoever only reads names and angles, as each
process of a preparation does, has no need of it.
"""

import numpy as np
import numpy.typing as npt

from usererror import UserError

#: Labels reach from −99 to +99 degrees, both included (66 bins of 3°; Ruiz et al. 2018,
#: "Fine-grained head pose estimation without keypoints").
LIMIT_DEG = 99.0


def from_pose_para(pose_para: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Read the angles of a 300W-LP or AFLW2000 ``Pose_Para`` field.

    Args:
        pose_para: (1, 7) or (7,): pitch, yaw, roll in radians, then tx, ty, tz, scale.

    Returns:
        (3,) yaw, pitch, roll in degrees. A NaN stays a NaN.

    Raises:
        UserError: the field does not begin with three numbers.
    """
    values = np.asarray(pose_para)
    if values.size < 3 or values.size != values.shape[-1] or values.dtype.kind not in "fiu":
        raise UserError(
            "Pose_Para",
            "not a row of numbers",
            got=f"shape {values.shape}, type {values.dtype}",
            rule="(1, 7): pitch, yaw, roll in radians, then translation and scale",
        )
    pitch, yaw, roll = np.rad2deg(values.reshape(-1)[:3].astype(np.float64))
    return np.array([yaw, pitch, roll])


def to_pose_para(
    angles_deg: npt.NDArray[np.floating], placement: npt.NDArray[np.floating]
) -> npt.NDArray[np.float32]:
    """Write the angles as 300W-LP and AFLW2000 do: the inverse of :func:`from_pose_para`.

    Args:
        angles_deg: (3,) yaw, pitch, roll.
        placement: (4,) tx, ty, tz, scale.

    Returns:
        (1, 7) pitch, yaw, roll in radians, then the placement.
    """
    yaw, pitch, roll = np.deg2rad(angles_deg)
    return np.array([[pitch, yaw, roll, *placement]], dtype=np.float32)
