"""--replace: ours stand in the place of the tree's, and the tree's models still parse.

Models are written with the tree's own schema and read with the patched one, both as protoc
understands them.
"""

from __future__ import annotations

import pytest
from caffe_metric import patch
from caffe_trees import (
    HEAD,
    MARGIN,
    PROTO,
    STOCK,
    Compiled,
    layer_header,
    layer_source,
    make_tree,
    snapshot,
    with_field,
)

SPHEREFACE = with_field(
    "optional MarginInnerProductParameter margin_inner_product_param = 147;", MARGIN
)


def replaced(root, proto=None, files=None):
    """(schema before, schema after, report) of a tree patched with --replace."""
    if proto is not None:
        make_tree(root, proto, files)
    before = Compiled(root)
    report = patch.apply(root, replace=True)
    return before, Compiled(root), report


def test_a_model_written_under_147_keeps_its_parameters(tmp_path):
    root = make_tree(tmp_path / "tree", SPHEREFACE)
    whole = snapshot(root)
    before, after, _ = replaced(root)
    model = before.message("LayerParameter")
    model.name = "fc6"
    margin = model.margin_inner_product_param
    margin.num_output, margin.type, margin.base, margin.lambda_min = 10572, 3, 1000, 5
    margin.weight_filler.type = "xavier"
    read = after.message("LayerParameter")
    read.ParseFromString(model.SerializeToString())
    assert after.number("margin_inner_product_param") == 147
    assert read.margin_inner_product_param.type == 3
    assert read.margin_inner_product_param.base == 1000
    assert read.margin_inner_product_param.weight_filler.type == "xavier"
    assert read.margin_inner_product_param.persist_iteration  # ours, by its default
    assert read.SerializeToString() == model.SerializeToString()
    assert patch.revert(root)
    assert snapshot(root) == whole


def test_fields_that_only_the_tree_has_are_reserved(tmp_path):
    theirs = """message TripletLossParameter {
  optional float margin = 1 [default = 0.2];
  optional string note = 3;
  repeated int32 losstype = 2;
  optional int32 num_negatives = 12;
  optional bool use_pair = 4;
  optional double distance = 5;
  reserved 20 to 25, 30; reserved "gone";
  oneof choice { int32 left = 40; FillerParameter right = 41; }
}
"""
    proto = with_field("optional TripletLossParameter triplet_loss_param = 232;", theirs)
    before, after, report = replaced(tmp_path / "tree", proto)
    message = after.descriptor("TripletLossParameter")
    numbers = {field.name: field.number for field in message.fields}
    assert after.number("triplet_loss_param") == 232
    assert (numbers["margin"], numbers["num_negatives"], numbers["use_pair"]) == (1, 12, 4)
    assert not {2, 3, 5, 20, 25, 30, 40, 41} & set(numbers.values())
    copied = message.file.serialized_pb
    from google.protobuf import descriptor_pb2

    file = descriptor_pb2.FileDescriptorProto.FromString(copied)
    ours = next(m for m in file.message_type if m.name == "TripletLossParameter")
    reserved = {n for r in ours.reserved_range for n in range(r.start, r.end)}
    assert {2, 3, 5, 20, 21, 22, 23, 24, 25, 30, 40, 41} <= reserved
    assert set(ours.reserved_name) == {"note", "gone", "left", "right"}
    for name in ("note = 3", "left = 40", "losstype = 2", "distance = 5", "default 1, it was 0.2"):
        assert any(name in warning for warning in report.plan.warnings), name
    # what a model of the tree holds is read where it means the same, and kept elsewhere
    model = before.message("LayerParameter")
    model.triplet_loss_param.margin, model.triplet_loss_param.note = 0.5, "text"
    model.triplet_loss_param.num_negatives = 7
    model.triplet_loss_param.losstype.extend([1, 2])
    model.triplet_loss_param.right.type = "xavier"
    read = after.message("LayerParameter")
    read.ParseFromString(model.SerializeToString())
    assert read.triplet_loss_param.margin == 0.5
    assert read.triplet_loss_param.num_negatives == 7
    assert not read.triplet_loss_param.HasField("losstype")


