"""`caffe-metric align`: landmarks land where they should, in numbers and in pixels.

The oracles are the published templates, copied here from their sources, and an image that has a
bright spot at each landmark: after alignment the spots are looked for.
"""

from __future__ import annotations

import numpy as np
import pytest
from caffe_metric.data.alignment import (
    TEMPLATE,
    eyes_similarity,
    output_names,
    similarity_to,
    template_similarity,
)
from PIL import Image

pytest.importorskip("cv2", reason="pip install opencv-python-headless")

# insightface/utils/face_align.py, arcface_dst, for 112 x 112.
ARCFACE = [
    [38.2946, 51.6963],
    [73.5318, 51.5014],
    [56.0252, 71.7366],
    [41.5493, 92.3655],
    [70.7299, 92.2041],
]
# sphereface/preprocess/code/face_align_demo.m, coord5points, for 96 x 112.
SPHEREFACE = [
    [30.2946, 51.6963],
    [65.5318, 51.5014],
    [48.0252, 71.7366],
    [33.5493, 92.3655],
    [62.7299, 92.2041],
]


def turned(angle, scale, shift):
    """The template, turned, scaled and moved: landmarks of some photograph."""
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    return TEMPLATE @ np.array([[cosine, sine], [-sine, cosine]]) + shift


def apply(similarity, points):
    return np.asarray(points) @ similarity[:, :2].T + similarity[:, 2]


@pytest.mark.parametrize("angle", [0, 0.4, -1.2, 3.0])
@pytest.mark.parametrize(
    ("size", "published"),
    [((112, 112), ARCFACE), ((96, 112), SPHEREFACE)],
    ids=["square", "narrow"],
)
def test_a_turned_face_meets_the_published_points(angle, size, published):
    landmarks = turned(angle, 1.7, [250, 310])
    found = apply(template_similarity(landmarks, size), landmarks)
    np.testing.assert_allclose(found, published, atol=1e-9)


def test_other_sizes_show_the_same_face():
    landmarks = turned(0.3, 1.7, [250, 310])
    for size, scale, shift in [
        ((224, 224), 2, [0, 0]),
        ((192, 224), 2, [-16, 0]),
        ((300, 224), 2, [38, 0]),
        ((96, 200), 1, [-8, 44]),
    ]:
        found = apply(template_similarity(landmarks, size), landmarks)
        np.testing.assert_allclose(found, scale * np.array(ARCFACE) + shift, atol=1e-9)


def test_a_line_is_fitted_with_least_squares(rng):
    """Of five points moved at random, no nearby similarity is nearer."""
    for _ in range(5):
        points, target = rng.normal(size=(2, 5, 2)) * 30
        found = similarity_to(points, target)
        assert np.linalg.det(found[:, :2]) >= 0
        least = np.square(apply(found, points) - target).sum()
        (a, b), shift = found[:, 0], found[:, 2]
        for change in np.vstack([np.eye(4), -np.eye(4)]) * 1e-3:
            c, s = a + change[0], b + change[1]
            other = np.column_stack([[[c, -s], [s, c]], shift + change[2:]])
            assert np.square(apply(other, points) - target).sum() >= least


@pytest.mark.parametrize("angle", [0.3, -0.7])
def test_eyes_are_level_and_the_mouth_is_below(angle):
    landmarks = turned(angle, 0.6, [90, 80])
    found = apply(eyes_similarity(landmarks, (112, 112), 40, 35), landmarks)
    assert found[0, 1] == pytest.approx(found[1, 1])
    assert found[:2].mean(axis=0) == pytest.approx([56, 35])
    assert found[3:, 1].mean() == pytest.approx(75)


def spots(landmarks, side=300):
    y, x = np.mgrid[:side, :side]
    found = sum(np.exp(-((x - a) ** 2 + (y - b) ** 2) / 18) for a, b in landmarks)
    return (255 * found.clip(0, 1)).astype(np.uint8)


def assert_spots(path, points):
    with Image.open(path) as image:
        aligned = np.asarray(image.convert("L")).astype(float)
    y, x = np.mgrid[: aligned.shape[0], : aligned.shape[1]]
    for a, b in points:
        weight = aligned * ((x - a) ** 2 + (y - b) ** 2 < 49)
        centre = [(weight * x).sum() / weight.sum(), (weight * y).sum() / weight.sum()]
        np.testing.assert_allclose(centre, [a, b], atol=0.15)


def line(name, landmarks, label=""):
    return f"{name} {label} " + " ".join(f"{number:.3f}" for number in np.ravel(landmarks)) + "\n"


