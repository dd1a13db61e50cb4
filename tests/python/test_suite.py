"""Walks the table of the layers: whatever a layer has to have, each row has."""

from __future__ import annotations

import importlib
import re

import pytest
from caffe_metric import suite
from caffe_metric.lint import ours
from caffe_metric.nets import roles, schema
from caffe_metric.support import paths

ROWS = pytest.mark.parametrize("row", suite.LAYERS, ids=lambda row: row.type)
NATIVE = pytest.mark.parametrize("row", suite.NATIVE, ids=lambda row: row.type)
OWN = [row for row in suite.LAYERS if row.field]
OWN_MESSAGE = pytest.mark.parametrize("row", OWN, ids=lambda row: row.type)


@NATIVE
def test_a_layer_has_its_sources_and_gtests(row):
    tree = paths.tree()
    for name in (
        f"include/caffe/layers/{row.stem}_layer.hpp",
        f"src/caffe/layers/{row.stem}_layer.cpp",
        f"src/caffe/layers/{row.stem}_layer.cu",
    ):
        assert f"{row.type}Layer" in (tree / name).read_text(encoding="utf-8"), name
    for rule in row.rules:
        assert (tree / "include" / "caffe_metric" / f"{rule}.hpp").is_file()
    gtests = [path.read_text(encoding="utf-8") for path in (tree / "tests" / "cpp").glob("*.cpp")]
    assert any(f"{row.type}Layer" in text and "GradientChecker" in text for text in gtests)


def test_every_layer_file_belongs_to_a_row():
    folder = paths.tree() / "src" / "caffe" / "layers"
    text = "".join(path.read_text(encoding="utf-8") for path in folder.glob("*_layer.cpp"))
    registered = re.findall(r"REGISTER_LAYER_CLASS\((\w+)\)", text)
    assert sorted(registered) == sorted(row.type for row in suite.NATIVE)


@OWN_MESSAGE
def test_a_layer_has_its_message_and_field(row):
    fields = {field.name: field.type for field in schema.load().layer_fields}
    assert {fields[name] for name in (row.field, *row.older_fields)} == {row.message}
    assert {fields[name] for name in row.messages} == set(row.messages.values())
    known = [field.name for field in schema.of_layer(row).fields]
    assert len(set(known)) == len(known)
    assert set(row.example) <= set(known)


def test_every_message_belongs_to_a_row():
    fields = {field.name for field in schema.load().layer_fields}
    known = {name for row in OWN for name in (*row.messages, *row.older_fields)}
    assert known == fields


@OWN_MESSAGE
def test_lint_knows_a_layer(row):
    assert row.type in ours.RULES


@ROWS
def test_a_layer_has_its_python_twin(row):
    pytest.importorskip("caffe", reason="pycaffe is not built: ./run build")
    layers = importlib.import_module("caffe_metric.layers")
    twin = getattr(layers, row.python_class)
    assert row.python_class in layers.__all__
    assert twin.__doc__.strip()


@OWN_MESSAGE
def test_the_python_twin_reads_the_same_message(row):
    pytest.importorskip("caffe", reason="pycaffe is not built: ./run build")
    layers = importlib.import_module("caffe_metric.layers")
    assert row.message == getattr(layers, row.python_class).MESSAGE


@OWN_MESSAGE
def test_the_gradient_checks_and_the_fuzz_know_a_layer(row):
    pytest.importorskip("caffe", reason="pycaffe is not built: ./run build")
    assert row.type in importlib.import_module("cases").MAKERS
    assert row.type in importlib.import_module("test_fuzz").MAKERS


@NATIVE
def test_a_layer_has_a_page(row):
    folder = paths.tree() / "docs" / "reference"
    if not folder.is_dir():
        pytest.skip("an installed package has no docs")
    assert (folder / f"{row.stem}.md").is_file()


def test_a_python_layer_is_found_by_its_twin():
    from caffe_metric.nets import netschema

    layer = netschema.load().net().layer.add(type="Python")
    layer.python_param.module = "caffe_metric.layers"
    for row in suite.LAYERS:
        layer.python_param.layer = row.python_class
        assert roles.row_of(layer) is row


@pytest.mark.parametrize(
    ("kind", "count", "carries"),
    [
        ("TripletLoss", 1, {}),
        ("TripletLoss", 2, {1: "label"}),
        ("TripletLoss", 3, {}),
        ("TripletLoss", 4, {3: "weight"}),
        ("RankHardLoss", 2, {1: "label"}),
        ("Norm", 1, {}),
        ("Norm", 2, {}),
    ],
)
def test_bottoms_by_layout(kind, count, carries):
    from caffe_metric.nets import netschema

    layer = netschema.load().net().layer.add(type=kind, bottom=list("abcd")[:count])
    assert roles.bottom_roles(layer) == carries


def test_names_of_files():
    stems = {row.type: row.stem for row in suite.LAYERS}
    assert stems["MarginInnerProduct"] == "margin_inner_product"
    assert stems["RankHardLoss"] == "rank_hard_loss"
