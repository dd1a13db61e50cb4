"""The batch that `caffe-metric gradcheck` takes: few rows of the net's own data, chosen by class.

And what a verdict stands on: a gradient that is wrong at one point only is unclear, not wrong.
"""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("caffe", reason="pycaffe is not built: ./run build")

from caffe.proto import caffe_pb2
from caffe_metric.data import datum
from caffe_metric.data.lmdb_file import write_lmdb
from caffe_metric.gradients import check as gradcheck
from caffe_metric.gradients.small_batch import choose
from PIL import Image

NET = """
layer { name: "data" type: "Data" top: "data" top: "label"
  transform_param { scale: 0.01 } data_param { source: "db" batch_size: 60 backend: LMDB } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
"""
TRIPLET = """
layer { name: "loss" type: "TripletLoss" bottom: "ip" bottom: "label" top: "loss"
  triplet_loss_param { mining: ALL } }
"""
# Slices of 30 rows do not come from another batch than one of 60.
SLICED = """
layer { name: "cut" type: "Slice" bottom: "ip" top: "a" top: "b"
  slice_param { axis: 0 slice_point: 30 } }
layer { name: "sum" type: "EuclideanLoss" bottom: "a" bottom: "b" top: "loss" }
"""


@pytest.fixture
def folder(tmp_path, monkeypatch, rng):
    """The current folder: db, 120 images in shuffled order of 10 classes."""
    monkeypatch.chdir(tmp_path)
    labels = rng.permutation(np.arange(120) % 10)
    images = rng.integers(0, 256, (120, 1, 4, 4)).astype(np.uint8)
    records = [("x", datum.encode(image, int(label))) for image, label in zip(images, labels)]
    write_lmdb("db", records)
    return tmp_path


def run(text):
    with open("net.prototxt", "w") as file:
        file.write(text)
    return gradcheck.gradcheck("net.prototxt", seed=7)


def test_a_few_rows_of_two_classes_serve(folder):
    findings = run(NET + TRIPLET)
    assert findings.about == "seed 7, a batch of 8 rows"
    assert repr(findings).splitlines()[-1].endswith("; " + findings.about)
    of_loss = next(finding for finding in findings if finding.layer == "loss")
    assert (of_loss.shape[0], of_loss.verdict) == (8, "ok")
    assert "zero" not in of_loss.note  # there were triplets
    assert {finding.verdict for finding in findings} <= {"ok", "-"}


def test_a_net_that_counts_on_its_batch_keeps_it(folder):
    findings = run(NET + SLICED)
    assert findings.about == "seed 7"
    assert next(f for f in findings if f.layer == "sum").shape[0] == 30


def test_groups_stay_whole(folder):
    loss = 'layer { name: "loss" type: "RankHardLoss" bottom: "ip" bottom: "label" top: "loss" '
    loss += "rank_param { neg_num: 2 pair_size: 3 margin: 9 } }"
    findings = run(NET + loss)
    assert findings.about == "seed 7, a batch of 9 rows"
    assert {finding.verdict for finding in findings} <= {"ok", "-"}


def test_a_list_of_images_is_shortened(folder):
    for row in range(12):
        Image.new("L", (4, 4), 20 * row).save(f"{row}.png")
    (folder / "list.txt").write_text("".join(f"{row}.png {row % 3}\n" for row in range(12)))
    source = 'image_data_param { source: "list.txt" batch_size: 12 shuffle: true }'
    text = NET.replace('data_param { source: "db" batch_size: 60 backend: LMDB }', source)
    findings = run(text.replace('"Data"', '"ImageData"') + TRIPLET)
    assert findings.about == "seed 7, a batch of 8 rows"


@pytest.mark.parametrize(
    ("labels", "group", "expected"),
    [
        ([0, 0, 1, 1, 2, 2, 3, 3, 4, 4], 2, [0, 1, 2, 3, 4, 5, 6, 7]),
        ([0] * 10 + [1] * 10, 2, [0, 1, 10, 11, 2, 3, 12, 13]),
        (list(range(10)) * 2, 2, [0, 10, 1, 11, 2, 12, 3, 13]),
        ([0, 1, 2], 2, [0, 1, 2]),
        ([0, 0, 1, 2, 2, 3] * 2, 0, [0, 1, 2, 3, 4, 5, 6, 7]),
        ([5] * 9, 2, [0, 1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_rows_are_chosen_by_class(labels, group, expected):
    assert choose(labels, 8, group) == expected


class Bent:
    """y = x^2 with a gradient that is wrong at one point, as a kink between all steps makes it."""

    layer = caffe_pb2.LayerParameter(name="bent", type="Power", bottom=["x"], top=["y"])
    state, parameters = (), ()

    def __init__(self, wrong_beside):
        self.bottoms = {"x": np.linspace(0.5, 1.5, 12, dtype=np.float32)}
        self.factor, self.wrong_beside = 3, wrong_beside

    def forward(self, bottoms=None, parameters=None):
        return [np.square((bottoms or self.bottoms)["x"])]

    def gradients(self, projections):
        return {"x": self.factor * self.bottoms["x"] * projections[0]}, []

    def move(self, rng):
        self.bottoms = {"x": self.bottoms["x"] + np.float32(0.01)}
        if not self.wrong_beside:
            self.factor = 2


@pytest.mark.parametrize(("wrong_beside", "verdict"), [(True, "FAIL"), (False, "unclear")])
def test_wrong_at_one_point_is_unclear(wrong_beside, verdict):
    (finding,) = gradcheck.check_layer(Bent(wrong_beside))
    assert finding.verdict == verdict
    assert finding.error > 0.1
