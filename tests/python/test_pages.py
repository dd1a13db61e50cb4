"""The reference pages are current, and their prototxts work."""

from __future__ import annotations

import importlib
import sys

import pytest
from caffe_metric import lint, suite
from caffe_metric.nets import schema
from caffe_metric.support import paths

TOOL = paths.tree() / "cmake" / "reference_pages.py"
if not TOOL.is_file():
    pytest.skip("an installed package has no docs", allow_module_level=True)
sys.path.append(str(TOOL.parent))
pages = importlib.import_module("reference_pages")

HEAD = """
layer { name: "features" type: "Input" top: "features" input_param { shape { dim: 8 dim: 5 } } }
layer { name: "label" type: "Input" top: "label" input_param { shape { dim: 8 } } }
"""
ROWS = pytest.mark.parametrize("row", suite.NATIVE, ids=lambda row: row.type)


def test_pages_are_current(capsys):
    assert pages.main(["--check"]) == 0, capsys.readouterr().out


def test_stale_pages_are_named_and_written(capsys, tmp_path):
    assert pages.main(["--check", str(tmp_path)]) == 1
    assert "norm.md" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
    assert pages.main([str(tmp_path)]) == 0
    assert pages.main(["--check", str(tmp_path)]) == 0
    (tmp_path / "norm.md").write_text("old")
    assert pages.main(["--check", str(tmp_path)]) == 1


@ROWS
def test_a_page_holds_every_parameter_with_its_default_and_meaning(row):
    text = pages.render(row)
    message = schema.message(row.message)
    assert message.fields
    for field in message.fields:
        line = next(line for line in text.splitlines() if line.startswith(f"| `{field.name}` "))
        if field.default is not None:
            assert f"| `{pages.show(field.default)}` |" in line
        assert line.split(" | ")[-1].strip(" |")
    for title in ("Bottoms", "Tops", "A prototxt", "The rules"):
        assert f"## {title}\n" in text
    assert "@" not in text.replace("@f", "")


def test_a_parameter_without_a_meaning_is_refused(monkeypatch, capsys):
    bare = schema.Message("L2NormParameter", (schema.Field("eps", "float", 1),))
    monkeypatch.setattr(pages.schema, "message", lambda name: bare)
    assert pages.main(["--check"]) == 1
    assert "L2NormParameter.eps has no comment" in capsys.readouterr().err


@pytest.mark.parametrize("engine", ["cpp", "python"])
@ROWS
def test_a_prototxt_lints_and_runs(row, engine, tmp_path):
    path = tmp_path / "net.prototxt"
    text = HEAD + pages.prototxt(row, engine)
    path.write_text(text)
    found = [f for f in lint.check(str(path)) if "this machine's Caffe lacks" not in f.message]
    assert found == []
    pytest.importorskip("caffe", reason="pycaffe is not built: ./run build")
    from harness import build, need

    need(engine, row.type)
    net = build(text)
    net.blobs["features"].data.flat = range(40)
    net.blobs["label"].data[...] = [0, 0, 1, 1, 2, 2, 3, 3]
    net.forward()
    net.backward()


@pytest.mark.parametrize(
    ("default", "text"), [(True, "true"), (1e-6, "1e-06"), (0.5, "0.5"), (3, "3"), ("ALL", "ALL")]
)
def test_defaults_are_short(default, text):
    value = schema.float32(default) if isinstance(default, float) else default
    assert pages.show(value) == text
