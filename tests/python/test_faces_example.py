"""Example 10: the face nets load, learn, deploy and convert; the walk goes from folders to a chip.

Nothing is trained in full here: steps show that every part fits the next.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from caffe_metric import lint
from caffe_metric.data import datum
from caffe_metric.data.lmdb_file import write_lmdb
from caffe_metric.support import paths
from PIL import Image

caffe = pytest.importorskip("caffe", reason="pycaffe is not built: ./run build")

EXAMPLE = paths.tree() / "examples/10_faces"
if not EXAMPLE.is_dir():
    pytest.skip("an installed package has no examples", allow_module_level=True)

NETS = ["sphereface20", "resface28"]
SIZES = {"112x112": (112, 112), "112x96": (112, 96)}
# Convolutions, and the sides of the last blob before the embedding, from the papers' tables.
CONVOLUTIONS = {"sphereface20": 20, "resface28": 27}
LAST = {
    ("sphereface20", "112x112"): (7, 7),
    ("sphereface20", "112x96"): (7, 6),
    ("resface28", "112x112"): (5, 5),
    ("resface28", "112x96"): (5, 4),
}


def test_the_nets_are_what_their_script_writes(tmp_path):
    subprocess.run([sys.executable, EXAMPLE / "make_nets.py", tmp_path], check=True)
    made = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.prototxt"))
    assert made == sorted(
        path.relative_to(EXAMPLE / "nets") for path in (EXAMPLE / "nets").rglob("*.prototxt")
    )
    for path in made:
        assert (tmp_path / path).read_text() == (EXAMPLE / "nets" / path).read_text(), path


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NETS)
def test_deploy_nets_have_the_papers_shapes(name, size):
    net = caffe.Net(str(EXAMPLE / f"nets/{name}/deploy_{size}.prototxt"), caffe.TEST)
    assert net.blobs["data"].data.shape == (1, 3, *SIZES[size])
    assert net.blobs["fc5"].data.shape == (1, 512)
    assert sum(layer.startswith("conv") for layer in net.params) == CONVOLUTIONS[name]
    last = [blob for blob in net.blobs if blob.startswith("res4")][-1]
    assert net.blobs[last].data.shape == (1, 512, *LAST[name, size])


def shrunk(name, folder, people, batch):
    """Writes the training net with few people and images, and a solver of two steps."""
    text = (EXAMPLE / f"nets/{name}/train.prototxt").read_text()
    text = text.replace("num_output: 10575", f"num_output: {people}")
    text = text.replace("batch_size: 128", f"batch_size: {batch}")
    text = text.replace("batch_size: 100", f"batch_size: {batch}")
    (folder / "net.prototxt").write_text(text)
    solver = (EXAMPLE / f"nets/{name}/solver.prototxt").read_text()
    solver = solver.replace(f"examples/10_faces/nets/{name}/train.prototxt", "net.prototxt")
    solver = re.sub("base_lr: .*", "base_lr: 0.001", solver)
    solver = solver.replace("max_iter: 28000", "max_iter: 2")
    (folder / "solver.prototxt").write_text(solver)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), [("sphereface20", "112x96"), ("resface28", "112x112")])
def test_face_nets_train_deploy_and_convert(name, size, tmp_path, monkeypatch, command, rng):
    monkeypatch.chdir(tmp_path)
    people, batch = 3, 2
    images = rng.integers(0, 256, (6, 3, *SIZES[size])).astype(np.uint8)
    for source in ("train", "test"):
        records = [("x", datum.encode(image, row % people)) for row, image in enumerate(images)]
        write_lmdb(f"faces/{source}.lmdb", records)
    shrunk(name, tmp_path, people, batch)
    assert [found for found in lint.check("net.prototxt") if found.severity != "note"] == []
    status, _, err = command("train", "--solver", "solver.prototxt")
    assert (status, err) == (0, "")
    model = f"faces/{name}_iter_2.caffemodel"
    net = caffe.Net("net.prototxt", caffe.TRAIN)
    before = net.params["conv1_1"][0].data.copy()
    net.copy_from(model)
    assert (net.params["conv1_1"][0].data != before).any()
    assert net.params["classes"][1].data == 2  # counted
    pytest.importorskip("onnx", reason="pip install onnx")
    status, out, err = command(
        "deploy", "--net", "net.prototxt", "--weights", model, "--onnx", "-o", "deployed"
    )
    assert (status, err) == (0, "")
    given = json.loads((tmp_path / "deployed/preprocess.json").read_text())
    assert (given["channels"], given["height"], given["width"]) == (3, *SIZES[size])
    assert given["mean_value"] == [127.5] * 3
    assert given["scale"] == 0.0078125
    assert (tmp_path / "deployed/deploy.onnx").stat().st_size > 80e6


@pytest.mark.slow
def test_the_walk(tmp_path, rng):
    """Digits as people, ten of each; eight seen, two not."""
    pytest.importorskip("onnxruntime", reason="pip install onnxruntime")
    pytest.importorskip("cv2", reason="pip install opencv-python-headless")
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    for digit in range(10):
        folder = tmp_path / "people" / f"digit {digit}"
        folder.mkdir(parents=True)
        for row in np.flatnonzero(digits.target == digit)[:10]:
            pixels = (digits.images[row] * 15.9).astype(np.uint8)
            Image.fromarray(pixels).resize((24, 28)).save(folder / f"{row}.png")
    (tmp_path / "people/digit 3/broken.png").write_bytes(b"no picture")
    trunk = (EXAMPLE / "small.prototxt").read_text()
    (tmp_path / "trunk.prototxt").write_text(trunk.replace("dim: 56 dim: 48", "dim: 28 dim: 24"))
    environment = {
        **os.environ,
        "FACES": str(tmp_path / "people"),
        "TRUNK": "trunk.prototxt",
        "PYTHON": sys.executable,
        "ITERATIONS": "20",
        "EVERY": "5",
        "PRESETS": "softmax-then-triplet arcface",
        "OPENBLAS_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [EXAMPLE / "walk.sh"],
        cwd=tmp_path,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=900,
    )
    said = done.stdout
    assert done.returncode == 0, said[-3000:]
    assert "train.lmdb: 80 records of 81 images in 8 classes" in said
    assert "could not be read, and were left out (digit 3/broken.png" in said
    assert "size      24x28, 3 channel(s)" in said
    made = tmp_path / "faces"
    report = json.loads((made / "report/metrics.json").read_text())
    assert "arcface" in json.dumps(report)
    assert (made / "report/roc.png").is_file()
    for preset in ("softmax-then-triplet", "arcface"):
        deployed = made / preset / "deployed"
        parity = json.loads((deployed / "parity.json").read_text())
        assert parity["equal"]
        given = json.loads((deployed / "preprocess.json").read_text())
        assert (given["width"], given["height"], given["mean_value"]) == (24, 28, [127.5] * 3)
    lines = (made / "triplets.txt").read_text().splitlines()
    assert lines
    assert all(len(line.split("\t")) == 3 for line in lines)  # the names hold blanks
    last = said.strip().splitlines()[-1]
    assert last.startswith("greatest difference between them ")
    assert float(last.split()[-1]) < 1e-3
