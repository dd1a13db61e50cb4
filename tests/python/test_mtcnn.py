"""MTCNN's cascade: its boxes by hand, and the whole by stand-in nets with constructed weights.

The published models are nobody's to pass on. The stand-ins have the interface of the published
nets (sides, outputs, MATLAB's order of height and width) and see a face where red lies above black
on blue: a net that gets the image turned over, or blue for red, sees none. Their landmarks are
parts of the box, all different.
"""

from __future__ import annotations

import numpy as np
import pytest
from caffe_metric.data.mtcnn import MTCNN, cells, cut, regressed, squares, suppressed
from caffe_metric.nets import modelfile
from caffe_metric.support.errors import UserError
from PIL import Image

pytest.importorskip("cv2", reason="pip install opencv-python-headless")

# Parts of the box: x of the five, then y.
PARTS = np.array([0.3, 0.7, 0.5, 0.35, 0.65, 0.4, 0.41, 0.6, 0.8, 0.79])


def test_cells_are_boxes_of_the_image():
    """The formula of the published code, counted from 1 there."""
    scores, shifts = np.zeros((4, 6)), np.arange(4 * 4 * 6).reshape(4, 4, 6)
    scores[2, 5], scores[0, 1] = 0.9, 0.6
    boxes, found, moved = cells(scores, shifts, 0.5, 0.6)
    assert boxes.tolist() == [[5, 1, 27, 23], [21, 9, 43, 31]]
    assert found.tolist() == [0.6, 0.9]
    assert moved[1].tolist() == shifts[:, 2, 5].tolist()


def test_the_better_of_two_boxes_stays():
    boxes = np.array([[0, 0, 9, 9], [1, 0, 10, 9], [0, 0, 4, 4], [50, 50, 59, 59]], float)
    scores = np.array([0.7, 0.9, 0.8, 0.1])
    # 0 and 1 share 90 of 110; 2 lies within 0, and shares 20 of 105 with 1, 20 of its own 25.
    assert suppressed(boxes, scores, 0.7).tolist() == [1, 2, 3]
    assert suppressed(boxes, scores, 0.7, of_smaller=True).tolist() == [1, 3]
    assert suppressed(boxes, scores, 0.9).tolist() == [1, 2, 0, 3]
    assert suppressed(boxes[:0], scores[:0], 0.5).tolist() == []


def test_sides_move_by_parts_of_the_box():
    box, shift = np.array([[10, 20, 29, 59.0]]), np.array([[0.1, -0.1, 0.2, 0.05]])
    assert regressed(box, shift, 1).tolist() == [[12, 16, 33, 61]]
    assert regressed(box, shift, 0).ravel() == pytest.approx([11.9, 16.1, 32.8, 60.95])


def test_squares_keep_the_middle():
    assert squares(np.array([[10, 20, 30, 60.0]])).tolist() == [[0, 20, 40, 60]]
    assert squares(np.array([[3, 3, 3, 3.0]])).tolist() == [[2, 2, 3, 3]]


@pytest.mark.parametrize("box", [[-3, -2, 4, 5], [5, 6, 12, 13], [20, 20, 27, 27], [1, 1, 8, 8]])
def test_outside_of_an_image_it_is_black(box, rng):
    image = rng.integers(1, 256, (11, 10, 3)).astype(np.uint8)
    wide = np.zeros((60, 60, 3), np.uint8)
    wide[20:31, 20:30] = image
    x1, y1, x2, y2 = np.array(box) + 20
    np.testing.assert_array_equal(cut(image, np.array(box), 8), wide[y1 : y2 + 1, x1 : x2 + 1])


