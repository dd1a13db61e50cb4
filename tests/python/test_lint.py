"""`caffe-metric lint`: each fault is named, with its line, and right nets pass.

Where pycaffe is at hand, a test holds that what lint calls an error makes Caffe abort indeed
(test_bad_input.py has the messages of Caffe itself).
"""

from __future__ import annotations

import subprocess
import sys

import pytest
from caffe_metric import lint
from caffe_metric.support import paths
from caffe_metric.support.errors import UserError

HEAD = """name: "net"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 12 dim: 8 } } }
layer { name: "label" type: "Input" top: "label" input_param { shape { dim: 12 } } }
"""
NORM = 'layer { name: "norm" type: "Norm" bottom: "data" top: "unit" }\n'


@pytest.fixture
def findings(tmp_path):
    def check(text, **options):
        path = tmp_path / "net.prototxt"
        path.write_text(text)
        return [
            found
            for found in lint.check(str(path), **options)
            if "this machine's Caffe lacks" not in found.message
            and "is not there (looked for from" not in found.message
        ]

    return check


def only(found, severity, *words):
    assert len(found) == 1, "\n".join(map(str, found))
    assert found[0].severity == severity
    for word in words:
        assert word in found[0].message
    return found[0]


def rank(parameters, bottoms='bottom: "unit" bottom: "label"', field="rank_param"):
    if "neg_num" not in parameters:
        parameters = "neg_num: 4 " + parameters
    return (
        HEAD
        + NORM
        + f'layer {{ name: "loss" type: "RankHardLoss" {bottoms} top: "loss" '
        + f"{field} {{ {parameters} }} }}\n"
    )


def triplet(parameters, bottoms='bottom: "data" bottom: "label"', rest=""):
    return (
        HEAD
        + f'layer {{ name: "loss" type: "TripletLoss" {bottoms} top: "loss" '
        + f"triplet_loss_param {{ {parameters} }} {rest} }}\n"
    )


def margin(parameters, rest="", filler='weight_filler { type: "xavier" }'):
    return (
        HEAD
        + 'layer { name: "fc" type: "MarginInnerProduct" bottom: "data" bottom: "label" top: "fc" '
        + f"margin_inner_product_param {{ {filler} {parameters} }} {rest} }}\n"
    )


