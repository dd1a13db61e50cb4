"""The stock tree, as `./run build` fetched it: patched, judged by protoc, and given back whole."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from caffe_metric import patch
from caffe_trees import PROTO, Compiled, snapshot

SOURCE = Path(__file__).resolve().parents[2] / "build/source"


@pytest.fixture
def root(tmp_path):
    if not (SOURCE / PROTO).is_file():
        pytest.skip("needs Caffe's source, which ./run build fetches")
    folders = ("cmake", "include", "python", "src", "tools")
    for folder in folders:
        shutil.copytree(SOURCE / folder, tmp_path / "caffe" / folder, symlinks=True)
    for name in ("CMakeLists.txt", "Makefile", "Makefile.config.example"):
        shutil.copy2(SOURCE / name, tmp_path / "caffe" / name)
    return tmp_path / "caffe"


@pytest.mark.slow
def test_patch_and_revert(root):
    before = snapshot(root)
    old_generation = Compiled(root).descriptor("V1LayerParameter").fields_by_name.keys()
    report = patch.apply(root)
    assert not report.plan.clashes
    for source in patch.payload.load().sources:
        assert (root / source.path).read_bytes() == source.data
    compiled = Compiled(root)
    assert compiled.number("margin_inner_product_param") == 40105
    assert compiled.number("swish_param") == 147
    assert compiled.descriptor("V1LayerParameter").fields_by_name.keys() == old_generation
    assert not patch.apply(root).changed
    assert patch.check(root).whole
    assert patch.revert(root)
    assert snapshot(root) == before


def test_the_known_breaks_of_the_stock_tree_are_mended(root):
    mended = patch.apply(root).plan.mended
    assert mended["protobuf-bytes-limit"] == ["src/caffe/util/io.cpp:60"]
    assert {place.split(":")[0] for place in mended["random-shuffle"]} == {
        "src/caffe/layers/hdf5_data_layer.cpp"
    }
    assert {place.split(":")[0] for place in mended["cuda13-device-properties"]} == {
        "src/caffe/common.cpp",
        "src/caffe/test/test_platform.cpp",
    }
    assert "opencv4-constants" not in mended  # Debian includes the header that still has them
    text = (root / "src/caffe/util/io.cpp").read_text()
    assert "SetTotalBytesLimit(kProtoReadBytesLimit);" in text


def test_a_parsed_prototxt_of_the_older_projects(root):
    """Those of their READMEs, in the schema of the patched tree."""
    from google.protobuf import text_format

    patch.apply(root)
    layer = Compiled(root).message("LayerParameter")
    text_format.Parse(
        "rank_param { neg_num: 4 pair_size: 2 hard_ratio: 0.5 rand_ratio: 0.5 margin: 1 }"
        "margin_inner_product_param { num_output: 10 type: QUADRUPLE"
        ' weight_filler { type: "xavier" }'
        " base: 1000 gamma: 0.12 power: 1 lambda_min: 5 iteration: 0 triplet: true semihard: true }"
        "triplet_loss_param { losstype: 1 margin: 0.2 }",
        layer,
    )
    assert layer.margin_inner_product_param.type == 3
    assert layer.triplet_loss_param.losstype == 1


def test_the_fragment_is_merged_as_it_stands(root):
    """Every comment and line of our messages is in the patched file."""
    patch.apply(root)
    merged = (root / PROTO).read_text()
    fragment = patch.payload.load().fragment
    messages = fragment[fragment.index("// Message of the layer Norm") :]
    for message in messages.split("\n\n"):
        assert message.strip() in merged