def test_a_field_whose_message_has_another_name_follows_that_message(tmp_path):
    theirs = (
        "message RankHardParameter { optional float margin = 1; optional uint32 neg_num = 2; }\n"
    )
    proto = with_field("optional RankHardParameter rank_param = 203;", theirs)
    before, after, _ = replaced(tmp_path / "tree", proto)
    model = before.message("LayerParameter")
    model.rank_param.margin, model.rank_param.neg_num = 0.25, 4
    read = after.message("LayerParameter")
    read.ParseFromString(model.SerializeToString())
    assert (read.rank_param.margin, read.rank_param.neg_num) == (0.25, 4)
    assert after.number("rank_hard_loss_param") == 40104


def test_an_enum_with_other_numbers_is_not_mixed_with_ours(tmp_path):
    theirs = """message TripletLossParameter {
  enum LossType { RATIO = 0; HINGE = 1; }
  optional LossType losstype = 2 [default = HINGE];
}
"""
    proto = with_field("optional TripletLossParameter triplet_loss_param = 150;", theirs)
    _, after, report = replaced(tmp_path / "tree", proto)
    assert after.number("losstype", "TripletLossParameter") != 2
    assert any("losstype = 2 is of another type" in warning for warning in report.plan.warnings)


@pytest.mark.parametrize(
    ("statement", "field"),
    [
        ("optional int32 mine = 40103;", "rank_param"),
        ("reserved 40102;", "triplet_loss_param"),
        ("extensions 40101 to 40105;", "l2_norm_param"),
        ("extensions 40000 to max;", "margin_inner_product_param"),
    ],
)
def test_a_taken_number_gives_ours_a_free_one(tmp_path, statement, field):
    _, after, report = replaced(tmp_path / "tree", with_field(statement))
    number = after.number(field)
    assert not 40101 <= number <= 40105
    assert any(f"{field} has number {number}" in warning for warning in report.plan.warnings)
    if "mine" in statement:
        assert after.number("mine") == 40103


def test_a_nested_message_of_our_name_does_not_shadow_ours(tmp_path):
    inner = "message RankParameter { optional int32 n = 1; }"
    proto = with_field(f"{inner} optional RankParameter mine = 9;")
    _, after, _ = replaced(tmp_path / "tree", proto)
    fields = after.descriptor("LayerParameter").fields_by_name
    assert fields["rank_param"].message_type.full_name == "caffe.RankParameter"
    assert fields["mine"].message_type.full_name == "caffe.LayerParameter.RankParameter"


@pytest.mark.parametrize("statement", ["repeated int32 l2_norm_param = 9 [packed = true];"])
def test_a_field_that_is_no_message_keeps_its_number_from_ours(tmp_path, statement):
    before, after, report = replaced(tmp_path / "tree", with_field(statement))
    assert after.number("l2_norm_param") == 40101
    assert any("l2_norm_param = 9 is of type int32" in w for w in report.plan.warnings)
    model = before.message("LayerParameter")
    model.l2_norm_param.extend([8, 255, 3])
    read = after.message("LayerParameter")
    read.ParseFromString(model.SerializeToString())
    assert not read.HasField("l2_norm_param")


def test_reserved_names_and_oneofs(tmp_path):
    proto = with_field(
        'reserved "rank_param", "other"; oneof o { ReLUParameter l2_norm_param = 8; }'
    )
    _, after, _ = replaced(tmp_path / "tree", proto)
    assert after.number("rank_param") == 40103
    assert after.number("l2_norm_param") == 8


def test_a_field_that_uses_what_only_theirs_has_cannot_be_solved(tmp_path):
    theirs = "message RankParameter { enum Way { UP = 0; } optional Way way = 1; }\n"
    user = "message User { optional RankParameter.Way way = 1; }\n"
    root = make_tree(tmp_path, STOCK + theirs + user)
    with pytest.raises(patch.ClashError, match="uses RankParameter.Way") as caught:
        patch.apply(root, replace=True)
    assert any(clash.fatal for clash in caught.value.clashes)


