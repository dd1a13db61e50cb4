"""A model that another fork wrote gives its weights to our layer: Caffe goes by the layer's name.

sphereface holds the parameters of MarginInnerProduct under 147, where stock Caffe, and so a
patched stock tree, has Swish; other forks use 203 or 232. The bytes are made as they write them.
"""

from __future__ import annotations

import numpy as np
import pytest

caffe = pytest.importorskip("caffe", reason="needs pycaffe of ./run build")

NET = """
name: "fork"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "label" type: "Input" top: "label" input_param { shape { dim: 2 } } }
layer { name: "fc" type: "MarginInnerProduct" bottom: "data" bottom: "label" top: "fc"
        margin_inner_product_param { num_output: 5 type: QUADRUPLE persist_iteration: false } }
"""


def varint(number):
    parts = []
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])


def delimited(number, data):
    return varint(number << 3 | 2) + varint(len(data)) + data


def fork_parameters():
    """num_output: 5 type: QUADRUPLE weight_filler { type: "xavier" } base: 1000, as wire bytes."""
    return (
        b"\x08\x05\x10\x03"
        + delimited(3, delimited(1, b"xavier"))
        + b"\x2d"
        + np.float32(1000).tobytes()
    )


@pytest.mark.parametrize("number", [147, 203, 232, 40105])
def test_weights_load_by_layer_name(tmp_path, number):
    from caffe.proto import caffe_pb2

    weights = np.random.default_rng(7).standard_normal((5, 3)).astype(np.float32)
    layer = caffe_pb2.LayerParameter(name="fc", type="MarginInnerProduct")
    blob = layer.blobs.add()
    blob.shape.dim.extend(weights.shape)
    blob.data.extend(weights.ravel())
    data = layer.SerializeToString() + delimited(number, fork_parameters())
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "fork.caffemodel").write_bytes(delimited(100, data))
    caffe.set_mode_cpu()
    net = caffe.Net(str(tmp_path / "net.prototxt"), str(tmp_path / "fork.caffemodel"), caffe.TEST)
    assert np.array_equal(net.params["fc"][0].data, weights)