def test_pixels_follow_their_landmarks(tmp_path, command):
    landmarks = turned(0.5, 1.5, [160, 60])
    (tmp_path / "faces/ann").mkdir(parents=True)
    Image.fromarray(spots(landmarks)).save(tmp_path / "faces/ann/1.png")
    (tmp_path / "faces/list").write_text(line("ann/1.png", landmarks, 7))
    status, out, err = command("align", tmp_path / "faces/list", tmp_path / "out")
    assert (status, err) == (0, "")
    assert "1 images" in out
    assert (tmp_path / "out/list.txt").read_text() == "ann/1.png 7\n"
    with Image.open(tmp_path / "out/ann/1.png") as image:
        assert (image.size, image.mode) == ((112, 112), "L")
    assert_spots(tmp_path / "out/ann/1.png", ARCFACE)
    assert command("align", tmp_path / "faces/list", tmp_path / "two", "--size", "96x112")[0] == 0
    with Image.open(tmp_path / "two/ann/1.png") as image:
        assert image.size == (96, 112)
    assert_spots(tmp_path / "two/ann/1.png", SPHEREFACE)
    more = ("--ec-mc-y", "40")
    assert command("align", tmp_path / "faces/list", tmp_path / "three", *more)[0] == 0
    expected = apply(eyes_similarity(landmarks, (112, 112), 40, 40), landmarks)
    assert_spots(tmp_path / "three/ann/1.png", expected)
    assert expected[3:, 1].mean() - expected[:2, 1].mean() == pytest.approx(40)


def test_a_photograph_is_turned_as_its_exif_says(tmp_path, command):
    """Landmarks belong to the picture as it is shown."""
    landmarks = turned(0.2, 1.5, [90, 60])
    shown = Image.fromarray(spots(landmarks))
    exif = Image.Exif()
    exif[0x112] = 6  # the camera lay on its side: shown after a turn by 90 degrees
    shown.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.png", exif=exif)
    (tmp_path / "list").write_text(line("a.png", landmarks, 0))
    assert command("align", tmp_path / "list", tmp_path / "out")[0] == 0
    assert_spots(tmp_path / "out/a.png", ARCFACE)