def test_layers_of_ours_take_the_place_of_the_trees(tmp_path):
    files = {
        # the same names, with a .cu that would be mixed with ours
        "include/caffe/layers/norm_layer.hpp": layer_header("Norm"),
        "src/caffe/layers/norm_layer.cpp": layer_source("Norm"),
        # another name, and a test that includes its header
        "include/caffe/layers/triplet.hpp": layer_header("TripletLoss"),
        "src/caffe/layers/triplet.cpp": layer_source("TripletLoss"),
        "src/caffe/layers/triplet.cu": "INSTANTIATE_LAYER_GPU_FUNCS( TripletLossLayer );\n",
        "src/caffe/test/test_triplet.cpp": '#include "caffe/layers/triplet.hpp"\n',
        # a registration among others
        "src/caffe/layer_factory.cpp": "int a;\nREGISTER_LAYER_CREATOR(RankHardLoss, Get);\n"
        "int b;\nREGISTER_LAYER_CREATOR(Pooling, GetPooling);\n",
    }
    root = make_tree(tmp_path, files=files)
    (root / "src/caffe/layers/triplet.cpp").chmod(0o755)
    (root / "src/caffe/layers/norm_layer.cpp").chmod(0o600)
    whole = snapshot(root)
    patch.apply(root, replace=True)
    ours = {source.path: source.data for source in patch.payload.load().sources}
    for path in ("include/caffe/layers/norm_layer.hpp", "src/caffe/layers/norm_layer.cpp"):
        assert (root / path).read_bytes() == ours[path]
    assert (root / "src/caffe/layers/norm_layer.cpp").stat().st_mode & 0o777 == 0o600
    for path in files:
        assert (root / path).exists() == ("/triplet." not in path and "test_triplet" not in path), (
            path
        )
    factory = (root / "src/caffe/layer_factory.cpp").read_text()
    assert factory == "int a;\nint b;\nREGISTER_LAYER_CREATOR(Pooling, GetPooling);\n"
    # it stays so without the option, and goes back byte for byte
    assert not patch.apply(root).changed
    assert patch.check(root).whole
    assert patch.revert(root)
    assert snapshot(root) == whole


@pytest.mark.parametrize(
    ("path", "source", "words"),
    [
        # two layers in one file, one made of the other
        (
            "src/caffe/layers/both.cpp",
            "class NormLayer {};\nclass OtherLayer : NormLayer {};\nREGISTER_LAYER_CLASS(Norm);\n"
            "REGISTER_LAYER_CLASS(Other);\n",
            "among others",
        ),
        # a layer that needs a header that would go
        ("src/caffe/layers/user.cpp", '#include "caffe/layers/l2.hpp"\n', "l2.hpp, which would go"),
    ],
)
def test_layers_that_cannot_be_taken_apart_are_left_alone(tmp_path, path, source, words):
    files = {"include/caffe/layers/l2.hpp": layer_header("Norm"), path: source}
    root = make_tree(tmp_path, files=files)
    before = snapshot(root)
    with pytest.raises(patch.ClashError, match=words):
        patch.apply(root, replace=True)
    assert snapshot(root) == before


def test_layers_that_go_with_a_file_are_named(tmp_path):
    source = "REGISTER_LAYER_CLASS(Norm);\nREGISTER_LAYER_CLASS(Whitening);\n"
    root = make_tree(tmp_path, files={"src/caffe/layers/norm_layer.cpp": source})
    report = patch.apply(root, replace=True)
    assert any("layer Whitening goes" in warning for warning in report.plan.warnings)


def test_code_that_uses_what_is_replaced_is_named(tmp_path):
    source = "\n// margin_inner_product_param()\nint i = p.margin_inner_product_param().base();\n"
    root = make_tree(tmp_path, SPHEREFACE, {"tools/show.cpp": source})
    warnings = patch.apply(root, replace=True).plan.warnings
    assert any(w.startswith("tools/show.cpp:3 uses margin_inner_product_param") for w in warnings)


def test_a_tree_without_filler_parameter_is_still_whole_text(tmp_path):
    """Replacement keeps everything outside the replaced parts."""
    root = make_tree(tmp_path, SPHEREFACE)
    patch.apply(root, replace=True)
    text = (root / PROTO).read_text()
    assert text.startswith(HEAD)
    assert "message V0LayerParameter {\n  optional string name = 1;\n}\n" in text
    assert text.count("message MarginInnerProductParameter {") == 1
