"""A tree that has already what we would bring is reported, with file and line, and left alone.

The trees follow published forks: sphereface (MarginInnerProduct under 147), trees with triplet
losses of their own, trees with norm_param (no clash: ours is l2_norm_param), and taken numbers.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from caffe_metric import patch
from caffe_metric.support.errors import UserError
from caffe_trees import (
    MARGIN,
    PROTO,
    STOCK,
    layer_header,
    layer_source,
    line_with,
    make_tree,
    snapshot,
    with_field,
)

SPHEREFACE = with_field(
    "optional MarginInnerProductParameter margin_inner_product_param = 147;", MARGIN
)
TRIPLET = "message TripletLossParameter {\n  optional float alpha = 1 [default = 0.2];\n}\n"


def clashes_of(root, **options):
    """The clashes of a patch that has to fail, and to change nothing."""
    before = snapshot(root)
    with pytest.raises(patch.ClashError) as caught:
        patch.apply(root, **options)
    assert snapshot(root) == before
    return caught.value.clashes


def places(clashes):
    return {(clash.path, clash.line) for clash in clashes}


@pytest.mark.parametrize(
    ("proto", "lines"),
    [
        (SPHEREFACE, ["margin_inner_product_param = 147", "message MarginInnerProductParameter"]),
        (
            with_field("optional TripletLossParameter triplet_param=232 ;", TRIPLET),
            ["message Triplet"],
        ),
        (with_field("optional ReLUParameter rank_param = 203;"), ["rank_param = 203"]),
        (with_field("optional ReLUParameter rank_param = 40103;"), ["rank_param = 40103"]),
        (with_field("repeated int32 l2_norm_param = 9 ;"), ["l2_norm_param"]),
        (with_field("optional int32 mine = 40104;"), ["mine = 40104"]),
        (with_field("optional int32 mine = 0x9CA8;"), ["mine = 0x9CA8"]),
        (with_field("reserved 5, 40000 to 40101;"), ["reserved 5"]),
        (with_field("reserved 'rank_param', \"other\";"), ["reserved 'rank"]),
        (with_field("extensions 1000 to max;"), ["extensions 1000"]),
        (
            with_field(
                "extensions 40105;", "extend LayerParameter { optional int32 e = 40105; }\n"
            ),
            ["extensions 40105"],
        ),
        (
            with_field("message RankParameter { optional int32 n = 1; }"),
            ["message RankParameter {"],
        ),
        (with_field("oneof rank_param { int32 a = 7; }"), ["oneof rank_param"]),
        (with_field("oneof which { int32 rank_param = 7; }"), ["oneof which"]),
        (STOCK + "enum L2NormParameter { NO_NORM = 0; }\n", ["enum L2NormParameter"]),
        (STOCK + "enum Words {\n  A_WORD = 0;\n  RankParameter = 1;\n}\n", ["RankParameter = 1"]),
    ],
)
def test_taken_names_and_numbers_are_clashes(tmp_path, proto, lines):
    root = make_tree(tmp_path, proto)
    expected = {(PROTO, line_with(root, PROTO, words)) for words in lines}
    assert places(clashes_of(root)) == expected


def test_a_message_in_another_proto_file_is_a_clash(tmp_path):
    other = 'syntax = "proto2";\npackage caffe;\nmessage RankParameter {}\n'
    root = make_tree(tmp_path, files={"src/caffe/proto/more.proto": other})
    assert places(clashes_of(root)) == {("src/caffe/proto/more.proto", 3)}
    assert places(clashes_of(root, replace=True)) == {("src/caffe/proto/more.proto", 3)}


@pytest.mark.parametrize("field", ["norm_param", "normalize_param"])
def test_the_norm_of_other_forks_is_no_clash(tmp_path, field):
    proto = with_field(
        f"optional NormalizeParameter {field} = 206;",
        "message NormalizeParameter {\n  optional bool across_spatial = 1 [default = true];\n}\n",
    )
    files = {
        "include/caffe/layers/normalize_layer.hpp": layer_header("Normalize"),
        "src/caffe/layers/normalize_layer.cpp": layer_source("Normalize"),
    }
    assert not patch.apply(make_tree(tmp_path, proto, files)).plan.clashes


def test_files_of_our_names_are_clashes(tmp_path):
    files = {
        "include/caffe/layers/norm_layer.hpp": layer_header("Other"),
        "src/caffe/layers/triplet_loss_layer.cpp": "// nothing\n",
    }
    root = make_tree(tmp_path, files=files)
    assert places(clashes_of(root)) == {(path, 1) for path in files}


def test_a_part_of_a_layer_that_would_be_mixed_with_ours_is_a_clash(tmp_path):
    part = "src/caffe/layers/norm_layer.cu"
    ours = patch.payload.load()
    without = tuple(source for source in ours.sources if source.path != part)
    root = make_tree(tmp_path, files={part: "__global__ void kernel() {}\n"})
    assert places(clashes_of(root, payload=replace(ours, sources=without))) == {(part, 1)}


@pytest.mark.parametrize(
    ("path", "source", "words"),
    [
        ("src/caffe/layers/triplet.cpp", layer_source("TripletLoss"), "REGISTER_LAYER_CLASS(Tr"),
        ("src/caffe/layers/l2.cpp", layer_source("L2", "Norm"), "REGISTER_LAYER_CREATOR(Norm"),
        ("src/caffe/layers/a.cu", "REGISTER_LAYER_CLASS( RankHardLoss ) ;\n", "RankHardLoss"),
        ("src/caffe/layers/t.cu", "\nINSTANTIATE_LAYER_GPU_FUNCS(NormLayer);\n", "INSTANT"),
        ("src/caffe/layers/b.cpp", "\n\nREGISTER_LAYER_CLASS(\n   Norm);\n", "REGISTER"),
        ("src/caffe/b.cpp", 'LayerRegisterer<float> g("Norm", f);\n', "LayerRegisterer"),
        ("include/caffe/layers/m.hpp", layer_header("MarginInnerProduct"), "class Margin"),
        ("src/caffe/test/test_t.cpp", "int i;\nclass TripletLossLayerTest : X {};\n", "class Trip"),
    ],
)
def test_a_layer_of_ours_under_another_file_name_is_a_clash(tmp_path, path, source, words):
    root = make_tree(tmp_path, files={path: source})
    assert places(clashes_of(root)) == {(path, line_with(root, path, words))}


@pytest.mark.parametrize(
    "source",
    [
        "// REGISTER_LAYER_CLASS(Norm);\n",
        "/*\nREGISTER_LAYER_CLASS(Norm);\n*/\n",
        'const char* s = "REGISTER_LAYER_CLASS(Norm);";\n',
        "REGISTER_LAYER_CLASS(Normalize);\nclass NormLayer;\n",
        "#define REGISTER_LAYER_CLASS(type) REGISTER_LAYER_CREATOR(type, Creator_##type##Layer)\n",
    ],
)
def test_words_that_register_nothing_are_no_clash(tmp_path, source):
    patch.apply(make_tree(tmp_path, files={"src/caffe/layers/other.cpp": source}))


def test_the_command_names_each_clash_and_ends_with_one_line(tmp_path, command):
    root = make_tree(tmp_path, SPHEREFACE, {"src/caffe/layers/x.cpp": layer_source("TripletLoss")})
    before = snapshot(root)
    status, out, err = command("patch", root)
    field, message = (line_with(root, PROTO, w) for w in ("= 147", "message MarginInnerProduct"))
    assert status == 1
    assert f"{PROTO}:{field}: field margin_inner_product_param" in out
    assert f"{PROTO}:{message}: message MarginInnerProductParameter" in out
    assert "src/caffe/layers/x.cpp:" in out
    assert err.count("\n") == 1
    assert f"{PROTO}:{field}" in err and "--replace" in err
    assert snapshot(root) == before
    assert command("patch", root, "--dry-run")[0] == 1


@pytest.mark.parametrize(
    "files",
    [
        {"src/caffe/layers/norm_layer.cpp/file": "x"},  # a folder
        {"include/caffe/test": "a file where a folder has to be"},
    ],
)
def test_what_stands_where_a_file_or_folder_has_to_be(tmp_path, files):
    root = make_tree(tmp_path, files=files)
    before = snapshot(root)
    with pytest.raises(UserError):
        patch.apply(root, replace=True)
    assert snapshot(root) == before