def test_jpegs_are_written_at_quality_95_with_all_their_colour(tmp_path, command, rng):
    pixels = rng.integers(0, 256, (112, 112, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=30)
    (tmp_path / "list").write_text(line("a.jpg", ARCFACE, 0))
    assert command("align", tmp_path / "list", tmp_path / "out")[0] == 0
    with Image.open(tmp_path / "out/a.jpg") as image:
        assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3  # sampling of 4:4:4
        tables = image.quantization
    Image.fromarray(pixels).save(tmp_path / "b.jpg", quality=95, subsampling=0)
    with Image.open(tmp_path / "b.jpg") as image:
        assert tables == image.quantization


def test_a_list_without_labels_gives_none(tmp_path, command):
    for person in ("ann", "bob"):
        (tmp_path / person).mkdir()
        Image.new("L", (200, 200), 9).save(tmp_path / person / "1.png")
    lines = [line(f"{person}/1.png", turned(0, 1, [20, 20])) for person in ("ann", "bob")]
    (tmp_path / "list").write_text("".join(lines))
    assert command("align", tmp_path / "list", tmp_path / "out")[0] == 0
    assert (tmp_path / "out/list.txt").read_text() == "ann/1.png\nbob/1.png\n"
    status, _, _ = command("convert", tmp_path / "out", tmp_path / "out.lmdb")
    assert status == 0
    assert (tmp_path / "out.lmdb/labels.txt").read_text() == "0 ann\n1 bob\n"
    (tmp_path / "list").write_text(lines[0] + line("bob/1.png", ARCFACE, 3))
    status, _, err = command("align", tmp_path / "list", tmp_path / "out")
    assert status == 1
    assert "'bob/1.png' has a label, unlike the lines before it" in err


def test_a_file_listed_twice_is_two_faces(tmp_path, command):
    first, second = turned(0, 1, [0, 0]), turned(0, 1, [120, 100])
    Image.fromarray(np.maximum(spots(first), spots(second) // 2)).save(tmp_path / "two.png")
    (tmp_path / "list").write_text(line("two.png", first, 0) + line("two.png", second, 1))
    assert command("align", tmp_path / "list", tmp_path / "out")[0] == 0
    assert (tmp_path / "out/list.txt").read_text() == "two.png 0\ntwo-2.png 1\n"
    brightest = [
        np.asarray(Image.open(tmp_path / f"out/{n}")).max() for n in ("two.png", "two-2.png")
    ]
    assert brightest[0] > 200 > 140 > brightest[1]


def test_names_stay_below_the_folder():
    assert output_names(["a.png", "b/a.png", "./a.png"], "/x") == ["a.png", "b/a.png", "a-2.png"]
    assert output_names(["/data/ann/1.jpg", "../data/bob/1.jpg"], "/lists") == [
        "ann/1.jpg",
        "bob/1.jpg",
    ]
    assert output_names(["../x.png"], "/a/b") == ["x.png"]
    assert output_names(["a.png", "a-2.png", "a.png"], "/x") == ["a.png", "a-2.png", "a-3.png"]


def test_absolute_paths_and_paths_upwards(tmp_path, command):
    for person in ("ann", "bob"):
        (tmp_path / "photos" / person).mkdir(parents=True)
        Image.new("L", (200, 200), 9).save(tmp_path / "photos" / person / "1.png")
    (tmp_path / "lists").mkdir()
    landmarks = turned(0, 1, [20, 20])
    text = line(tmp_path / "photos/ann/1.png", landmarks, 0) + line(
        "../photos/bob/1.png", landmarks, 1
    )
    (tmp_path / "lists/list").write_text(text)
    assert command("align", tmp_path / "lists/list", tmp_path / "out")[0] == 0
    assert (tmp_path / "out/list.txt").read_text() == "ann/1.png 0\nbob/1.png 1\n"
    assert (tmp_path / "out/bob/1.png").is_file()


@pytest.mark.parametrize(
    ("line", "more", "message"),
    [
        ("a.png 1 2 3", (), "list:1: `FILE [LABEL] X1 Y1"),
        ("a.png 3 " + "nan " * 10, (), "list:1: "),
        ("a.png 1 1 5 1 3 3 1 5 5 5", ("--ec-y", "40"), "--ec-y is for --ec-mc-y"),
        ("a.png 1 1 5 1 3 3 1 5 5 5", ("--ec-mc-y", "-1"), "must be above 0"),
        ("a.png 1", ("--yunet", "missing.onnx"), "missing.onnx: no such file"),
        ("a.png 1", ("--yunet", __file__), "OpenCV cannot read this net"),
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


def test_an_image_that_fails_is_listed_and_the_rest_goes_on(tmp_path, command):
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    good = "1 1 5 1 3 3 1 5 5 5"
    lines = [
        f"missing.png 0 {good}",
        f"cut.png 0 {good}",
        "a.png 1 " + "1 " * 10,
        f"a.png 2 {good}",
        "a.png 3 1 9 5 9 3 5 1 2 5 2",
    ]
    (tmp_path / "list").write_text("\n".join(lines))
    status, out, err = command("align", tmp_path / "list", tmp_path / "out", "--ec-mc-y", "3")
    assert (status, err.count("\n")) == (1, 1)
    assert "4 of 5 images left out (missing.png: No such file or directory)" in err
    assert (tmp_path / "out/list.txt").read_text() == "a-2.png 2\n"
    assert (tmp_path / "out/left_out.txt").read_text().splitlines() == [
        "missing.png\tNo such file or directory",
        "cut.png\tcannot identify image file",
        "a.png\tboth eyes are one point",
        "a.png\tthe mouth is above the eyes",
    ]
    (tmp_path / "list").write_text(lines[3])
    assert command("align", tmp_path / "list", tmp_path / "out")[0] == 0
    assert not (tmp_path / "out/left_out.txt").exists()


def test_landmarks_of_a_detector(tmp_path, command, monkeypatch):
    """YuNet's rows are read as OpenCV documents them; of several faces the largest is taken."""
    import cv2

    big, small = turned(0, 1.5, [60, 60]), turned(0, 0.5, [5, 5])
    shown = np.maximum(spots(big), spots(small))
    Image.fromarray(shown).save(tmp_path / "ann 1.png")
    (tmp_path / "net.onnx").write_bytes(b"")

    class Detector:
        def setInputSize(self, size):
            assert size == (300, 300)

        def detect(self, image):
            assert image.shape == (300, 300, 3)
            rows = [[5, 5, 56, 56, *small.ravel(), 0.9], [60, 60, 168, 168, *big.ravel(), 0.8]]
            return 1, np.array(rows, np.float32)

    monkeypatch.setattr(cv2.FaceDetectorYN, "create", lambda *_: Detector())
    (tmp_path / "list").write_text("ann 1.png 4\n")
    status, _, err = command(
        "align", tmp_path / "list", tmp_path / "out", "--yunet", tmp_path / "net.onnx"
    )
    assert (status, err) == (0, "")
    assert (tmp_path / "out/list.txt").read_text() == "ann 1.png 4\n"
    assert_spots(tmp_path / "out/ann 1.png", ARCFACE)
