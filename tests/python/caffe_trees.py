"""Small Caffe trees that imitate what the patcher meets in large ones, and ways to look at them.

A tree here is enough for the patcher and for protoc, not for a compiler.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from caffe_metric.support.protobuf import message_class
from google.protobuf import descriptor_pb2, descriptor_pool

PROTO = "src/caffe/proto/caffe.proto"

LAYER_HPP = """\
#ifndef CAFFE_LAYER_H_
#define CAFFE_LAYER_H_
namespace caffe {
// class Layer : of a comment
template <typename Dtype>
class Layer {
 protected:
  virtual void Forward_cpu(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top) = 0;
};
}  // namespace caffe
#endif
"""

HEAD = """\
syntax = "proto2";

package caffe;

message FillerParameter {
  optional string type = 1 [default = 'constant'];
}

"""

LAYER_PARAMETER = """\
// LayerParameter next available layer-specific ID: 147 (last added: recurrent_param)
message LayerParameter {
  optional string name = 1; // the layer name
  optional string type = 2; // the layer type
  repeated string bottom = 3;
  optional ReLUParameter relu_param = 123;
}

"""

TAIL = """\
message ReLUParameter {
  optional float negative_slope = 1 [default = 0];
}

// DEPRECATED: use LayerParameter.
message V1LayerParameter {
  enum LayerType {
    NONE = 0;
    RELU = 18;
  }
  repeated string bottom = 2;
  optional string name = 4;
  optional LayerType type = 5;
}

message V0LayerParameter {
  optional string name = 1;
}
"""

STOCK = HEAD + LAYER_PARAMETER + TAIL

# The message as sphereface published it, under 147.
MARGIN = """\
message MarginInnerProductParameter {
  optional uint32 num_output = 1; // The number of outputs for the layer
  enum MarginType {
    SINGLE = 0;
    DOUBLE = 1;
    TRIPLE = 2;
    QUADRUPLE = 3;
  }
  optional MarginType type = 2 [default = SINGLE];
  optional FillerParameter weight_filler = 3;
  optional int32 axis = 4 [default = 1];
  optional float base = 5 [default = 1];
  optional float gamma = 6 [default = 0];
  optional float power = 7 [default = 1];
  optional int32 iteration = 8 [default = 0];
  optional float lambda_min = 9 [default = 0];
}
"""


def with_field(statement: str, messages: str = "", proto: str = STOCK) -> str:
    """A caffe.proto whose LayerParameter has one more field, on the line of `relu_param`'s end."""
    field = "  optional ReLUParameter relu_param = 123;\n"
    return proto.replace(field, field + f"  {statement}\n") + messages


def layer_source(name: str, registered: str | None = None) -> str:
    """The .cpp of a layer with class `name`Layer, registered under that or another type."""
    creator = f"REGISTER_LAYER_CREATOR({registered}, Get{name}Layer);"
    return f"""\
#include "caffe/layers/{name.lower()}.hpp"
namespace caffe {{
// REGISTER_LAYER_CLASS(Norm); is only a comment
template <typename Dtype>
void {name}Layer<Dtype>::Reshape() {{}}
{creator if registered else f"REGISTER_LAYER_CLASS({name});"}
}}  // namespace caffe
"""


def layer_header(name: str) -> str:
    return f"""\
namespace caffe {{
template <typename Dtype>
class {name}Layer : public Layer<Dtype> {{
 public:
  virtual inline const char* type() const {{ return "{name}"; }}
}};
}}  // namespace caffe
"""


def make_tree(root: Path, proto: str | bytes = STOCK, files: dict | None = None) -> Path:
    """Writes the tree. `files` adds to it, or takes out of it where the content is None."""
    every = {
        PROTO: proto,
        "Makefile": "PROJECT := caffe\n",
        "CMakeLists.txt": "project(Caffe C CXX)\nset(CMAKE_CXX_STANDARD 17)\n",
        "include/caffe/layer.hpp": LAYER_HPP,
        "include/caffe/layers/relu_layer.hpp": layer_header("ReLU"),
        "src/caffe/layers/relu_layer.cpp": layer_source("ReLU"),
        "src/caffe/test/test_relu_layer.cpp": "class ReLULayerTest : public Base {};\n",
        **(files or {}),
    }
    for path, content in every.items():
        if content is not None:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            data = content if isinstance(content, bytes) else content.encode()
            (root / path).write_bytes(data)
    return root


def snapshot(root: Path) -> dict:
    """Every path of the tree, with its bytes and mode, or with the target of a link."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            found[name] = ("link", os.readlink(path))
        elif path.is_dir():
            found[name] = ("folder", path.stat().st_mode)
        else:
            found[name] = (path.read_bytes(), path.stat().st_mode)
    return found


def line_with(root: Path, path: str, words: str) -> int:
    """The number of the first line of a file that holds the words."""
    lines = (root / path).read_bytes().decode("latin-1").split("\n")
    return next(number for number, line in enumerate(lines, 1) if words in line)


class Compiled:
    """A tree's caffe.proto as protoc understands it."""

    def __init__(self, root: Path):
        if shutil.which("protoc") is None:
            pytest.skip("needs protoc")
        folder = root / "src/caffe/proto"
        output = root.parent / f"{root.name}.descriptor"
        done = subprocess.run(
            ["protoc", f"-I{folder}", "--include_imports", f"--descriptor_set_out={output}"]
            + [path.name for path in sorted(folder.glob("*.proto"))],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        pool = descriptor_pool.DescriptorPool()
        for file in descriptor_pb2.FileDescriptorSet.FromString(output.read_bytes()).file:
            pool.Add(file)
        self.pool = pool

    def descriptor(self, name: str):
        return self.pool.FindMessageTypeByName(f"caffe.{name}")

    def number(self, field: str, message: str = "LayerParameter") -> int:
        return self.descriptor(message).fields_by_name[field].number

    def message(self, name: str):
        return message_class(self.pool, f"caffe.{name}")()
