"""What the Python layers do beyond their arithmetic, and their equality with the C++ layers.

The values and gradients of both are held against oracles elsewhere (ENGINES in harness.py). Here:
the same rows for the same key, by C++, _core and NumPy; keys that follow random_seed; errors that
can be read; the state of MarginInnerProduct; training by a solver file, with Python layers only.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tolerances
from equal_lengths import zip_equal

pytest.importorskip("caffe", reason="pycaffe is not built: ./run build")

from caffe.proto import caffe_pb2
from caffe_metric import suite
from caffe_metric.nets import param_str
from caffe_metric.rules import backend
from caffe_metric.support.errors import UserError
from caffe_metric.training.process import caffe_tool
from cases import every_case
from google.protobuf import text_format
from harness import Spec, assert_close, build, inputs, need, run

import caffe

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
BACKENDS = ["core", "numpy"]
CPP = list(every_case("cpp"))


def core_is_there():
    try:
        backend.load("core")
    except ImportError:
        return False
    return True


def need_backend(name):
    if name == "core" and not core_is_there():
        pytest.skip("the extension is not built")


def key_of_seed(seed):
    """The key that a C++ layer draws after set_random_seed: two numbers of a Mersenne twister."""
    high, low = np.random.RandomState(seed).randint(0, 2**32, 2, dtype=np.uint32)
    return int(high) << 32 | int(low)


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize(
    ("spec", "bottoms", "weights"), [case[1:] for case in CPP], ids=[case[0] for case in CPP]
)
def test_parity_with_cpp(spec, bottoms, weights, name):
    """Tops, gradients, weights and their gradients, with the draws of one key."""
    need("cpp")
    need_backend(name)
    parameters = {**spec.parameters, "backend": name}
    results = []
    for one in (spec, replace(spec, engine="python", parameters=parameters)):
        made = run(one, bottoms, weights)
        if one.engine == "python":
            made.layer.key_source = lambda: key_of_seed(3)
        tops = made.forward(seed=3)
        rng = np.random.default_rng(1)
        gradients = made.backward(*(rng.normal(size=top.shape) for top in tops))
        blobs = [array.copy() for blob in made.blobs for array in (blob.data, blob.diff)]
        results.append([*tops, *gradients.values(), *blobs])
    for theirs, ours in zip_equal(*results):
        assert_close(ours, theirs, tolerances.PARITY, floor=0.1)


@pytest.mark.parametrize("name", BACKENDS)
def test_parity_of_a_large_batch(name):
    """Enough draws that a wrong stream or tie rule cannot pass by chance."""
    need("cpp")
    need_backend(name)
    rng = np.random.default_rng(5)
    x = rng.normal(size=(120, 33)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    labels = np.arange(120) // 2 % 13
    rank = {"neg_num": 7, "hard_ratio": 0.6, "rand_ratio": 0.4, "margin": 0.7}
    for kind, parameters in [
        ("TripletLoss", {"mining": "SEMIHARD", "margin": 0.3}),
        ("TripletLoss", {"mining": "VIOLATING", "margin": 0.1}),
        ("RankHardLoss", rank),
    ]:
        cpp = run(Spec(kind, parameters), {"x": x, "y": labels})
        python = run(
            Spec(kind, {**parameters, "backend": name}, 1, "python"), {"x": x, "y": labels}
        )
        for seed in range(5):
            python.layer.key_source = lambda seed=seed: key_of_seed(seed)
            assert_close(python.forward(seed)[0], cpp.forward(seed)[0], tolerances.PARITY)
            theirs, ours = cpp.backward(1.0)["x"], python.backward(1.0)["x"]
            assert_close(ours, theirs, tolerances.PARITY)


def mined(**more):
    x = np.random.default_rng(0).normal(size=(40, 6))
    spec = Spec("TripletLoss", {"mining": "VIOLATING", "margin": 2.0, **more}, 1, "python")
    return run(spec, {"x": x, "y": np.arange(40) // 4})


def test_random_seed_governs_the_draws():
    made = mined()
    losses = [float(made.forward(seed)[0]) for seed in (1, 2, 1, 2)]
    assert losses[:2] == losses[2:]
    assert losses[0] != losses[1]


def test_each_forward_draws_a_new_key():
    made = mined()
    first = float(made.forward(1)[0])
    made.net.forward()
    assert float(made.net.blobs["top0"].data) != first


def test_keys_have_48_bits_and_differ():
    caffe.set_random_seed(1)
    source = mined().layer.key_source
    keys = np.array([source() for _ in range(2000)])
    assert len(set(keys)) == 2000
    assert keys.min() >= 0
    assert 2**47 < keys.max() < 2**48
    ones = [np.mean(keys >> bit & 1) for bit in range(48)]
    assert np.abs(np.array(ones) - 0.5).max() < tolerances.DRAWS


def test_a_mining_without_draws_leaves_the_generator_alone():
    made = mined(mining="HARDEST")
    made.forward(1)
    after = mined().layer.key_source()
    caffe.set_random_seed(1)
    assert mined().layer.key_source() == after


BAD = [
    ("TripletLoss", {"margn": 1}, "unknown parameter 'margn': did you mean 'margin'"),
    ("TripletLoss", {"losstype": "RATIO", "margin": 0}, "margin is 0, must be > 0"),
    ("TripletLoss", {"normalization": "SUM"}, "normalization is 'SUM', must be one of FULL"),
    ("TripletLoss", {"backend": "gpu"}, "backend is 'gpu', must be one of core, numpy"),
    ("RankHardLoss", {"hard_ratio": 1.5}, r"hard_ratio is 1.5, must be in \[0, 1\]"),
    ("MarginInnerProduct", {}, "num_output is None, must be >= 1"),
    ("MarginInnerProduct", {"num_output": 3, "axis": 5}, "axis is 5, the features have shape"),
    ("MarginInnerProduct", {"num_output": 3, "scale": 0}, "scale is 0, must be > 0"),
    (
        "MarginInnerProduct",
        {"num_output": 3, "type": "DOUBLE", "cosine_margin": 0.1},
        "angular_margin and cosine_margin need type SINGLE, it is DOUBLE",
    ),
    ("Norm", {"eps": 0}, "eps is 0, must be > 0"),
]


def layer_text(kind, parameters, tops=1):
    bottoms = 1 if kind == "Norm" else 2
    text = inputs(dict(zip("xy", [np.zeros((4, 3)), np.zeros(4)][:bottoms])))
    text += 'layer { name: "checked" type: "Python" '
    text += " ".join(f'bottom: "{name}"' for name in "xy"[:bottoms])
    text += "".join(f' top: "t{i}"' for i in range(tops))
    text += ' python_param { module: "caffe_metric.layers" '
    return text + f'layer: "{kind}Layer" param_str: "{parameters}" }} }}'


@pytest.mark.parametrize(("kind", "parameters", "message"), BAD)
def test_errors_are_printed_and_raised(capfd, kind, parameters, message):
    text = "{" + ", ".join(f"{key}: {value}" for key, value in parameters.items()) + "}"
    with pytest.raises(ValueError, match=f"{kind}Layer: {message}"):
        build(layer_text(kind, text))
    assert f"{kind}Layer: " in capfd.readouterr().err


def test_a_layer_is_named_as_its_parameter_says():
    with pytest.raises(ValueError, match="NormLayer 'unit': eps is 0"):
        build(layer_text("Norm", "{name: unit, eps: 0}"))


def test_too_many_tops():
    with pytest.raises(ValueError, match="has 3 tops, must have 1 to 2"):
        build(layer_text("RankHardLoss", "", 3))


@pytest.mark.parametrize("kind", ["TripletLoss", "RankHardLoss"])
def test_a_further_top_has_no_loss_weight(kind):
    text = layer_text(kind, "", 2).replace(
        'bottom: "x"', 'loss_weight: 1 loss_weight: 2 bottom: "x"'
    )
    made = build(text)
    with pytest.raises(ValueError, match="top 1 only reports, its loss_weight must be 0"):
        made.forward()


@pytest.mark.parametrize(
    ("filler", "message"),
    [
        ("xavier", "weight_filler is 'xavier', must be a mapping"),
        ("{typ: xavier}", "unknown parameter 'typ': did you mean 'type'"),
        ("{type: xavier, std: wide}", "weight_filler: .*std"),
    ],
)
def test_bad_fillers(filler, message):
    with pytest.raises(ValueError, match=message):
        build(layer_text("MarginInnerProduct", f"{{num_output: 3, weight_filler: {filler}}}"))


def margin_net(parameters, seed=1):
    caffe.set_random_seed(seed)
    return build(layer_text("MarginInnerProduct", f"{{num_output: 5, {parameters}}}", 2))


def test_weights_are_filled_as_caffe_fills_them():
    filler = "weight_filler: {type: gaussian, std: 2.5}"
    weights = margin_net(filler).params["checked"][0].data
    caffe.set_random_seed(1)
    product = build(
        inputs({"x": np.zeros((4, 3))}) + 'layer { name: "ip" type: "InnerProduct" bottom: "x" '
        'top: "t" inner_product_param { num_output: 5 bias_term: false '
        'weight_filler { type: "gaussian" std: 2.5 } } }'
    )
    assert np.array_equal(weights, product.params["ip"][0].data)
    constant = margin_net("weight_filler: {type: constant, value: 0.5}").params["checked"][0].data
    assert (constant == 0.5).all()


def test_t_counts_persists_and_is_shared_with_test():
    made = margin_net("base: 100, gamma: 1, power: 1, iteration: 2, weight_filler: {type: xavier}")
    count = made.params["checked"][1]
    assert count.data.tolist() == [2]
    for t in (3, 4):
        made.forward()
        assert count.data.tolist() == [t]
        assert float(made.blobs["t1"].data) == pytest.approx(100 / (1 + t))


def test_a_loaded_t_wins(tmp_path):
    parameters = "base: 100, gamma: 1, iteration: 2, weight_filler: {type: xavier}"
    made = margin_net(parameters)
    for _ in range(7):
        made.forward()
    made.save(str(tmp_path / "w.caffemodel"))
    again = margin_net(parameters)
    again.copy_from(str(tmp_path / "w.caffemodel"))
    again.forward()
    assert again.params["checked"][1].data.tolist() == [10]


def test_t_survives_an_update_that_the_solver_must_not_make():
    """lr_mult cannot be set from Python: without it in the prototxt the count still goes on."""
    made = margin_net("weight_filler: {type: xavier}")
    made.forward()
    made.params["checked"][1].data[...] = -17  # a solver with weight decay, say
    made.forward()
    assert made.params["checked"][1].data.tolist() == [2]


def test_one_blob_without_persistence():
    made = margin_net("persist_iteration: false, weight_filler: {type: xavier}")
    assert len(made.params["checked"]) == 1
    made.forward()


def test_a_log_line_says_where_the_rules_are_computed(capfd):
    program = "from test_layers_python import *; build(layer_text('Norm', '{backend: numpy}'))"
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = {**os.environ, "GLOG_minloglevel": "0", "PYTHONPATH": path}
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment
    )
    assert "NormLayer: row rules by NumPy" in result.stderr


SOLVER = """
net: "{net}" base_lr: 0.01 momentum: 0.9 lr_policy: "fixed" max_iter: 60 display: 1
random_seed: 3 solver_mode: CPU snapshot_prefix: "{folder}/s" snapshot_after_train: true
"""

TRAINED = """
layer {{ name: "data" type: "Python" top: "data" top: "label"
  param {{ lr_mult: 0 decay_mult: 0 }} python_param {{
  module: "caffe_metric.layers" layer: "IdentityDataLayer"
  param_str: "{{source: {source}, identities: 4, images: 6, scale: 0.01, mean_value: 100}}" }} }}
