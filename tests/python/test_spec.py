"""`caffe_metric.spec` for caffe.NetSpec: each layer of the suite, native and as its Python twin."""

from __future__ import annotations

import pytest

pytest.importorskip("caffe", reason="pycaffe is not built: ./run build")

from caffe_metric import spec, suite
from harness import build, need

import caffe
from caffe import layers as L  # noqa: N812


@pytest.fixture
def net():
    made = caffe.NetSpec()
    made.data = L.Input(shape={"dim": [4, 3]})
    made.label = L.DummyData(shape={"dim": [4]}, data_filler={"type": "constant", "value": 0})
    return made


def text(net):
    return str(net.to_proto())


def test_names_that_caffe_layers_does_not_find(net):
    need("cpp")
    net.unit = spec.Norm(net.data, eps=1e-6)
    net.loss, net.active = spec.RankHardLoss(net.unit, net.label, neg_num=4, ntop=2)
    made = net.to_proto()
    assert made.layer[2].l2_norm_param.eps == pytest.approx(1e-6)
    assert made.layer[3].rank_param.neg_num == 4
    assert list(made.layer[3].top) == ["loss", "active"]
    assert build(text(net)).blobs["loss"].data.shape == ()


def test_enums_and_fields_of_the_layer(net):
    need("cpp")
    net.loss = spec.TripletLoss(
        net.data, net.label, margin=0.2, mining="HARDEST", losstype=2,
        loss_param={"normalization": 1}, loss_weight=0.5, include={"phase": 0},
    )  # fmt: skip
    layer = net.to_proto().layer[2]
    assert (layer.triplet_loss_param.mining, layer.triplet_loss_param.losstype) == (3, 2)
    assert (layer.loss_param.normalization, list(layer.loss_weight)) == (1, [0.5])
    net.logits = spec.MarginInnerProduct(
        net.data, net.label, num_output=3, type="DOUBLE", weight_filler={"type": "xavier"}
    )
    layer = net.to_proto().layer[3]
    assert layer.type == "MarginInnerProduct"
    assert layer.margin_inner_product_param.type == 1
    assert layer.margin_inner_product_param.weight_filler.type == "xavier"


def test_python_twins_run(net):
    net.unit = spec.Norm(net.data, python=True)
    net.a, net.p, net.n = spec.TripletSelect(net.unit, net.label, mining="ALL", ntop=3)
    net.triplet, net.active = spec.TripletLoss(net.a, net.p, net.n, margin=0.3, ntop=2, python=True)
    net.logits = spec.MarginInnerProduct(
        net.unit, net.label, num_output=3, weight_filler={"type": "xavier"}, python=True
    )
    layer = net.to_proto().layer[4]
    assert layer.python_param.param_str == '{"margin": 0.3}'
    assert list(layer.loss_weight) == [1, 0]
    built = build(text(net))
    assert built.blobs["logits"].data.shape == (4, 3)
    assert built.params["logits"][0].data.any()


@pytest.mark.parametrize("row", suite.LAYERS, ids=lambda row: row.type)
def test_each_layer_has_one(net, row):
    assert row.type in dir(spec)
    bottoms = [net.data] * len(row.bottoms[-1])
    with pytest.raises(ValueError, match=f"{row.type}: unknown parameter 'no_such_name'"):
        getattr(spec, row.type)(*bottoms, no_such_name=1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda n: spec.TripletLoss(n.data, marign=1), "did you mean 'margin'"),
        (lambda n: spec.TripletLoss(n.data, mining="ANY"), "TripletLoss: mining: 'ANY' is none of"),
        (lambda n: spec.Norm(n.data, python=True, eps="x"), "Norm: eps: 'x' is not a number"),
        (lambda n: spec.Norm(n.data, n.data), "Norm: has 2 bottoms, must have 1"),
    ],
)
def test_a_mistake_is_named(net, call, message):
    with pytest.raises(ValueError, match=message):
        call(net)


def test_no_other_layer_is_there():
    with pytest.raises(AttributeError, match="'TripletLos'"):
        spec.TripletLos  # noqa: B018
