"""Which rank reads what, and what is refused because ranks would read or keep different things."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("caffe", reason="pycaffe is not built: ./run build")

from caffe.proto import caffe_pb2
from caffe_metric.parallel import dealing
from caffe_metric.parallel.merging import Merging
from caffe_metric.parallel.ranks import Ranks
from caffe_metric.support.errors import UserError
from caffe_metric.training import position
from google.protobuf import text_format
from mpi_case import write_faces

import caffe

IDENTITY = """
layer { name: "data" type: "Python" top: "data" top: "label"
  python_param { module: "caffe_metric.layers" layer: "IdentityDataLayer"
    param_str: "{source: FOLDER/faces.lmdb, layout: SHUFFLED, batch_size: %d, workers: %d, "
      "seed: 3}" } }
"""


def layers(text):
    return list(text_format.Parse(text, caffe_pb2.NetParameter()).layer)


@pytest.mark.parametrize(("lines", "ranks", "batches"), [(12, 2, 0), (7, 3, 0), (7, 3, 2)])
def test_lines_of_image_lists_go_round(tmp_path, lines, ranks, batches):
    source = tmp_path / "list.txt"
    source.write_text("".join(f"{line}.png {line}\n" for line in range(lines)))
    text = f'layer {{ type: "ImageData" image_data_param {{ source: "{source}" batch_size: 2 }} }}'
    own = []
    for rank in range(ranks):
        (layer,) = layers(text)
        folder = tmp_path / str(rank)
        folder.mkdir()
        position.rotate_lists([layer], batches, folder, rank, ranks)
        listed = Path(layer.image_data_param.source).read_text()
        numbers = [int(line.split()[1]) for line in listed.splitlines()]
        own.append(numbers * ranks)
    # One rank would read on where it stopped, and round and round.
    start = batches * ranks * 2
    for turn in range(2 * lines):
        met = [numbers[turn % len(numbers)] for numbers in own]
        assert met == [(start + turn * ranks + rank) % lines for rank in range(ranks)]


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_of_ranks_are_those_of_one(tmp_path, workers):
    write_faces(tmp_path)

    def net(rows, rank=0, ranks=1, given=0):
        path = tmp_path / "net.prototxt"
        path.write_text((IDENTITY % (rows, workers)).replace("FOLDER", str(tmp_path)))
        made = caffe.Net(str(path), caffe.TRAIN)
        made.params["data"][0].data[...] = given
        made.layers[0].deal(rank, ranks)
        return made

    # The fourth and fifth batch of three ranks, the seventh before them having been given to one.
    one, ranks = net(24, given=3), [net(8, rank, 3, given=9) for rank in range(3)]
    for _ in range(2):
        one.forward()
        for made in ranks:
            made.forward()
        rows = np.concatenate([made.blobs["data"].data for made in ranks])
        np.testing.assert_array_equal(rows, one.blobs["data"].data)
    assert float(ranks[1].params["data"][0].data[0]) == 15
    odd = [net(8, rank, 3, given=7) for rank in range(3)]
    one = net(8, given=7)
    for made in odd:
        one.forward()
        made.forward()
        np.testing.assert_array_equal(made.blobs["data"].data, one.blobs["data"].data)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            'layer { name: "d" type: "Data" } layer { name: "l" type: "RankHardLoss" bottom: "x" '
            'bottom: "y" }',
            r"layer 'l' \(RankHardLoss\) reads rows in groups, but layer 'd' \(Data\) deals",
        ),
        (
            'layer { name: "d" type: "ImageData" } layer { name: "l" type: "TripletLoss" '
            'bottom: "x" }',
            r"layer 'l' \(TripletLoss\) reads rows in groups",
        ),
        (
            'layer { name: "d" type: "HDF5Data" } layer { type: "Slice" slice_param { axis: 0 } } '
            'layer { name: "l" type: "TripletLoss" bottom: "a" bottom: "p" bottom: "n" }',
            r"layer 'l' \(TripletLoss\) reads rows in groups",
        ),
        ('layer { name: "d" type: "WindowData" }', r"layer 'd' \(WindowData\) gives every rank"),
    ],
)
def test_rows_that_cannot_be_dealt_out(text, says):
    with pytest.raises(UserError, match=says):
        dealing.check(layers(text))


def test_groups_of_identity_data_are_dealt_out(tmp_path):
    text = IDENTITY % (8, 0) + 'layer { name: "l" type: "RankHardLoss" bottom: "x" bottom: "y" }'
    dealing.check(layers(text))
    columns = 'layer { name: "d" type: "Data" } layer { type: "Slice" } '
    triplets = 'layer { name: "l" type: "TripletLoss" bottom: "a" bottom: "p" bottom: "n" }'
    dealing.check(layers(columns + triplets))


class Net:
    """Of a pycaffe net, what Merging asks for before an iteration."""

    def __init__(self, names):
        self._layer_names, self.params = names, {name: ["blob"] * 4 for name in names}
        self.before_backward = self.after_backward = lambda run: None


GATHER = """
layer { name: "g" type: "Python" bottom: "x" bottom: "y" top: "a" top: "b"
  python_param { module: "caffe_metric.layers" layer: "GatherBatchLayer" } }
layer { name: "n" type: "Norm" bottom: "a" top: "u" }
"""
MEMORY = 'layer { name: "l" type: "SupConLoss" bottom: "%s" batch_memory_param { rows: 9 } }'
SAMPLED = (
    'layer { name: "l" type: "MarginSoftmaxLoss" bottom: "%s" '
    "margin_softmax_loss_param { own_update: true sample_rate: 0.5 } }"
)


@pytest.mark.parametrize(
    ("loss", "says"),
    [
        (MEMORY, "layer 'l': batch_memory_param would hold other rows"),
        (SAMPLED, "layer 'l': own_update with sample_rate needs the rows of all ranks"),
    ],
)
def test_what_ranks_would_keep_apart_needs_gather_batch(loss, says):
    with pytest.raises(UserError, match=says):
        Merging(layers(loss % "x"), Net(["l"]), Ranks())
    gathered = Merging(layers(GATHER + loss % "u"), Net(["g", "n", "l"]), Ranks())
    assert gathered.means == []