@pytest.mark.parametrize(
    "text",
    [
        rank("neg_num: 4 pair_size: 2 hard_ratio: 0.5 rand_ratio: 0.5 margin: 1"),
        rank("neg_num: 4 pair_size: 3", field="rank_hard_loss_param"),
        triplet("margin: 0.2 losstype: 1 mining: HARDEST"),
        triplet("num_negatives: 2", 'bottom: "data"'),
        triplet("num_negatives: 2", 'bottom: "data"').replace('top: "loss"', ""),
        margin(
            "num_output: 10 type: QUADRUPLE base: 1000 gamma: 0.12 power: 1 lambda_min: 5 "
            "iteration: 0 triplet: true semihard: true",
            "param { lr_mult: 0 decay_mult: 0 }",
        ),
        margin("num_output: 10", "param { } param { lr_mult: 0 decay_mult: 0 }"),
    ],
)
def test_right_nets(findings, text):
    assert findings(text) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (rank("hard_ratio: 1.5"), ["hard_ratio is 1.5", "[0, 1]"]),
        (rank("rand_ratio: -0.1"), ["rand_ratio is -0.1"]),
        (rank("pair_size: 1"), ["pair_size is 1", ">= 2"]),
        (rank("pair_size: 5"), ["12 rows", "pair_size 5", "take 10 or 15"]),
        (rank("pair_size: 20"), ["12 rows", "take 20"]),
        (rank("neg_num: 0"), ["neg_num is 0"]),
        (rank("} rank_hard_loss_param {"), ["two spellings"]),
        (rank("", 'bottom: "unit"'), ["has 1 bottoms", "takes 2"]),
        (triplet("losstype: RATIO margin: 0"), ["margin is 0", "RATIO"]),
        (triplet("distance: LP p: 0"), ["p is 0"]),
        (triplet("num_negatives: 3", 'bottom: "data"'), ["12 rows", "5:", "take 10 or 15"]),
        (triplet("num_negatives: 0", 'bottom: "data"'), ["num_negatives is 0"]),
        (
            triplet("", 'bottom: "data" bottom: "data" bottom: "label"'),
            ["shapes (12, 8) and (12)", "the same"],
        ),
        (triplet("", rest='top: "a" loss_weight: 1 loss_weight: 2'), ["loss_weight 2", "reports"]),
        (triplet("", rest='top: "a" loss_weight: 1'), ["1 loss_weight for 2 tops"]),
        (margin("num_output: 0"), ["num_output is 0"]),
        (margin("num_output: 9 angular_margin: 2"), ["angular_margin is 2"]),
        (margin("num_output: 9 type: DOUBLE cosine_margin: 0.3"), ["need type SINGLE", "DOUBLE"]),
        (margin("num_output: 9 gradient: REFERENCE scale: 2"), ["REFERENCE"]),
        (margin("num_output: 9", "param { } param { }"), ["second param", "lr_mult: 0"]),
        (margin("num_output: 9", "param { } param { lr_mult: 0 } param { }"), ["3 param"]),
        (HEAD + 'layer { name: "x" type: "TripletLos" }', ["'TripletLos'", "'TripletLoss'?"]),
        (
            HEAD + 'layer { name: "x" type: "ReLU" bottom: "dta" top: "x" }',
            ["bottom 'dta'", "did you mean 'data'?"],
        ),
        (
            HEAD + 'layer { name: "x" type: "ReLU" bottom: "y" top: "x" }\n'
            'layer { name: "y" type: "ReLU" bottom: "data" top: "y" }',
            ["bottom 'y'", "layer 'y' makes it only later"],
        ),
        (
            HEAD + 'layer { name: "x" type: "ReLU" bottom: "data" top: "label" }',
            ["top 'label' is made already by layer 'label'"],
        ),
        (
            HEAD + 'layer { name: "x" type: "Norm" bottom: "label" top: "x" }',
            ["shape (12)", "2 axes"],
        ),
        (
            HEAD + 'layer { name: "x" type: "Norm" bottom: "data" top: "x" '
            "l2_norm_param { eps: 0 } }",
            ["eps is 0"],
        ),
    ],
)
def test_errors(findings, text, words):
    if "TripletLos'" in words[0]:
        pytest.importorskip("caffe", reason="the types of a Caffe are known with pycaffe only")
    found = only(findings(text), "error", *words)
    assert found.line == text[: text.rindex("layer {")].count("\n") + 1 or "only later" in words[1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (rank("neg_num: 1"), ["round down to 0"]),
        (
            HEAD + 'layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" '
            "inner_product_param { num_output: 4 } }\n"
            'layer { name: "loss" type: "RankHardLoss" bottom: "ip" bottom: "label" top: "loss" '
            "rank_param { neg_num: 2 } }",
            ["layer 'ip' (InnerProduct)", "Norm"],
        ),
        (triplet("mining: ALL", 'bottom: "data"'), ["mining is ignored"]),
        (triplet("num_negatives: 2"), ["num_negatives is ignored"]),
        (margin("num_output: 9 triplet: true"), ["momentum and weight decay", "lr_mult: 0"]),
        (
            margin("num_output: 9 triplet: true", "param { lr_mult: 0 }"),
            ["weight decay would move"],
        ),
        (margin("num_output: 9", filler=""), ["no weight_filler"]),
        (
            HEAD + 'layer { name: "x" type: "ReLU" bottom: "data" top: "x" '
            "rank_param { neg_num: 2 } }",
            ["rank_param is ignored", "ReLU"],
        ),
    ],
)
def test_warnings(findings, text, words):
    only(findings(text), "warning", *words)


