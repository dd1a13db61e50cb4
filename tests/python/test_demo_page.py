"""The demo's report in a browser: on a telephone's width, by keyboard, and without a network."""

from __future__ import annotations

import dataclasses
import string
from types import SimpleNamespace

import browser
import numpy as np
import pytest
from caffe_metric.demo import maps, report
from caffe_metric.demo.embed import DPI
from caffe_metric.demo.images import load_images
from caffe_metric.demo.measure import measure
from caffe_metric.support.progress import Progress

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not browser.PROGRAM, reason="Debian's chromium is not installed"),
]
NAMES = ("softmax", "triplet", "rank_hard", "margin")
# As long as Fashion-MNIST's.
CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip

# Text that is cut off, runs out of the window, or touches its neighbour's: what a reader sees.
FAULTS = """(() => {
  const found = [], boxes = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = walker.nextNode());) {
    if (!node.data.trim() || node.parentElement.closest("script, style")) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    for (const box of range.getClientRects()) {
      const words = node.data.trim().slice(0, 30);
      if (!node.parentElement.closest(".scroll") && box.right > WIDTH + 1)
        found.push(`${words}: runs out of the window`);
      for (const other of boxes)
        if (other.node !== node &&
            Math.min(box.right, other.box.right) - Math.max(box.left, other.box.left) > 1 &&
            Math.min(box.bottom, other.box.bottom) - Math.max(box.top, other.box.top) > 6)
          found.push(`${words}: lies on ${other.words}`);
      boxes.push({ node, box, words });
    }
    const size = parseFloat(getComputedStyle(node.parentElement).fontSize);
    if (size < 12) found.push(`${node.data.trim().slice(0, 30)}: ${size} pixels high`);
  }
  return found;
})()"""
FOCUSED = """(() => {
  const e = document.activeElement, style = getComputedStyle(e), box = e.getBoundingClientRect();
  return { name: e.getAttribute("aria-label") || e.textContent,
           tag: e.tagName, outline: style.outlineStyle,
           seen: box.bottom > 0 && box.top < innerHeight };
})()"""


def trained(name):
    """A training's record: its curves are drawn, nothing else is read."""
    iterations = np.arange(0, 2000, 50)
    curves = {"loss": (iterations, np.exp(-iterations / 500) + 0.1)}
    tops = {"softmax": {}, "margin": {"l": "lambda"}}.get(name, {"active": "active"})
    for top in tops:
        curves[top] = (iterations, 1 / (1 + iterations))
    return SimpleNamespace(
        name=name,
        log=SimpleNamespace(train=curves),
        plan=SimpleNamespace(max_iter=2000, reports=tops),
        seconds=139.0,
        reused=False,
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    images = dataclasses.replace(load_images("/no/such/folder"), class_names=CLASSES)
    rng = np.random.default_rng(0)
    embeddings = {"pixels": images.pixels().reshape(len(images.test.labels), -1)}
    for name in NAMES:
        embeddings[name] = np.eye(10)[images.test.labels] + rng.normal(0, 0.3, (599, 10))
    measured = {
        name: measure(array.astype(np.float32), images.test.labels, images.unseen())
        for name, array in embeddings.items()
    }
    path = folder / "report.html"
    with pytest.MonkeyPatch.context() as patch, Progress() as progress:
        patch.setattr(maps, "A_CLASS", 5)
        trainings = {name: trained(name) for name in NAMES}
        report.write_report(path, images, embeddings, measured, trainings, progress)
    return path


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with browser.Browser(tmp_path_factory.mktemp("profile")) as one:
        yield one


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_no_label_touches_another_and_none_is_cut_off(page, chromium, width):
    chromium.open(page.as_uri(), width)
    assert chromium.evaluate("innerWidth") == width
    assert chromium.evaluate("document.documentElement.scrollWidth") <= width
    assert chromium.evaluate(FAULTS.replace("WIDTH", str(width))) == []
    assert chromium.evaluate("[...document.images].every(one => one.naturalWidth > 0)")


def test_the_check_sees_labels_that_touch(page, chromium):
    chromium.open(page.as_uri(), 390)
    chromium.evaluate(
        "document.querySelectorAll('h2').forEach(e => e.style.position = 'absolute');"
        "document.querySelectorAll('h2').forEach(e => e.style.top = '0');"
        "document.querySelector('h1').style.cssText = 'white-space: nowrap; font-size: 60px'"
    )
    found = " ".join(chromium.evaluate(FAULTS.replace("WIDTH", "390")))
    assert "lies on" in found
    assert "runs out of the window" in found


def test_figures_are_legible_on_a_telephone(page, chromium):
    """Their text, of 9 points and more, is at least 9 pixels high where they are shown."""
    chromium.open(page.as_uri(), 390)
    figures = chromium.evaluate(
        "[...document.querySelectorAll('figure img')].map(i => [i.width, i.naturalWidth])"
    )
    assert len(figures) == len(NAMES) + 2 + 2 * (1 + len(NAMES))
    # 9 points, in pixels of the file, and of the window.
    assert min(9 / 72 * DPI * shown / drawn for shown, drawn in figures) >= 9


def test_all_is_reached_by_keyboard(page, chromium):
    chromium.open(page.as_uri(), 390)
    wanted = chromium.evaluate(
        "[...document.querySelectorAll('a, .scroll')].map("
        "e => e.getAttribute('aria-label') || e.textContent)"
    )
    seen = []
    for _ in wanted:
        chromium.press("Tab", 9)
        focused = chromium.evaluate(FOCUSED)
        assert focused["outline"] != "none", focused
        assert focused["seen"], focused
        seen.append(focused["name"])
    assert seen == wanted
    # What runs out of its box is scrolled to by the arrows: nothing is for a mouse alone.
    hidden = chromium.evaluate(
        "[...document.querySelectorAll('*')].filter(e => e.scrollWidth > e.clientWidth + 1 &&"
        " ['auto', 'scroll'].includes(getComputedStyle(e).overflowX) && e.tabIndex < 0).length"
    )
    assert hidden == 0


def test_links_lead_to_the_parts(page, chromium):
    chromium.open(page.as_uri(), 390)
    broken = chromium.evaluate(
        "[...document.querySelectorAll('a')].filter("
        "a => !document.getElementById(a.getAttribute('href').slice(1))).length"
    )
    assert broken == 0
    assert chromium.evaluate(
        "performance.getEntriesByType('resource').length"
    ) == chromium.evaluate(
        "performance.getEntriesByType('resource').filter(e => e.name.startsWith('data:')).length"
    )


def test_the_page_has_a_place_for_all_that_is_filled_in():
    fields = string.Template(report.TEMPLATE.read_text(encoding="utf-8")).get_identifiers()
    assert {"curves", "roc", "histograms", "maps", "classes", "neighbours"} <= set(fields)