layer {{ name: "features" type: "InnerProduct" bottom: "data" top: "features"
  inner_product_param {{ num_output: 8 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "unit" type: "Python" bottom: "features" top: "unit"
  python_param {{ module: "caffe_metric.layers" layer: "NormLayer" }} }}
"""

LOSSES = {
    "triplet": 'layer { name: "loss" type: "Python" bottom: "unit" bottom: "label" top: "loss" '
    'loss_weight: 1 python_param { module: "caffe_metric.layers" layer: "TripletLossLayer" '
    'param_str: "{mining: VIOLATING, margin: 0.3, normalization: FULL}" } }',
    "rank": 'layer { name: "loss" type: "Python" bottom: "unit" bottom: "label" top: "loss" '
    'loss_weight: 1 python_param { module: "caffe_metric.layers" layer: "RankHardLossLayer" '
    'param_str: "{neg_num: 4}" } }',
    "margin": 'layer { name: "logits" type: "Python" bottom: "features" bottom: "label" '
    'top: "logits" param { } param { lr_mult: 0 decay_mult: 0 } '
    'python_param { module: "caffe_metric.layers" layer: "MarginInnerProductLayer" '
    'param_str: "{num_output: 6, type: DOUBLE, base: 5, weight_filler: {type: xavier}}" } } '
    'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "logits" bottom: "label" top: "loss" }',
}


def pictures(folder):
    from PIL import Image

    rng = np.random.default_rng(2)
    lines = []
    for identity in range(6):
        prototype = rng.integers(40, 160, size=(8, 8, 3))
        for number in range(8):
            image = np.clip(prototype + rng.normal(0, 40, (8, 8, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(image).save(folder / f"{identity}_{number}.png")
            lines.append(f"{identity}_{number}.png {identity}\n")
    (folder / "list.txt").write_text("".join(lines))
    return folder / "list.txt"


def caffe_train(folder, net):
    """The `caffe` tool that belongs to this pycaffe, with this interpreter's packages."""
    (folder / "net.prototxt").write_text(net)
    (folder / "solver.prototxt").write_text(
        SOLVER.format(net=folder / "net.prototxt", folder=folder)
    )
    tree = Path(caffe.__file__).resolve().parents[2]
    tool = tree / "build" / "tools" / "caffe"
    try:
        tool = tool if tool.exists() else caffe_tool()
    except UserError as error:
        pytest.skip(str(error))
    environment = {**os.environ, "GLOG_logtostderr": "1", "GLOG_minloglevel": "0"}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    return subprocess.run(
        [tool, "train", f"--solver={folder / 'solver.prototxt'}"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.slow
def test_caffe_train_with_python_layers_only(tmp_path, loss):
    """No layer of ours in C++ takes part: the net has stock types only."""
    net = TRAINED.format(source=pictures(tmp_path)) + LOSSES[loss]
    parsed = text_format.Parse(net, caffe_pb2.NetParameter())
    assert {layer.type for layer in parsed.layer} <= {"Python", "InnerProduct", "SoftmaxWithLoss"}
    result = caffe_train(tmp_path, net)
    assert result.returncode == 0, result.stderr[-2000:]
    lines = [line for line in result.stderr.splitlines() if "output #0: loss = " in line]
    losses = [float(line.partition("loss = ")[2].split()[0]) for line in lines]
    assert len(losses) == 60
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:10])


def test_caffe_train_shows_the_error(tmp_path):
    net = TRAINED.format(source=pictures(tmp_path)) + LOSSES["rank"].replace("neg_num", "negnum")
    result = caffe_train(tmp_path, net)
    assert result.returncode != 0
    assert "RankHardLossLayer: unknown parameter 'negnum': did you mean 'neg_num'" in result.stderr


def make_nets():
    path = EXAMPLES / "04_python_layers" / "make_nets.py"
    spec = importlib.util.spec_from_file_location("make_nets", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(not EXAMPLES.is_dir(), reason="an installed package has none")
@pytest.mark.parametrize("name", ["triplet", "rank_hard", "margin"])
def test_the_examples_are_the_demos_nets_with_python_layers(name):
    made = make_nets()
    source = EXAMPLES / made.FOLDERS[name]
    net = (EXAMPLES / "04_python_layers" / f"{name}.prototxt").read_text()
    assert net == made.python_net((source / "net.prototxt").read_text()), "run make_nets.py"
    solver = (EXAMPLES / "04_python_layers" / f"{name}_solver.prototxt").read_text()
    original = (source / "solver.prototxt").read_text()
    assert solver == made.python_solver(original, name), "run make_nets.py"
    parsed = text_format.Parse(net, caffe_pb2.NetParameter())
    assert not {layer.type for layer in parsed.layer} & {row.type for row in suite.LAYERS}
    assert "Python" in {layer.type for layer in parsed.layer}


def test_nested_messages_become_yaml():
    text = 'layer {\n  name: "a"\n  type: "MarginInnerProduct"\n  top: "z"\n'
    text += '  margin_inner_product_param { num_output: 3\n    weight_filler { type: "gaussian" '
    text += "std: 0.5 } triplet: true }\n}\n"
    net = text_format.Parse(make_nets().python_layer(text), caffe_pb2.NetParameter())
    layer = net.layer[0]
    assert (layer.type, layer.python_param.layer) == ("Python", "MarginInnerProductLayer")
    assert param_str.parse(layer.python_param.param_str) == {
        "num_output": 3,
        "weight_filler": {"type": "gaussian", "std": 0.5},
        "triplet": True,
    }
    assert [param.lr_mult for param in layer.param] == [1, 0]
