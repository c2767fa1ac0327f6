"""The rendered head turns as the convention of headpose.angles says, and its labels lie on it."""

import numpy as np
import pytest
import torch

from headpose.angles import rotation_matrices
from headpose.data.synthetic.geometry import (
    Ellipsoid,
    Floats,
    Hits,
    Part,
    View,
    cast,
    normals,
    outermost,
)
from headpose.data.synthetic.head import MIRRORED_68, landmarks_68
from headpose.data.synthetic.identity import draw_identity
from headpose.data.synthetic.render import Figure, Pose, render
from headpose.data.synthetic.scene import draw_scene

SIZE_PX = 120
VIEW = View(SIZE_PX, (60.0, 66.0), 0.4)
NOSE_TIP, CHIN, LEFT_EYE, RIGHT_EYE = 30, 8, 36, 45


def rotation(*angles_deg: float) -> Floats:
    return rotation_matrices(torch.tensor(angles_deg, dtype=torch.float64)).numpy().astype("f4")


def figure(*angles_deg: float, face: int = 0) -> Figure:
    identity = draw_identity(np.random.default_rng(face))
    return Figure(identity, Pose(rotation(*angles_deg), rotation(0, 0, 0)))


def shown(person: Figure) -> Hits:
    return cast(person.bodies, person.unplace, VIEW)


def pixels_of(person: Figure, *parts: Part) -> np.ndarray:
    wanted = [index for index, body in enumerate(person.bodies) if body.part in parts]
    return np.isin(shown(person).body, wanted)


def middle_x(mask: np.ndarray) -> float:
    return float(np.nonzero(mask)[1].mean()) + 0.5


def middle_y(mask: np.ndarray) -> float:
    return float(np.nonzero(mask)[0].mean()) + 0.5


def test_a_ball_is_seen_where_and_as_large_as_it_is() -> None:
    ball = Ellipsoid(Part.FACE, np.array([10, -20, 5], "f4"), np.eye(3, dtype="f4") * 30)
    hits = cast([ball], lambda _part, points: points, VIEW)
    rows, columns = np.nonzero(hits.body == 0)
    assert columns.mean() + 0.5 == pytest.approx(60 + 10 * 0.4, abs=0.3)
    assert rows.mean() + 0.5 == pytest.approx(66 - 20 * 0.4, abs=0.3)
    assert len(rows) == pytest.approx(np.pi * 12**2, rel=0.03)
    assert hits.depth.max() == pytest.approx(35, abs=0.1)


def test_the_nearer_of_two_bodies_is_seen() -> None:
    far = Ellipsoid(Part.FACE, np.zeros(3, "f4"), np.eye(3, dtype="f4") * 30)
    near = Ellipsoid(Part.NOSE, np.array([0, 0, 40], "f4"), np.eye(3, dtype="f4") * 10)
    for bodies, nose in (([far, near], 1), ([near, far], 0)):
        assert cast(bodies, lambda _part, points: points, VIEW).body[66, 60] == nose


def test_normals_point_outward_and_are_mixed_only_near_a_crease() -> None:
    left = Ellipsoid(Part.FACE, np.array([-30, 0, 0], "f4"), np.eye(3, dtype="f4") * 40)
    right = Ellipsoid(Part.FACE, np.array([30, 0, 0], "f4"), np.eye(3, dtype="f4") * 40)
    points = np.array([[-70, 0, 0], [0, 0, np.sqrt(40**2 - 30**2)]], "f4")
    far_away, on_crease = normals([left, right], points, 5.0)
    np.testing.assert_allclose(far_away, [-1, 0, 0], atol=1e-3)
    np.testing.assert_allclose(on_crease, [0, 0, 1], atol=1e-3)


def test_a_ray_leaves_the_last_body_on_its_way_and_may_miss_all() -> None:
    ball = Ellipsoid(Part.FACE, np.array([0, 0, 10], "f4"), np.eye(3, dtype="f4") * 4)
    origins = np.array([[0, 0, 0], [9, 0, 0]], "f4")
    toward = np.array([[0, 0, 1], [0, 0, 1]], "f4")
    np.testing.assert_allclose(outermost([ball], origins, toward), [14, -np.inf])


@pytest.mark.parametrize("face", range(5))
def test_positive_yaw_turns_the_nose_toward_the_images_left(face: int) -> None:
    for yaw, sign in ((40, -1), (-40, 1)):
        person = figure(yaw, 0, 0, face=face)
        nose = middle_x(pixels_of(person, Part.NOSE)) - 60
        assert sign * nose > 10
        assert sign * (VIEW.project(person.landmarks)[0, NOSE_TIP] - 60) > 10


@pytest.mark.parametrize("face", range(5))
def test_positive_pitch_turns_the_nose_up(face: int) -> None:
    up, level, down = (figure(0, pitch, 0, face=face) for pitch in (30, 0, -30))
    heights = [middle_y(pixels_of(person, Part.NOSE)) for person in (up, level, down)]
    assert heights[0] + 8 < heights[1] < heights[2] - 8
    tips = [person.landmarks[NOSE_TIP, 1] for person in (up, level, down)]
    assert tips[0] < tips[1] < tips[2]


