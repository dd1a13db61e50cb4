"""The reference pages are current, and their prototxts work."""

from __future__ import annotations

import pytest
from caffe_metric import lint, pages
from caffe_metric.nets import schema
from caffe_metric.support import paths

HEAD = """
layer { name: "features" type: "Input" top: "features" input_param { shape { dim: 8 dim: 5 } } }
layer { name: "label" type: "Input" top: "label" input_param { shape { dim: 8 } } }
"""


def test_pages_are_current(command):
    folder = paths.tree() / "docs" / "reference"
    if not folder.is_dir():
        pytest.skip("an installed package has no docs")
    status, _, err = command("pages", folder, "--check")
    assert (status, err) == (0, ""), "run caffe-metric pages"


def test_stale_pages_are_named_and_written(command, tmp_path):
    status, out, err = command("pages", tmp_path, "--check")
    assert (status, out) == (1, "")
    assert "norm.md" in err
    assert not list(tmp_path.iterdir())
    assert command("pages", tmp_path)[0] == 0
    assert command("pages", tmp_path, "--check")[0] == 0
    (tmp_path / "norm.md").write_text("old")
    assert command("pages", tmp_path, "--check")[0] == 1


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.layer)
def test_a_page_holds_every_parameter_with_its_default(page):
    text = pages.render(page)
    message = schema.message(page.message)
    assert message.fields
    for field in message.fields:
        row = next(line for line in text.splitlines() if line.startswith(f"| `{field.name}` "))
        if field.default is not None:
            assert f"| `{pages.show(field.default)}` |" in row
    for title in ("Bottoms", "Tops", "A prototxt", "The rules"):
        assert f"## {title}\n" in text
    assert "@" not in text.replace("@f", "")


@pytest.mark.parametrize("engine", ["prototxt", "python"])
@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.layer)
def test_a_prototxt_lints_and_runs(page, engine, tmp_path):
    path = tmp_path / "net.prototxt"
    text = HEAD + getattr(page, engine)
    path.write_text(text)
    found = [f for f in lint.check(str(path)) if "this machine's Caffe lacks" not in f.message]
    assert found == []
    pytest.importorskip("caffe", reason="pycaffe is not built: ./run build")
    from harness import build, need

    need("cpp" if engine == "prototxt" else "python")
    net = build(text)
    net.blobs["features"].data.flat = range(40)
    net.blobs["label"].data[...] = [0, 0, 1, 1, 2, 2, 3, 3]
    net.forward()
    net.backward()


def test_every_layer_has_a_page():
    fields = {field.name for field in schema.load().layer_fields} - {"rank_hard_loss_param"}
    assert {page.field for page in pages.PAGES} == fields


@pytest.mark.parametrize(
    ("default", "text"), [(True, "true"), (1e-6, "1e-06"), (0.5, "0.5"), (3, "3"), ("ALL", "ALL")]
)
def test_defaults_are_short(default, text):
    value = schema.float32(default) if isinstance(default, float) else default
    assert pages.show(value) == text
