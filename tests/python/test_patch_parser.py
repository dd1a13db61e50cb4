"""The parser of .proto files agrees with protoc, on protobuf's own files and on the stock tree's.

protobuf's own files are written in every syntax that it knows: proto2, proto3, editions, maps,
groups, oneofs, services, options. Names, numbers and places are compared, not defaults.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from caffe_metric.patch.proto import Block
from caffe_metric.patch.proto_parser import ProtoError, parse
from caffe_metric.patch.text import decode
from caffe_metric.patch.tokens import tokenize
from caffe_trees import PROTO
from google.protobuf import descriptor_pb2

INCLUDE = Path("/usr/include/google/protobuf")
STOCK = Path(__file__).resolve().parents[2] / "build/source" / PROTO


def described(folder, name, output):
    """The file as protoc describes it."""
    if not shutil.which("protoc"):
        pytest.skip("needs protoc")
    command = ["protoc", f"-I{folder}", f"--descriptor_set_out={output}", name]
    subprocess.run(command, check=True, capture_output=True)
    return descriptor_pb2.FileDescriptorSet.FromString(output.read_bytes()).file[0]


def compare(ours: Block, theirs, text: str):
    maps = {nested.name for nested in theirs.nested_type if nested.options.map_entry}
    assert [(f.name, f.number) for f in sorted(ours.fields(), key=lambda f: f.number)] == [
        (f.name, f.number) for f in sorted(theirs.field, key=lambda f: f.number)
    ]
    for field in ours.fields():
        if not text[field.start : field.end].endswith("}"):
            assert text[slice(*field.number_span)].isalnum()
            assert text[field.end - 1] == ";"
    messages = ours.blocks("message")
    assert sorted(block.name for block in messages) == sorted(
        nested.name for nested in theirs.nested_type if nested.name not in maps
    )
    for block in messages:
        assert text[block.open - 1] == "{" and text[block.close] == "}"
        compare(block, next(n for n in theirs.nested_type if n.name == block.name), text)
    for enum in ours.blocks("enum"):
        other = next(e for e in theirs.enum_type if e.name == enum.name)
        assert [(v.name, v.number) for v in enum.values()] == [
            (v.name, v.number) for v in other.value
        ]
    reserved = {n for part in ours.ranges() for n in part.names}
    assert reserved == set(theirs.reserved_name)
    numbers = sorted(span for p in ours.ranges() if p.kind == "reserved" for span in p.numbers)
    assert numbers == sorted((r.start, r.end - 1) for r in theirs.reserved_range)
    extensions = sorted(s for p in ours.ranges() if p.kind == "extensions" for s in p.numbers)
    assert extensions == sorted((r.start, r.end - 1) for r in theirs.extension_range)


@pytest.mark.parametrize(
    "path",
    [
        *sorted(INCLUDE.glob("**/*.proto")),
        pytest.param(STOCK, id="stock"),
    ],
    ids=lambda path: path.name,
)
def test_parser_and_protoc_agree(path, tmp_path):
    if not path.is_file():
        pytest.skip("needs Caffe's source, which ./run build fetches")
    folder = path.parent if path == STOCK else INCLUDE.parent.parent
    theirs = described(folder, path.relative_to(folder).as_posix(), tmp_path / "set")
    text = decode(path.read_bytes())
    ours = parse(text)
    assert ours.package == theirs.package
    for block in ours.blocks("message"):
        compare(block, next(m for m in theirs.message_type if m.name == block.name), text)
    assert len(ours.blocks("message")) == len(theirs.message_type)
    assert len(ours.blocks("enum")) == len(theirs.enum_type)


@pytest.mark.parametrize(
    "text", ["", "a /* open", '"open\nx', "'\\", "//", "\r\n\t\x0b", "1.5e-3f"]
)
def test_tokens_cover_the_text(text):
    tokens, comments = tokenize(text)
    covered = sorted([*tokens, *comments], key=lambda token: token.start)
    assert all(text[token.start : token.end] == token.text for token in covered)
    left = "".join(character for character in text if not character.isspace())
    assert "".join("".join(t.text.split()) for t in covered) == left


@pytest.mark.parametrize("size", [1, 7, 33, 200, 900])
def test_a_text_that_breaks_off_is_an_error_or_a_file(size):
    """Any beginning of a file: the parser ends, with a tree or with a ProtoError."""
    text = "message A { enum B { C = -1; } optional group D = 1 { oneof e { int32 f = 2; } } }\n"
    text *= 12
    for end in range(max(0, size - 40), size):
        try:
            assert parse(text[:end]).kind == "file"
        except ProtoError as error:
            assert 0 <= error.args[1] <= end