def test_rows_follow_through_layers(findings):
    """Slice, Concat, pooling and the like between the batch and the loss."""
    text = """
layer { name: "data" type: "Input" top: "data"
  input_param { shape { dim: 10 dim: 3 dim: 8 dim: 8 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: "flat" type: "Flatten" bottom: "conv" top: "flat" }
layer { name: "ip" type: "InnerProduct" bottom: "flat" top: "ip"
  inner_product_param { num_output: 6 } }
layer { name: "cut" type: "Slice" bottom: "ip" top: "a" top: "b"
  slice_param { axis: 0 slice_point: 4 } }
layer { name: "loss" type: "TripletLoss" bottom: "b" top: "loss" }
layer { name: "again" type: "Concat" bottom: "a" bottom: "b" top: "all" concat_param { axis: 0 } }
layer { name: "whole" type: "TripletLoss" bottom: "all" top: "whole" }
"""
    found = [finding for finding in findings(text) if finding.severity == "error"]
    assert [finding.layer for finding in found] == ["whole"]
    assert "10 rows" in found[0].message


def python_layer(parameters, weight="loss_weight: 1", kind="RankHardLossLayer"):
    return (
        HEAD
        + NORM
        + 'layer { name: "loss" type: "Python" bottom: "unit" bottom: "label" top: "loss" '
        + f'python_param {{ module: "caffe_metric.layers" layer: "{kind}" '
        + f'param_str: "{parameters}" }} {weight} }}\n'
    )


def test_python_layers(findings):
    assert findings(python_layer("{neg_num: 4, pair_size: 2}")) == []
    assert findings(python_layer("'margin': 0.2", kind="TripletLossLayer")) == []
    only(findings(python_layer("neg_nun: 4")), "error", "neg_nun", "did you mean 'neg_num'?")
    only(findings(python_layer("{neg_num: 4, pair_size: 5}")), "error", "12 rows")
    only(findings(python_layer("neg_num: 2", weight="")), "error", "loss_weight: 1")


def test_phases_are_checked_apart(findings):
    text = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 6 dim: 2 } }
  include { phase: TRAIN } }
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 7 dim: 2 } }
  include { phase: TEST } }
layer { name: "loss" type: "TripletLoss" bottom: "data" top: "loss" }
"""
    only(findings(text), "error", "7 rows")


def test_inputs_of_the_net_itself(findings):
    text = 'input: "x"\ninput_shape { dim: 7 dim: 2 }\n'
    text += 'layer { name: "loss" type: "TripletLoss" bottom: "x" top: "loss" }\n'
    only(findings(text), "error", "7 rows")


def test_image_list(findings, tmp_path):
    """Pairs, label range and order, read from the list."""
    images = tmp_path / "list.txt"
    text = """
layer { name: "data" type: "ImageData" top: "data" top: "label"
  image_data_param { source: "LIST" batch_size: 4 } }
layer { name: "norm" type: "Norm" bottom: "data" top: "unit" }
layer { name: "loss" type: "RankHardLoss" bottom: "unit" bottom: "label" top: "loss"
  rank_param { neg_num: 2 } }
