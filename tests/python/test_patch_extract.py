"""--replace where a file holds a class of ours among others, as caffe-windows' custom_layers.hpp.

The class and what belongs to it go, by the structure of C++; the rest stays, byte for byte, and a
revert brings all back. Files where that cannot be told are refused as before, and nothing changes.
"""

from __future__ import annotations

import pytest
from caffe_metric import patch
from caffe_metric.patch import extract
from caffe_metric.patch.text import apply_edits
from caffe_trees import make_tree, snapshot

HEADER = """\
#ifndef CAFFE_CUSTOM_LAYERS_HPP_
#define CAFFE_CUSTOM_LAYERS_HPP_
// class TripletLossLayer { of a comment
#include "caffe/layer.hpp"

namespace caffe {

/* centre loss: } */
template <typename Dtype>
class CenterTwoLayer : public LossLayer<Dtype> {
 public:
  explicit CenterTwoLayer(const LayerParameter& param) : LossLayer<Dtype>(param), n_('}') {}
  virtual inline const char* type() const { return "Tri{plet"; }
};

/**
 * @brief Triplets.
 */
template <typename Dtype>
class TripletLossLayer : public LossLayer<Dtype> {
 public:
  explicit TripletLossLayer(const LayerParameter& param)
      : LossLayer<Dtype>(param), diff_() {}
  virtual inline const char* type() const { return "TripletLoss"; }
#ifdef DEBUG
  void Look() { if (true) { return; } }
#endif
 protected:
  Blob<Dtype> diff_;  // cached };
};

template <typename Dtype>
class LastLayer : public Layer<Dtype> {
};
}  // namespace caffe

#endif  // CAFFE_CUSTOM_LAYERS_HPP_
"""
SOURCE = """\
#include "caffe/layers/custom_layers.hpp"
#define TWICE(x) \\
  do { (x); } while (0)

namespace caffe {

template <typename Dtype>
void TripletLossLayer<Dtype>::LayerSetUp(const vector<Blob<Dtype>*>& bottom,
    const vector<Blob<Dtype>*>& top) {
  LossLayer<Dtype>::LayerSetUp(bottom, top);
  CHECK_EQ(bottom[0]->num(), 1) << "}";
}
template <typename Dtype>
void CenterTwoLayer<Dtype>::Reshape() { int x[] = {1, 2}; }

#ifdef CPU_ONLY
STUB_GPU(TripletLossLayer);
STUB_GPU(CenterTwoLayer);
#endif

INSTANTIATE_CLASS(TripletLossLayer);
REGISTER_LAYER_CLASS(TripletLoss)
INSTANTIATE_CLASS(CenterTwoLayer);
REGISTER_LAYER_CLASS(CenterTwo);

}  // namespace caffe
"""
FILES = {
    "include/caffe/layers/custom_layers.hpp": HEADER,
    "src/caffe/layers/custom_layers.cpp": SOURCE,
}


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("comment", [b"", "// 三元组损失\n".encode("gbk"), b"\xef\xbb\xbf"])
def test_a_class_among_others_is_replaced_and_comes_back(tmp_path, ends, comment):
    root = make_tree(tmp_path / "дерево mit 树")
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(comment + text.replace("\n", ends).encode())
    whole = snapshot(root)
    with pytest.raises(patch.ClashError):
        patch.apply(root)
    assert snapshot(root) == whole
    patch.apply(root, replace=True)
    header = (root / "include/caffe/layers/custom_layers.hpp").read_bytes()
    source = (root / "src/caffe/layers/custom_layers.cpp").read_bytes()
    assert b"class TripletLossLayer :" not in header and b"Triplets." not in header
    for kept in (b"class CenterTwoLayer", b"class LastLayer", b"class TripletLossLayer { of a"):
        assert kept in header
    assert header.startswith(comment + HEADER.partition("/**")[0].replace("\n", ends).encode())
    assert b"TripletLoss" not in source
    assert source.count(b"CenterTwo") == SOURCE.count("CenterTwo")
    assert patch.revert(root)
    assert snapshot(root) == whole