@pytest.mark.parametrize("face", range(5))
def test_positive_roll_tilts_the_head_clockwise(face: int) -> None:
    person = figure(0, 0, 30, face=face)
    points = VIEW.project(person.landmarks)
    assert points[0, CHIN] < 60 - 10  # the chin swings to the left as the crown goes right
    assert points[1, RIGHT_EYE] > points[1, LEFT_EYE] + 5
    rows, columns = np.nonzero(pixels_of(person, Part.NOSE))
    assert np.corrcoef(rows, columns)[0, 1] < -0.3  # the nose's lower end swings left too


@pytest.mark.parametrize("face", range(4))
@pytest.mark.parametrize("angles", [(0, 0, 0), (55, 10, -20), (-80, -25, 15), (10, 35, 40)])
def test_landmarks_lie_on_the_rendered_head(angles: tuple[float, ...], face: int) -> None:
    person = figure(*angles, face=face)
    hits = shown(person)
    visible = person.visible(person.landmarks)
    assert visible.sum() >= 20
    columns, rows = np.floor(VIEW.project(person.landmarks[visible])).astype(int)
    face = np.pad(pixels_of(person, Part.FACE, Part.NOSE), 1)
    # In profile the middle line is the outline itself: a pixel beside it will do.
    near = [
        face[row : row + 3, column : column + 3].any()
        for row, column in zip(rows, columns, strict=True)
    ]
    assert np.mean(near) >= 0.95
    error = np.abs(hits.depth[rows, columns] - person.landmarks[visible, 2])
    assert np.median(error) < 4  # millimetres; a pixel is 2.5 mm wide, and steep near the outline


def test_the_nose_tip_is_the_outline_of_a_profile() -> None:
    person = figure(90, 0, 0, face=1)
    tip_x, tip_y = VIEW.project(person.landmarks)[:, NOSE_TIP]
    face_columns = np.nonzero(pixels_of(person, Part.FACE, Part.NOSE)[int(tip_y)])[0]
    # The point lies on the ridge's upper side of the tip, so the tip may stand before it.
    assert face_columns.min() == pytest.approx(tip_x, abs=2.5)


def test_eyes_and_lips_are_painted_where_the_landmarks_are() -> None:
    view = View(240, (120.0, 132.0), 0.8)
    darker = redder = 0
    for face in range(12):
        person = figure(0, 0, 0, face=face)
        scene = draw_scene(np.random.default_rng(face))
        light = np.asarray(render(person, view, scene, np.random.default_rng(0)), dtype=float)
        points = view.project(person.landmarks)

        def colour(
            indices: slice,
            drop_px: float = 0,
            points: np.ndarray = points,
            light: np.ndarray = light,
        ) -> np.ndarray:
            x, y = points[:, indices].mean(axis=1)
            row, column = int(y + drop_px), int(x)
            return light[row - 2 : row + 3, column - 2 : column + 3].mean(axis=(0, 1))

        darker += colour(slice(42, 48)).sum() < colour(slice(42, 48), 22).sum()
        lips, chin = colour(slice(48, 60)), colour(slice(48, 60), 20)
        redder += lips[1] / lips.sum() <= chin[1] / chin.sum() + 0.01
    assert darker >= 10  # iris against cheek; a beard, glasses or the light may hide it
    assert redder >= 8


def test_left_and_right_landmarks_mirror_each_other() -> None:
    points = landmarks_68(draw_identity(np.random.default_rng(3)))
    mirrored = points[MIRRORED_68] * [-1, 1, 1]
    np.testing.assert_allclose(mirrored, points, atol=0.05)
    assert sorted(MIRRORED_68) == list(range(68))


def test_a_profile_hides_the_far_eye_and_shows_the_near_one() -> None:
    person = figure(75, 0, 0, face=2)  # nose to the image's left: its left eye is the far one
    visible = person.visible(person.landmarks)
    assert not visible[36:42].any()
    assert visible[42:48].all()


def test_ears_are_seen_from_the_front_and_the_near_one_from_its_side() -> None:
    bare = [
        face for face in range(40) if figure(0, 0, 0, face=face).identity.look.hair_style != "long"
    ]
    left, right = 2, 3
    seen = [figure(0, 0, 0, face=face) for face in bare]
    assert np.mean([person.visible(person.extras)[left : right + 1] for person in seen]) > 0.8
    seen = [figure(75, 0, 0, face=face) for face in bare]
    visible = np.array([person.visible(person.extras) for person in seen])
    assert visible[:, right].mean() > 0.8
    assert not visible[:, left].any()


def test_a_picture_follows_from_its_seeds_alone() -> None:
    scene = draw_scene(np.random.default_rng(7))
    again = draw_scene(np.random.default_rng(7))
    first = render(figure(20, 5, 3), VIEW, scene, np.random.default_rng(1))
    second = render(figure(20, 5, 3), VIEW, again, np.random.default_rng(1))
    assert first.size == (SIZE_PX, SIZE_PX)
    assert first.tobytes() == second.tobytes()
    other = render(figure(20, 5, 3, face=1), VIEW, scene, np.random.default_rng(1))
    assert first.tobytes() != other.tobytes()
