"""`caffe-metric align`: landmarks land where they should, in numbers and in pixels.

The oracle is scikit-image's SimilarityTransform, and an image that has a bright spot at each
landmark: after alignment the spots are looked for.
"""

from __future__ import annotations

import numpy as np
import pytest
from caffe_metric.data.alignment import (
    TEMPLATE,
    eyes_similarity,
    similarity_to,
    template_similarity,
)
from PIL import Image
from skimage.transform import SimilarityTransform


def turned(angle, scale, shift):
    """The template, turned, scaled and moved: landmarks of some photograph."""
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    return TEMPLATE @ np.array([[cosine, sine], [-sine, cosine]]) + shift


def apply(similarity, points):
    return np.asarray(points) @ similarity[:, :2].T + similarity[:, 2]


@pytest.mark.parametrize("angle", [0, 0.4, -1.2, 3.0])
def test_a_turned_template_is_turned_back(angle):
    landmarks = turned(angle, 1.7, [250, 310])
    np.testing.assert_allclose(
        apply(template_similarity(landmarks, (112, 112)), landmarks), TEMPLATE
    )
    wide = apply(template_similarity(landmarks, (300, 224)), landmarks)
    np.testing.assert_allclose(wide, 2 * TEMPLATE + [38, 0])


def test_least_squares_as_in_scikit_image(rng):
    for _ in range(20):
        points, target = rng.normal(size=(2, 5, 2)) * 30
        points[:, 0] *= rng.choice([-1, 1])
        found = similarity_to(points, target)
        oracle = SimilarityTransform.from_estimate(points, target).params[:2]
        np.testing.assert_allclose(found, oracle, atol=1e-8)
        assert np.linalg.det(found[:, :2]) >= 0


@pytest.mark.parametrize("angle", [0.3, -0.7])
def test_eyes_are_level_and_the_mouth_is_below(angle):
    landmarks = turned(angle, 0.6, [90, 80])
    found = apply(eyes_similarity(landmarks, (112, 112), 40, 35), landmarks)
    assert found[0, 1] == pytest.approx(found[1, 1])
    assert found[:2].mean(axis=0) == pytest.approx([56, 35])
    assert found[3:, 1].mean() == pytest.approx(75)


def test_pixels_follow_their_landmarks(tmp_path, command):
    landmarks = turned(0.5, 1.5, [160, 60])
    y, x = np.mgrid[:300, :300]
    spots = sum(np.exp(-((x - a) ** 2 + (y - b) ** 2) / 18) for a, b in landmarks)
    (tmp_path / "faces/ann").mkdir(parents=True)
    Image.fromarray((255 * spots.clip(0, 1)).astype(np.uint8)).save(tmp_path / "faces/ann/1.png")
    numbers = " ".join(f"{number:.3f}" for number in landmarks.ravel())
    (tmp_path / "faces/list").write_text(f"ann/1.png 7 {numbers}\n")
    status, out, err = command("align", tmp_path / "faces/list", tmp_path / "out")
    assert (status, err) == (0, "")
    assert "1 images" in out
    assert (tmp_path / "out/list.txt").read_text() == "ann/1.png 7\n"
    with Image.open(tmp_path / "out/ann/1.png") as image:
        aligned = np.asarray(image).astype(float)
    assert aligned.shape == (112, 112)
    y, x = np.mgrid[:112, :112]
    for a, b in TEMPLATE:
        weight = aligned * ((x - a) ** 2 + (y - b) ** 2 < 49)
        centre = [(weight * x).sum() / weight.sum(), (weight * y).sum() / weight.sum()]
        np.testing.assert_allclose(centre, [a, b], atol=0.15)
    more = ("--size", "96x112", "--ec-mc-y", "48", "--ec-y", "30")
    assert command("align", tmp_path / "faces/list", tmp_path / "two", *more)[0] == 0
    with Image.open(tmp_path / "two/ann/1.png") as image:
        assert image.size == (96, 112)


@pytest.mark.parametrize(
    ("line", "more", "message"),
    [
        ("a.png 1 2 3", (), "list:1: `FILE [LABEL] X1 Y1"),
        ("a.png 3 " + "nan " * 10, (), "list:1: "),
        ("a.png 3 " + "1 " * 10, (), "the landmarks are all one point"),
        ("a.png 3 " + "1 " * 10, ("--ec-mc-y", "40"), "both eyes are one point"),
        ("a.png 1 9 5 9 3 5 1 2 5 2", ("--ec-mc-y", "40"), "the mouth is above the eyes"),
        ("b.png 1 1 5 1 3 3 1 5 5 5", (), "b.png"),
        ("../a.png 1 1 5 1 3 3 1 5 5 5", (), "within the list's folder"),
        ("a.png 1 1 5 1 3 3 1 5 5 5", ("--ec-y", "40"), "--ec-y is for --ec-mc-y"),
        ("a.png 1 1 5 1 3 3 1 5 5 5", ("--ec-mc-y", "-1"), "must be above 0"),
        ("", (), "empty"),
    ],
)
def test_failures_are_one_line(tmp_path, command, line, more, message):
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "list").write_text(line + "\n")
    status, _, err = command("align", tmp_path / "list", tmp_path / "out", *more)
    assert status == 1
    assert message in err
    assert err.count("\n") == 1