UNCLEAR = {
    "another class derives from it": HEADER.replace(
        "LastLayer : public Layer<Dtype>", "LastLayer : public TripletLossLayer<Dtype>"
    ),
    "a condition begins inside": HEADER.replace("#endif\n protected", "#else\n protected").replace(
        "template <typename Dtype>\nclass LastLayer", "#endif\ntemplate <typename Dtype>\nclass L"
    ),
    "braces in both branches": HEADER.replace(
        "class TripletLossLayer : public LossLayer<Dtype> {",
        "#if A\nclass TripletLossLayer : public LossLayer<Dtype> {\n#else\n"
        "class TripletLossLayer : public Layer<Dtype> {\n#endif",
    ),
    "a brace is missing": HEADER.replace("}  // namespace", "// namespace"),
    "a function makes one": HEADER.replace(
        "}  // namespace", "inline void* Make() { return new TripletLossLayer<float>(p); }\n}  //"
    ),
    "a typedef": HEADER.replace("}  // namespace", "typedef TripletLossLayer<float> T;\n}  //"),
    "a macro writes it": HEADER.replace(
        "template <typename Dtype>\nclass TripletLossLayer",
        "#define DEFINE \\\nclass TripletLossLayer",
    ),
}


@pytest.mark.parametrize("what", UNCLEAR)
def test_what_cannot_be_told_is_refused(tmp_path, what):
    assert UNCLEAR[what] != HEADER
    root = make_tree(tmp_path / "tree", files={**FILES, next(iter(FILES)): UNCLEAR[what]})
    whole = snapshot(root)
    with pytest.raises(patch.ClashError) as error:
        patch.apply(root, replace=True)
    assert any("among others" in clash.what for clash in error.value.clashes)
    assert snapshot(root) == whole


def test_a_file_that_uses_the_class_is_named(tmp_path):
    user = '#include "caffe/layers/custom_layers.hpp"\nTripletLossLayer<float>* make();\n'
    root = make_tree(tmp_path / "tree", files={**FILES, "tools/make.cpp": user})
    with pytest.raises(patch.ClashError) as error:
        patch.apply(root, replace=True)
    assert [(c.path, c.line) for c in error.value.clashes if c.fatal] == [("tools/make.cpp", 2)]


def test_declarations_of_every_kind():
    text = """\
namespace caffe { namespace {
class A;
template <typename T> class Quad<T*>;
struct B final : C { int a[2] = {1, 2}; };
enum Kind { ONE, TWO };
int values[] = {1, 2};
Quad::Quad() : a_(1), b_{2} { for (;;) { } }
int Quad::count = 3;
template class Quad<float>;
TYPED_TEST(Quad, Right) { EXPECT_EQ(1, 1); }
TYPED_TEST(Other, Right) { EXPECT_EQ(1, 1); }
extern "C" { void f(); }
}}
"""
    left = apply_edits(text, extract.edits(text, "Quad", set()))
    assert left == "".join(line for line in text.splitlines(True) if "Quad" not in line)


PROJECT = """\
<Project><ItemGroup>
  <ClCompile Include="..\\..\\src\\caffe\\layers\\absval_layer.cpp" />
</ItemGroup></Project>
"""


def test_a_windows_project_that_lists_its_files(tmp_path):
    files = {
        "windows/libcaffe/libcaffe.vcxproj": PROJECT,
        "windows/caffe/caffe.vcxproj": "<Project></Project>\n",
        "src/caffe/layers/old_norm.cpp": "class NormLayer {};\n",
    }
    root = make_tree(tmp_path / "tree", files=files)
    report = patch.apply(root, replace=True)
    said = [w for w in report.plan.warnings if "vcxproj" in w]
    assert len(said) == 1
    assert said[0].startswith("windows/libcaffe/libcaffe.vcxproj lists its files: add ")
    for path in report.plan.write:
        shown = path.startswith("src/caffe/") and "/test/" not in path
        assert (path.replace("/", "\\") in said[0]) is shown
    assert "take out src\\caffe\\layers\\old_norm.cpp" in said[0]
    assert (root / "windows/libcaffe/libcaffe.vcxproj").read_text() == PROJECT
