"""Every preset, by its defaults, knows people that it has not seen better than a softmax does.

The people are drawn (examples/10_faces/draw_people.py): 30 of 10 images to train on, 400 iterations
of 60, as in a small set of faces, and 40 others to verify. Means over two seeds, each with people
of its own; none of them is the one that the presets were fitted on.
"""

from __future__ import annotations

import functools
import importlib.util
import re

import numpy as np
import pytest
from caffe_metric.data import datum
from caffe_metric.data.lmdb_file import write_lmdb
from caffe_metric.evaluation.metrics.similarity import unit_rows
from caffe_metric.evaluation.metrics.verification import roc
from caffe_metric.support import paths
from caffe_metric.training import presets
from caffe_metric.training.trunks import read_trunk
from harness import need

import caffe

pytest.importorskip("cv2", reason="pip install opencv-python-headless")
SCRIPT = paths.tree() / "examples/10_faces/draw_people.py"
if not SCRIPT.is_file():
    pytest.skip("an installed package has no examples", allow_module_level=True)

SEEDS = 1, 2
TRAINED, MEASURED, IMAGES, BATCH, ITERATIONS = 30, 40, 10, 60, 400
TRUNK = """
layer { name: "input" type: "Input" top: "data"
  input_param { shape { dim: 1 dim: 1 dim: 56 dim: 46 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 12 kernel_size: 5 stride: 2 weight_filler { type: "msra" } } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "conv2" type: "Convolution" bottom: "conv1" top: "conv2"
  convolution_param { num_output: 24 kernel_size: 3 stride: 2 weight_filler { type: "msra" } } }
layer { name: "relu2" type: "ReLU" bottom: "conv2" top: "conv2" }
layer { name: "embedding" type: "InnerProduct" bottom: "conv2" top: "embedding"
  inner_product_param { num_output: 48 weight_filler { type: "xavier" } } }
"""


def draw(seed):
    """Images uint8 [people, images, height, width]."""
    spec = importlib.util.spec_from_file_location("draw_people", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    rng = np.random.default_rng(seed)
    people = [module.person(rng) for _ in range(TRAINED + MEASURED)]
    return np.stack([[module.image(who, rng) for _ in range(IMAGES)] for who in people])


@pytest.fixture(scope="module")
def reached(tmp_path_factory):
    """A function: the mean AUC of a preset, or of "pixels"."""
    folder = tmp_path_factory.mktemp("people")
    (folder / "trunk.prototxt").write_text(TRUNK)
    unseen = {}
    for seed in SEEDS:
        images = draw(seed)
        unseen[seed] = images[TRAINED:].reshape(-1, 1, *images.shape[2:])
        records = (
            (f"{k}", datum.encode(images[k // IMAGES, k % IMAGES][None], k // IMAGES))
            for k in range(TRAINED * IMAGES)
        )
        write_lmdb(folder / f"{seed}.lmdb", records)

    @functools.lru_cache(maxsize=None)
    def mean(name):
        found = []
        for seed in SEEDS:
            images = unseen[seed].astype(np.float32)
            if name != "pixels":
                images = embeddings(folder / "all.prototxt", train(folder, name, seed), images)
            found.append(auc(images.reshape(len(images), -1)))
        print(name, np.mean(found).round(4), np.round(found, 4))
        return np.mean(found)

    return mean


def train(folder, name, seed):
    """The net of the last stage, trained."""
    trunk = read_trunk(folder / "trunk.prototxt")
    trunk.picture.update(mean_value=[127.5], scale=1 / 128)
    source = str(folder / f"{seed}.lmdb")
    task = presets.Task(source, TRAINED, TRAINED * IMAGES, ITERATIONS, BATCH, 0.01)
    for solver, _ in presets.write(name, trunk, task, folder / f"{name}_{seed}"):
        text = re.sub("random_seed: .*", f"random_seed: {seed}", solver.read_text())
        solver.write_text(text)
        trained = caffe.get_solver(str(solver))
        trained.solve()
    return trained.net


def embeddings(path, net, images):
    path.write_text(TRUNK.replace("dim: 1 dim: 1 ", f"dim: {len(images)} dim: 1 "))
    deployed = caffe.Net(str(path), caffe.TEST)
    deployed.share_with(net)
    deployed.blobs["data"].data[...] = (images - 127.5) / 128
    deployed.forward()
    return deployed.blobs["embedding"].data.copy()


def auc(embeddings):
    unit, upper = unit_rows(embeddings), np.triu_indices(len(embeddings), 1)
    labels = np.arange(len(embeddings)) // IMAGES
    return roc((unit @ unit.T)[upper], labels[upper[0]] == labels[upper[1]]).auc()


@pytest.mark.slow(first=True)
@pytest.mark.parametrize("name", sorted(set(presets.PRESETS) - {"softmax"}))
def test_each_way_is_ahead_of_softmax(reached, name):
    need("cpp")
    assert reached("pixels") < reached("softmax") < reached(name)