layer { name: "fc" type: "MarginInnerProduct" bottom: "data" bottom: "label" top: "fc"
  margin_inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
""".replace("LIST", str(images))
    images.write_text("a b.png 0\nb.png 0\nc.png 2\nd.png 2\n")
    assert findings(text) == []
    only(findings(text.replace("batch_size: 4", "batch_size: 4 shuffle: true")), "error", "shuffle")
    other = tmp_path / "other.txt"
    other.write_text("a.png 0\nb.png 0\nc.png 2\nd.png 1\n")
    only(findings(text.replace(str(images), str(other))), "error", "images 2 and 3")
    other = tmp_path / "third.txt"
    other.write_text("a.png 0\nb.png 0\nc.png 3\nd.png 3\n")
    only(findings(text.replace(str(images), str(other))), "error", "image 2", "label 3", "0 to 2")
    other = tmp_path / "fourth.txt"
    other.write_text("a.png 0\nb.png 0\nc.png 2\n")
    only(findings(text.replace(str(images), str(other))), "error", "3 images", "second epoch")


def test_lmdb(findings, tmp_path):
    lmdb = pytest.importorskip("lmdb")
    pytest.importorskip("caffe", reason="pycaffe is not built: ./run build")
    from caffe.proto import caffe_pb2

    with lmdb.open(str(tmp_path / "db")) as environment, environment.begin(write=True) as writer:
        for number, label in enumerate([0, 1, 2, 3]):
            datum = caffe_pb2.Datum(channels=1, height=1, width=1, data=b"x", label=label)
            writer.put(f"{number:04}".encode(), datum.SerializeToString())
    text = f"""
layer {{ name: "data" type: "Data" top: "data" top: "label"
  data_param {{ source: "{tmp_path}/db" batch_size: 4 backend: LMDB }} }}
layer {{ name: "loss" type: "TripletLoss" bottom: "data" bottom: "label" top: "loss" }}
"""
    only(findings(text), "warning", "no two of the first 4 images", "--order pk")


def test_output_and_status(command, tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text(rank("neg_num: 4"))
    status, out, err = command("lint", path)
    assert (status, err) == (0, "")
    path.write_text(rank("pair_size: 7"))
    status, out, err = command("lint", path)
    assert status == 1
    assert f"{path}:5: error: layer 'loss': the batch of 12 rows" in out
    assert err.startswith(f"caffe-metric lint: {path}: 1 error(s)")
    assert len(err.splitlines()) == 1
    path.write_text(triplet("mining: ALL", 'bottom: "data"'))
    assert command("lint", path)[0] == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("layer { nme: 'x' }", ["1:", "nme"]),
        ("layer { name: 'x'", ["1:"]),
        ('net: "train.prototxt"\nbase_lr: 0.1\n', ["solver"]),
    ],
)
def test_what_does_not_parse(command, tmp_path, text, words):
    pytest.importorskip("caffe", reason="without pycaffe unknown fields are passed over")
    path = tmp_path / "net.prototxt"
    path.write_text(text)
    status, out, err = command("lint", path)
    assert (status, out) == (1, "")
    assert len(err.splitlines()) == 1
    for word in words:
        assert word in err


def test_an_old_net_is_read_as_caffe_upgrades_it(findings):
    text = """input: "x" input_dim: 2 input_dim: 3 input_dim: 1 input_dim: 1
layers { name: "fc" type: INNER_PRODUCT bottom: "x" top: "fc" blobs_lr: 1 blobs_lr: 2
  inner_product_param { num_output: 4 } }
layers { name: "loss" type: EUCLIDEAN_LOSS bottom: "fc" bottom: "y" top: "loss" }
"""
    found = only(findings(text), "error", "bottom 'y'")
    assert found.line == 4


# What a solver without test_iter trains, what stages choose, and a TEST net that cannot be.
TRAIN_ONLY = """
layer { name: "d" type: "Data" top: "x" top: "y" data_param { source: "a" batch_size: 4 }
  include { phase: TRAIN } }
layer { name: "fc" type: "InnerProduct" bottom: "x" top: "fc"
  inner_product_param { num_output: 2 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "y" top: "loss" }
"""
STAGED = (
    """
layer { name: "t" type: "Data" top: "x" top: "y" data_param { source: "b" batch_size: 4 }
  include { phase: TEST RULE } }
"""
    + TRAIN_ONLY
)


@pytest.mark.parametrize("rule", ["stage: 'on-test'", "min_level: 2", "stage: 'a' not_stage: 'b'"])
def test_nets_that_train(findings, rule):
    assert not findings(TRAIN_ONLY)
    assert not findings(STAGED.replace("RULE", rule))


def test_a_stage_is_looked_at(findings):
    text = STAGED.replace("RULE", "stage: 'on-test'").replace(
        'top: "x" top: "y" data_param { source: "b"', 'top: "x" data_param { source: "b"'
    )
    found = only(findings(text), "error", "TEST on-test: bottom 'y'")
    assert found.layer == "loss"


@pytest.mark.parametrize(
    "layer",
    ['type: "LabelSpecificAdd"', 'type: "Normalize"', 'type: "BN"', 'type: "InnerDistance"'],
)
def test_layers_of_other_forks_point_to_modernize(findings, layer):
    text = HEAD + f'layer {{ name: "x" {layer} bottom: "data" top: "x" }}'
    only(findings(text), "error", "`caffe-metric modernize` reads this net")


@pytest.mark.parametrize(
    "field",
    [
        "inner_product_param { normalize: true }",
        "rankhard_loss_param { neg_num: 2 }",
        "image_data_param { pair_size: 2 }",
        "scale_param { min_value: 1 }",
    ],
)
def test_fields_of_other_forks_point_to_modernize(findings, field):
    text = HEAD + f'layer {{ name: "x" type: "InnerProduct" bottom: "data" top: "x"\n {field} }}'
    with pytest.raises(UserError, match=r"prototxt:5: layer 'x': field .*`caffe-metric modernize"):
        findings(text)


def test_line_numbers():
    text = '# layer {\nname: "layer {"\nlayer { a { } }\n\nlayer\n{ b: "}" } layer { }\n'
    assert lint.layer_lines(text) == [3, 5, 6]


def test_without_any_caffe(tmp_path):
    """In a process that cannot import caffe, our layers are checked all the same."""
    path = tmp_path / "net.prototxt"
    path.write_text(rank("pair_size: 7"))
    script = (
        "import sys; sys.modules['caffe'] = None; from caffe_metric import commands; "
        f"sys.exit(commands.main(['lint', {str(path)!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "pair_size 7" in done.stdout
    assert "no pycaffe here" in done.stdout


def test_the_projects_own_nets():
    """Every net of the examples passes, but for the one that is wrong on purpose."""
    examples = paths.tree() / "examples"
    if not examples.is_dir():
        pytest.skip("an installed package has no examples")
    nets = [path for path in examples.rglob("*.prototxt") if "solver" not in path.name]
    nets = [path for path in nets if path.parent.name != "11_losses"]  # losses alone, no nets
    assert nets
    for path in nets:
        errors = [found for found in lint.check(str(path)) if found.severity == "error"]
        assert not errors, f"{path}: {errors}"


def test_caffe_itself(command, tmp_path):
    """--build: what only Caffe knows."""
    pytest.importorskip("caffe", reason="pycaffe is not built: ./run build")
    path = tmp_path / "net.prototxt"
    path.write_text(
        HEAD + 'layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" '
        "inner_product_param { num_output: 4 axis: 7 } }\n"
    )
    assert command("lint", path)[0] == 0
    status, out, _ = command("lint", path, "--build")
    assert status == 1
    assert "TRAIN: Caffe itself says: Check failed" in out


FROZEN = "param { lr_mult: 0 } param { lr_mult: 0 }"


def over_a_trunk(trunk, parameters, rest):
    """A MarginInnerProduct over an InnerProduct with the given params."""
    text = margin(parameters, rest).replace('bottom: "data"', 'bottom: "trunk"')
    layer = (
        f'layer {{ name: "trunk" type: "InnerProduct" bottom: "data" top: "trunk" {trunk} '
        "inner_product_param { num_output: 4 } }\n"
    )
    return text.replace('layer { name: "fc"', layer + 'layer { name: "fc"')


def test_one_param_keeps_the_backward_pass_on(findings):
    frozen = "param { lr_mult: 0 decay_mult: 0 }"
    text = over_a_trunk(FROZEN, "num_output: 4", frozen)
    only(findings(text), "warning", "iteration count has Caffe's default of 1", "second param")
    assert findings(over_a_trunk(FROZEN, "num_output: 4", 2 * frozen)) == []
    assert findings(over_a_trunk(FROZEN, "num_output: 4 persist_iteration: false", frozen)) == []


def test_triplet_needs_a_backward_pass(findings):
    """Over a frozen trunk Caffe runs none, where the prototxt gives both blobs lr_mult 0."""
    frozen = "param { lr_mult: 0 decay_mult: 0 }"
    text = over_a_trunk(FROZEN, "num_output: 4 triplet: true", 2 * frozen)
    only(findings(text), "warning", "it copies nothing", "runs no backward pass")
    assert findings("force_backward: true\n" + text) == []
    for trunk, params in [("", 2 * frozen), (FROZEN, frozen), ("param { lr_mult: 0 }", 2 * frozen)]:
        assert findings(over_a_trunk(trunk, "num_output: 4 triplet: true", params)) == []
    off = "num_output: 4 triplet: true persist_iteration: false"
    only(findings(over_a_trunk(FROZEN, off, frozen)), "warning", "it copies nothing")


def test_a_trunk_without_bias_is_frozen_by_one_param(findings):
    pytest.importorskip("caffe", reason="without pycaffe bias_term is not read")
    frozen = "param { lr_mult: 0 decay_mult: 0 }"
    text = over_a_trunk("param { lr_mult: 0 }", "num_output: 4 triplet: true", 2 * frozen)
    text = text.replace("num_output: 4 }", "num_output: 4 bias_term: false }")
    only(findings(text), "warning", "it copies nothing")


def test_caffe_runs_backward_where_lint_says(tmp_path):
    """The oracle of the two tests above: Caffe's own nets, by what their weights get."""
    caffe = pytest.importorskip("caffe", reason="pycaffe is not built: ./run build")
    if "MarginInnerProduct" not in caffe.layer_type_list():
        pytest.skip("this Caffe is not patched")
    frozen = "param { lr_mult: 0 decay_mult: 0 }"
    loss = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }'
    for params, copied in [(frozen, True), (2 * frozen, False)]:
        path = tmp_path / "net.prototxt"
        path.write_text(over_a_trunk(FROZEN, "num_output: 1 triplet: true", params) + loss)
        net = caffe.Net(str(path), caffe.TRAIN)
        net.blobs["data"].data[...] = 1
        net.params["trunk"][0].data[...] = 1
        net.params["fc"][0].data[...] = [[1, 0, 0, 0]]
        moved = False
        for _ in range(20):  # a class is copied with probability a half
            net.forward()
            net.backward()
            moved |= abs(net.params["fc"][0].data[0, 1] - 0.5) < 1e-6
        assert moved == copied


@pytest.mark.parametrize("more", ["margin_in_test: true", ""])
def test_lambda_of_a_test_net_stays(findings, more):
    text = margin(f"num_output: 4 base: 100 gamma: 0.1 {more} persist_iteration: false")
    if not more:
        text = text.replace('top: "fc"', 'top: "fc" top: "lambda"')
    only(findings(text), "warning", "lambda of a TEST net stays", "iteration 0")
    assert findings(text.replace("persist_iteration: false", "")) == []
    assert findings(text.replace(more or 'top: "lambda"', "")) == []


def test_labels_that_are_one_float(findings, tmp_path):
    images = tmp_path / "list.txt"
    images.write_text(f"a.png 0\nb.png 0\nc.png {2**24}\nd.png {2**24}\n")
    text = f"""
layer {{ name: "data" type: "ImageData" top: "data" top: "label"
  image_data_param {{ source: "{images}" batch_size: 4 }} }}
layer {{ name: "loss" type: "TripletLoss" bottom: "data" bottom: "label" top: "loss" }}
"""
    only(findings(text), "error", "image 2", "label 16777216", "exact below 16777216 only")
