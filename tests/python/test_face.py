"""`import caffe_metric as cm`: losses on arrays, evaluate, Embedder, gradcheck, and what they need.

Values and gradients are held against the same layers run by Caffe, and, in float64, against central
differences. What needs NumPy only runs in a process where nothing else can be imported.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys

import caffe_metric as cm
import numpy as np
import pytest
from caffe_metric import suite

TYPES = [layer.type for layer in suite.LAYERS if layer.field]


def python(code, *arguments):
    """The standard output of a new interpreter."""
    run = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def batch(rng, dtype=np.float64):
    return rng.normal(size=(12, 5)).astype(dtype), np.arange(12) // 2


def test_the_package_alone_imports_nothing():
    code = (
        "import sys, importlib; before = set(sys.modules); import caffe_metric; "
        "print(sorted(set(sys.modules) - before - {'__future__'}))"
    )
    assert python(code).strip() == "['caffe_metric']"


def test_losses_and_evaluate_need_numpy_only():
    code = """
import sys, json

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in sys.argv[1:]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuse())
import numpy as np
import caffe_metric as cm

rng = np.random.default_rng(0)
x, y = rng.normal(size=(12, 5)), np.arange(12) // 2
found = {"triplet": cm.TripletLoss(mining="ALL", backend="numpy")(x, y)[0]}
found["rank"] = cm.RankHardLoss(neg_num=3)(x, y)[0]
found["report"] = cm.evaluate(x, y)
print(json.dumps(found))
"""
    # All that the package needs anywhere, but for NumPy.
    others = "caffe google yaml lmdb PIL sklearn scipy matplotlib faiss jinja2 cv2 h5py torch onnx"
    found = json.loads(python(code, *others.split()))
    x, y = np.random.default_rng(0).normal(size=(12, 5)), np.arange(12) // 2
    assert found["triplet"] == pytest.approx(cm.TripletLoss(mining="ALL")(x, y)[0])
    assert found["rank"] == pytest.approx(cm.RankHardLoss(neg_num=3)(x, y)[0])
    assert 0 < found["report"]["verification"]["auc"] < 1
    assert found["report"]["clustering"] == {}


@pytest.mark.parametrize("kind", TYPES)
def test_each_layer_of_the_suite_is_there(kind):
    made = getattr(cm, kind)
    assert made is getattr(cm, kind)
    assert kind in dir(cm)
    assert "Parameters" in made.__doc__
    with pytest.raises(ValueError, match=rf"{kind}: unknown parameter 'no_such_name'"):
        made(no_such_name=1)


def test_no_other_name_is_there():
    with pytest.raises(AttributeError, match="'TripletLos'"):
        cm.TripletLos  # noqa: B018


def numeric(function, x, step=1e-5):
    gradient = np.zeros_like(x)
    for place in np.ndindex(*x.shape):
        kept = x[place]
        x[place] = kept + step
        above = function()
        x[place] = kept - step
        gradient[place] = (above - function()) / (2 * step)
        x[place] = kept
    return gradient


SMOOTH = [
    ("TripletLoss", {"losstype": "SOFT", "mining": "ALL"}, 2),
    ("TripletLoss", {"losstype": "SOFT", "mining": "SEMIHARD", "normalization": "NONE"}, 2),
    ("TripletLoss", {"losstype": "SOFT", "distance": "COSINE"}, 3),
    ("TripletLoss", {"losstype": "SOFT", "num_negatives": 2}, 1),
    ("RankHardLoss", {"neg_num": 4, "margin": 9.0, "hard_ratio": 1.0, "rand_ratio": 0.0}, 2),
]


@pytest.mark.parametrize(("kind", "parameters", "count"), SMOOTH)
def test_gradients_are_central_differences_in_double(rng, kind, parameters, count):
    x, labels = batch(rng)
    bottoms = {1: [x], 2: [x, labels], 3: [x, x + rng.normal(size=x.shape), x[::-1].copy()]}[count]
    loss = getattr(cm, kind)(**parameters)
    value, gradient = loss(*bottoms, seed=7)
    assert value > 0
    gradients = gradient if isinstance(gradient, tuple) else (gradient,)
    assert len(gradients) == (3 if count == 3 else 1)
    for array, found in zip(bottoms, gradients):
        expected = numeric(lambda: loss(*bottoms, seed=7)[0], array)
        assert np.abs(expected).max() > 1e-3
        np.testing.assert_allclose(found, expected, atol=1e-7 * np.abs(expected).max() + 1e-9)


def test_norm_and_margin_are_functions_too(rng):
    x, labels = batch(rng)
    factor = rng.normal(size=(12, 5))
    unit, gradient = cm.Norm()(x, top_diff=factor)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1)
    expected = numeric(lambda: (cm.Norm()(x)[0] * factor).sum(), x)
    np.testing.assert_allclose(gradient, expected, atol=1e-8)
    weights = rng.normal(size=(6, 5))
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    layer = cm.MarginInnerProduct(num_output=6, type="DOUBLE")
    factor = rng.normal(size=(12, 6))
    logits, (dx, dw) = layer(x, labels, weights=weights, top_diff=factor)
    assert logits.shape == (12, 6)
    given = weights.copy()
    np.testing.assert_allclose(
        dx, numeric(lambda: (layer(x, labels, weights=weights)[0] * factor).sum(), x), atol=1e-7
    )
    # Rows are scaled to length 1 first, so that what is along them is no change.
    expected = numeric(lambda: (layer(x, labels, weights=weights)[0] * factor).sum(), weights)
    np.testing.assert_allclose(dw, expected, atol=1e-7)
    np.testing.assert_array_equal(weights, given)


def test_the_numbers_are_those_of_caffe(rng):
    harness = pytest.importorskip("harness")
    x, labels = batch(rng, np.float32)
    for kind, parameters in [
        ("TripletLoss", {"mining": "HARDEST", "margin": 0.4}),
        ("RankHardLoss", {"neg_num": 8, "hard_ratio": 1.0, "rand_ratio": 0.0}),
    ]:
        made = harness.run(harness.Spec(kind, parameters), {"x": x, "y": labels})
        expected = made.forward()[0]
        value, gradient = getattr(cm, kind)(**parameters)(x, labels)
        assert value == pytest.approx(float(expected), rel=1e-5)
        harness.assert_close(gradient, made.backward(1.0)["x"], 1e-5)


def test_the_type_of_the_features_is_that_of_the_gradient(rng):
    x, labels = batch(rng)
    loss = cm.TripletLoss(margin=0.2, mining="ALL")
    assert loss(x.astype(np.float32), labels)[1].dtype == np.float32
    assert loss(x.tolist(), labels.tolist())[1].dtype == np.float64
    value, gradient = loss(x.reshape(12, 5, 1), labels)
    assert isinstance(value, float)
    assert gradient.shape == (12, 5, 1)


def test_a_seed_repeats_its_draws_and_others_differ(rng):
    x, labels = rng.normal(size=(40, 3)), np.arange(40) // 8
    loss = cm.TripletLoss(mining="VIOLATING")
    values = [loss(x, labels, seed=seed)[0] for seed in (1, 1, 2, 3)]
    assert values[0] == values[1]
    assert len(set(values)) == 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda x, y: cm.TripletLoss(marign=1),
            "unknown parameter 'marign': did you mean 'margin'",
        ),
        (lambda x, y: cm.TripletLoss(mining="ANY"), "mining: 'ANY' is none of ALL"),
        (lambda x, y: cm.TripletLoss(normalization="HALF"), "normalization is 'HALF'"),
        (lambda x, y: cm.TripletLoss(backend="gpu"), "backend is 'gpu'"),
        (lambda x, y: cm.TripletLoss()(x, y, y, y, y), "has 5 arrays, must have"),
        (lambda x, y: cm.TripletLoss()(x, y[:-1]), "12 rows and 11 labels"),
        (lambda x, y: cm.TripletLoss()(x, y - 1), "the label of row 0 is -1"),
        (lambda x, y: cm.TripletLoss()(x * np.nan, y), "row 0 of the features"),
        (lambda x, y: cm.TripletLoss()(x, y, seed=-1), "seed is -1"),
        (lambda x, y: cm.TripletLoss()([["a"]], y), "no array of numbers"),
        (lambda x, y: cm.TripletLoss()(np.float32(x), y + 2**24 + 1), "is not exact in float32"),
        (lambda x, y: cm.TripletLoss()(x, y, top_diff=[1.0]), "top_diff has shape"),
        (lambda x, y: cm.RankHardLoss(pair_size=5)(x, y), "no multiple of pair_size 5"),
        (lambda x, y: cm.MarginInnerProduct(num_output=6)(x, y), r"must have \[\(6, 5\)\]"),
    ],
)
def test_a_mistake_is_named(rng, call, message):
    with pytest.raises(ValueError, match=message):
        call(*batch(rng))


def test_evaluate_is_a_dict_that_shows_itself(rng):
    labels = np.repeat(["Ann", "Bo", "<Cy>"], 5)
    centres = np.repeat(np.eye(3), 5, axis=0)
    report = cm.evaluate(centres + 0.01 * rng.normal(size=(15, 3)), labels)
    assert report["rows"] == 15
    assert report["verification"]["auc"] == 1
    assert re.search("^AUC +1.0000$", repr(report), re.MULTILINE)
    assert "<tr><td>AUC</td><td>1.0000</td></tr>" in report._repr_html_()
    assert json.loads(json.dumps(report)) == report
    with pytest.raises(ValueError, match="labels"):
        cm.evaluate(np.eye(3), [1, 2])


NET = """
layer { name: "data" type: "Input" top: "data"
  input_param { shape { dim: 1 dim: 2 dim: 3 dim: 3 } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "embedding"
  inner_product_param { num_output: 4 weight_filler { type: "gaussian" std: 1 } } }
"""


@pytest.fixture
def deployed(tmp_path):
    caffe = pytest.importorskip("caffe")
    path = tmp_path / "deploy.prototxt"
    path.write_text(NET)
    net = caffe.Net(str(path), caffe.TEST)
    net.save(str(tmp_path / "deploy.caffemodel"))
    return path, tmp_path / "deploy.caffemodel", net.params["ip"][0].data.copy()


def test_embedder(rng, deployed):
    path, model, weights = deployed
    faces = cm.Embedder(path, model, batch=4)
    images = rng.normal(size=(9, 2, 3, 3)).astype(np.float32)
    found = faces(images)
    np.testing.assert_allclose(found, images.reshape(9, -1) @ weights.T, rtol=1e-4, atol=1e-4)
    assert faces(images[:0]).shape == (0, 4)
    with pytest.raises(ValueError, match=r"must have \(N, 2, 3, 3\)"):
        faces(images[:, :1])


def test_embedder_says_what_is_wrong(deployed, tmp_path):
    from caffe_metric.support.errors import UserError

    path, model, _ = deployed
    with pytest.raises(UserError, match="no such file"):
        cm.Embedder(path, tmp_path / "none.caffemodel")
    with pytest.raises(UserError, match="no blob 'embeding'; it has data, embedding"):
        cm.Embedder(path, model, blob="embeding")
    path.write_text(NET.replace("num_output: 4", "num_output: 5"))
    with pytest.raises(UserError, match="(?s)deploy.prototxt: .*shape"):
        cm.Embedder(path, model)


def test_gradcheck_shows_a_table(deployed):
    findings = cm.gradcheck(str(deployed[0]))
    assert [finding.verdict for finding in findings] == ["ok"] * 3
    assert repr(findings).splitlines()[0].split()[:3] == ["layer", "type", "blob"]
    assert "<th>verdict</th>" in findings._repr_html_()
