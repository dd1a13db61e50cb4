"""Our fields and messages enter a caffe.proto by its structure, however it is written.

Each text is one way of writing LayerParameter that has broken context diffs. protoc judges the
result, and a revert has to give every byte back. Clashes have tests of their own.
"""

from __future__ import annotations

import pytest
from caffe_metric import patch
from caffe_metric.support.errors import UserError
from caffe_trees import HEAD, LAYER_PARAMETER, PROTO, STOCK, TAIL, Compiled, make_tree, snapshot
from field_numbers import NUMBERS

WAYS = {
    "plain": STOCK,
    "crlf": STOCK.replace("\n", "\r\n"),
    "tabs": STOCK.replace("  ", "\t"),
    "no final newline": STOCK.rstrip("\n"),
    "final comment without newline": STOCK + "// the end }",
    "no spaces around numbers": STOCK.replace(" = ", "="),
    "spaces around numbers": STOCK.replace(" = 123;", "  =  123  ;"),
    "byte order mark": "\ufeff" + STOCK,
    "one line": HEAD
    + "message LayerParameter { optional string name = 1; optional string type = 2; }\n"
    + TAIL,
    "one line at the end": HEAD
    + TAIL
    + "message LayerParameter { optional string name = 1; optional string type = 2; }",
    "generations in another order": HEAD + TAIL + LAYER_PARAMETER,
    "brace on a line of its own": STOCK.replace(
        "message LayerParameter {", "message LayerParameter\n{"
    ),
    "comment between name and brace": STOCK.replace(
        "message LayerParameter {", "message /* V1LayerParameter { */ LayerParameter // {\n {"
    ),
    "braces in comments": STOCK.replace(
        "  optional ReLUParameter",
        "  // message LayerParameter { optional int32 l2_norm_param = 40101; }\n"
        "  /* } } message L2NormParameter {\n } */\n  optional ReLUParameter",
    ),
    "braces in strings": STOCK.replace(
        "  optional ReLUParameter",
        '  optional string brace = 200 [default = "}\\"}{//"];\n'
        "  optional string other = 201 [default = '{\\'\"/*'];\n  optional ReLUParameter",
    ),
    "nested message, enum, group, oneof, map": STOCK.replace(
        "  optional ReLUParameter",
        "  message Inner { message Deeper { optional int32 x = 40101; } optional int32 y = 1; }\n"
        "  enum Mode { A = 0; B = 0x10; C = -1; option deprecated = true; }\n"
        "  optional Mode mode = 300 [default = A, deprecated = true];\n"
        "  optional group Grouped = 301 { optional int32 z = 1; }\n"
        "  oneof choice { int32 left = 302; Inner right = 303; }\n"
        "  map<string, Inner> table = 304;\n"
        '  reserved 305, 310 to 320; reserved "gone", "away";\n'
        "  extensions 500 to 600;\n"
        "  repeated int32 packed = 306 [packed = true];\n  optional ReLUParameter",
    )
    + "extend LayerParameter { optional int32 extra = 501; }\n",
    "fields named as keywords": STOCK.replace(
        "  optional ReLUParameter",
        "  optional string message = 210; optional string group = 211;\n"
        "  optional string package = 212; optional string option = 213;\n"
        "  enum Word { extensions = 0; oneof = 1; import = 2; }\n  optional ReLUParameter",
    ),
    "comment after the closing brace": STOCK.replace("123;\n}\n", "123;\n} // LayerParameter }\n"),
    "indented closing brace": STOCK.replace("123;\n}\n", "123;\n  }\n"),
    "qualified types and options": 'import "google/protobuf/descriptor.proto";\n'.join(
        STOCK.replace("optional ReLUParameter", "optional .caffe.ReLUParameter").split("\n\n", 1)
    ).replace('"proto2";', '"proto2";\n')
    + "extend google.protobuf.FieldOptions { optional string note = 50000; }\n"
    'message Noted { optional int32 a = 1 [(note) = "}{", deprecated = false]; }\n',
    "a field of another message has our name": STOCK
    + "message Other { optional int32 triplet_loss_param = 40102; }\n",
    "octal and hexadecimal numbers": STOCK.replace("= 123;", "= 0x7B;").replace(
        "bottom = 3", "bottom = 03"
    ),
}


@pytest.mark.parametrize("text", WAYS.values(), ids=WAYS.keys())
def test_fields_and_messages_are_added_however_it_is_written(tmp_path, text):
    root = make_tree(tmp_path / "tree", text)
    before = snapshot(root)
    fields_before = set(Compiled(root).descriptor("LayerParameter").fields_by_name)
    patch.apply(root)
    compiled = Compiled(root)
    found = compiled.descriptor("LayerParameter").fields_by_name
    assert {name: found[name].number for name in NUMBERS} == NUMBERS
    assert set(found) == fields_before | set(NUMBERS)
    assert found["rank_param"].message_type.name == "RankParameter"
    assert compiled.number("lambda_min", "MarginInnerProductParameter") == 9
    assert compiled.message("TripletLossParameter").mining == 1  # SEMIHARD
    assert "triplet_loss_param" not in compiled.descriptor("V1LayerParameter").fields_by_name
    assert patch.revert(root)
    assert snapshot(root) == before


def test_line_ends_are_those_of_the_file(tmp_path):
    root = make_tree(tmp_path / "tree", STOCK.replace("\n", "\r\n"))
    patch.apply(root)
    data = (root / PROTO).read_bytes()
    assert data.count(b"\n") == data.count(b"\r\n") > STOCK.count("\n") + 50


def test_bytes_of_other_encodings_survive(tmp_path):
    text = STOCK.encode() + "// 角度 margin, in GBK\n".encode("gbk") + b"// \xff\xfe \x85 \x0c\n"
    root = make_tree(tmp_path / "tree", text)
    patch.apply(root)
    assert (root / PROTO).read_bytes().startswith(STOCK.encode()[:200])
    assert b"\xff\xfe \x85 \x0c\n" in (root / PROTO).read_bytes()
    patch.revert(root)
    assert (root / PROTO).read_bytes() == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (HEAD + TAIL, "it has no message LayerParameter"),
        (STOCK.replace("string type = 2", "int32 type = 2"), "older generation"),
        (STOCK.replace("123;\n}\n", "123;\n"), "ends in the middle"),
        (STOCK + "}\n", "a closing brace too many"),
        (STOCK.replace("relu_param = 123", "relu_param = many"), "caffe.proto:14: 'many'"),
        (STOCK.replace("package caffe", "package other"), "its package is not caffe"),
    ],
)
def test_a_text_that_cannot_be_merged_is_refused(tmp_path, text, words):
    root = make_tree(tmp_path / "tree", text)
    before = snapshot(root)
    with pytest.raises(UserError, match=words):
        patch.apply(root)
    assert snapshot(root) == before


def test_what_is_there_already_word_for_word_is_no_clash(tmp_path):
    """A tree that somebody patched and committed without its record."""
    root = make_tree(tmp_path / "tree")
    patch.apply(root)
    for path in sorted((root / ".caffe-metric").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (root / ".caffe-metric").rmdir()
    before = snapshot(root)
    report = patch.apply(root)
    assert not report.plan.clashes
    assert {k: v for k, v in snapshot(root).items() if ".caffe-metric" not in k} == before


def test_another_proto_file_that_cannot_be_parsed_is_not_judged(tmp_path):
    patch.apply(make_tree(tmp_path, files={"src/caffe/proto/odd.proto": "message {{"}))