def face(side):
    """Red over black on blue, uint8 BGR: the middle half of the box, the rest around it."""
    shown, inner = np.zeros((side, side, 3), np.uint8), slice(side // 4, side - side // 4)
    shown[..., 0] = 255
    shown[inner, inner] = 0
    shown[side // 4 : side // 2, inner, 2] = 255
    return shown


def score_weights(side):
    """[3, side, side], RGB: how much an image in [-1, 1] is such a face, 1 at most.

    Height and width are MATLAB's: the other way round.
    """
    wanted = face(side)[..., ::-1].transpose(2, 1, 0) / 127.5 - 1
    weights = wanted * np.array([5, 0, 1])[:, None, None]
    weights[0] *= wanted[2] < 0  # red counts in the middle only
    return weights / np.abs(weights).sum()


def write_nets(folder, landmarks=10):
    """det1 to det3: a linear layer each for the score, the shifts and the landmarks."""
    for number, side in enumerate((12, 24, 48), 1):
        seen, model = 10 * score_weights(side), modelfile.message()()
        parts = {"score": ([0 * seen, seen], [5, 0]), "conv-2": ([0 * seen] * 4, [0] * 4)}
        if number == 3:
            parts["conv-3"] = [0 * seen] * landmarks, PARTS[:landmarks]
        kind = "Convolution" if number == 1 else "InnerProduct"
        text = 'input: "data"\n' + "".join(f"input_dim: {n}\n" for n in (1, 3, side, side))
        for name, (weights, bias) in parts.items():
            layer, weights = model.layer.add(name=name, type=kind), np.array(weights)
            settings = f"inner_product_param {{ num_output: {len(bias)} }}"
            if number == 1:
                settings = (
                    f"convolution_param {{ num_output: {len(bias)} kernel_size: 12 stride: 2 }}"
                )
            else:
                weights = weights.reshape(len(bias), -1)
            for values in (weights, np.array(bias)):
                blob = layer.blobs.add()
                blob.data.extend(values.ravel().astype(float))
                blob.shape.dim.extend(values.shape)
            text += (
                f'layer {{ name: "{name}" type: "{kind}" bottom: "data" top: "{name}"\n'
                f"  {settings} }}\n"
            )
        text += 'layer { name: "prob1" type: "Softmax" bottom: "score" top: "prob1" }\n'
        (folder / f"det{number}.prototxt").write_text(text)
        (folder / f"det{number}.caffemodel").write_bytes(model.SerializeToString())
    return folder


def scene(*faces, height=150, width=220):
    """Faces (x, y, side) on blue."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = 255
    for x, y, side in faces:
        image[y : y + side, x : x + side] = face(side)
    return image


def points_of(x, y, side):
    return [x, y] + side * PARTS.reshape(2, 5).T


@pytest.mark.parametrize("place", [(30, 20, 40), (90, 35, 80), (150, 80, 28)])
def test_landmarks_of_a_face(tmp_path, place):
    detect = MTCNN(write_nets(tmp_path))
    found = detect(scene(place))
    assert np.abs(found - points_of(*place)).max() < 0.12 * place[2]


def test_of_two_faces_the_larger(tmp_path):
    detect = MTCNN(write_nets(tmp_path))
    found = detect(scene((10, 10, 40), (100, 30, 80)))
    assert np.abs(found - points_of(100, 30, 80)).max() < 0.12 * 80


def test_what_is_no_face(tmp_path):
    detect = MTCNN(write_nets(tmp_path))
    upright = scene((30, 20, 56))
    for image in (
        upright.transpose(1, 0, 2),  # a net that is fed without MATLAB's order sees this one
        upright[..., ::-1],  # and one that is fed BGR, this one
        scene(),
        upright[:10, :10],  # smaller than any face
        scene()[..., 0],  # gray
    ):
        with pytest.raises(ValueError, match="no face found"):
            detect(np.ascontiguousarray(image))


def test_align_by_mtcnn(tmp_path, command):
    """The bright spot at the left eye comes to the template's."""
    place, nets = (60, 20, 112), tmp_path / "nets"
    nets.mkdir()
    write_nets(nets)
    Image.fromarray(scene(place)[..., ::-1]).save(tmp_path / "a.png")
    Image.fromarray(scene()[..., ::-1]).save(tmp_path / "b.png")
    (tmp_path / "list").write_text("a.png 3\nb.png 4\n")
    status, _, err = command("align", tmp_path / "list", tmp_path / "out", "--mtcnn", nets)
    assert status == 1
    assert "1 of 2 images left out (b.png: no face found)" in err
    assert (tmp_path / "out/list.txt").read_text() == "a.png 3\n"
    with Image.open(tmp_path / "out/a.png") as image:
        assert image.size == (112, 112)


def test_other_nets_are_named(tmp_path, command):
    write_nets(tmp_path, landmarks=6)
    with pytest.raises(
        UserError, match="det3.prototxt: outputs of 2, 4, 6 channels, MTCNN's has 2, 4, 10"
    ):
        MTCNN(tmp_path)(scene((30, 20, 56)))
    (tmp_path / "det2.caffemodel").write_bytes(b"none")
    with pytest.raises(UserError, match="det2.prototxt: OpenCV cannot read this net"):
        MTCNN(tmp_path)
    (tmp_path / "det3.prototxt").unlink()
    (tmp_path / "list").write_text("a.png\n")
    (tmp_path / "det2.caffemodel").unlink()
    status, _, err = command("align", tmp_path / "list", tmp_path / "out", "--mtcnn", tmp_path)
    assert (status, err.count("\n")) == (1, 1)
    assert "det2.caffemodel: no such file" in err
