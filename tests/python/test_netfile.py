"""One reader of prototxts: encodings, line ends, old nets, mistakes with their line.

What Caffe itself takes is tried on it: it aborts on a byte order mark and passes over any byte in
a comment.
"""

from __future__ import annotations

import codecs

import pytest
from caffe_metric import lint
from caffe_metric.nets import netfile, netschema
from caffe_metric.support import child
from caffe_metric.support.errors import UserError

NET = """# a net
name: "net"
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "unit" type: "Norm" bottom: "x" top: "unit" }
"""
# How the file is written: its bytes, whether Caffe reads them.
WRITTEN = {
    "plain": (NET.encode(), True),
    "a byte order mark": (codecs.BOM_UTF8 + NET.encode(), False),
    "UTF-16": (NET.encode("utf-16"), False),
    "CRLF": (NET.replace("\n", "\r\n").encode(), True),
    "a comment in Latin-1": (NET.replace("a net", "un r\xe9seau").encode("latin-1"), True),
    "a comment in GBK": (NET.replace("a net", "\u7f51\u7edc").encode("gbk"), True),
}


@pytest.mark.parametrize(("data", "for_caffe"), WRITTEN.values(), ids=WRITTEN)
def test_a_net_is_read_as_it_is_written(tmp_path, data, for_caffe):
    path = tmp_path / "net.prototxt"
    path.write_bytes(data)
    net = netfile.read(str(path))
    assert [layer.name for layer in net.layer] == ["x", "unit"]
    marked = [str(found) for found in lint.check(str(path)) if "byte order mark" in found.message]
    assert bool(marked) is not for_caffe


@pytest.mark.parametrize(("data", "for_caffe"), WRITTEN.values(), ids=WRITTEN)
def test_caffe_reads_what_lint_says(tmp_path, data, for_caffe):
    caffe = pytest.importorskip("caffe", reason="pycaffe is not built: ./run build")
    path = tmp_path / "net.prototxt"
    path.write_bytes(data.replace(b'"Norm"', b'"ReLU"'))
    assert child.run(lambda: caffe.Net(str(path), 0) and None).ok is for_caffe


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"layer {\n name: 5 }", r"net.prototxt:2:8 : .*5"),
        (b"layer {\n\n nmae: 'x' }", r"net.prototxt:3:.*nmae"),
        (b"PK\x03\x04\0\0", "net.prototxt: not a text file"),
        (
            b"layers { layer { name: 'x' } }",
            "net.prototxt:1: a net of 2013 .*upgrade_net_proto_text",
        ),
        (b"layers { name: 'x' }\nlayer { name: 'y' }", "net.prototxt:2: has both"),
        (b"base_lr: 0.1\nnet: 'x'", "looks like a solver: name its net"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_line(tmp_path, data, message):
    pytest.importorskip("caffe", reason="without Caffe's schema unknown fields are passed over")
    path = tmp_path / "net.prototxt"
    path.write_bytes(data)
    with pytest.raises(UserError, match=message):
        netfile.read(str(path))


def test_a_net_that_is_not_there():
    with pytest.raises(UserError, match="nowhere.prototxt: No such file"):
        netfile.read("nowhere.prototxt")


def test_fields_that_no_schema_knows_are_passed_over(tmp_path):
    """By all versions of protobuf; lines stay, and what is known is still checked."""
    text = (
        "future: { a: [1, 2] }\nname: 'net',\nlayer {\n  name: 'x'\n  odd: 1, even: -2e-3;\n"
        "  new_param {\n    deep { x: 'a' 'b' }\n  }\n"
        "  triplet_loss_param { what: ON margin: 0.5 }\n}\n"
    )
    known = netschema.without_caffe()
    net = netfile.parse("a", known.net(), text, complete=False)
    assert (net.name, net.layer[0].name, net.layer[0].triplet_loss_param.margin) == (
        "net",
        "x",
        0.5,
    )
    assert netfile.known_fields(text, net).count("\n") == text.count("\n")
    with pytest.raises(UserError, match="a:9:.*oops"):
        netfile.parse("a", known.net(), text.replace("0.5", "oops"), complete=False)
    with pytest.raises(UserError, match="a:1:"):
        netfile.parse("a", known.net(), text.replace("future", "}"), complete=False)
