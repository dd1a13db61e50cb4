"""Edits, hunks, and taking ours out of a file that was edited since: on random files.

The lines are all different, so that an owner's edit can be told without doubt. Repeated lines, as
in a real caffe.proto, are in test_patch_owner.py.
"""

from __future__ import annotations

import random

import pytest
from caffe_metric.patch.text import Edit, apply_edits, hunks_of, lines_of
from caffe_metric.patch.unmerge import unmerge


def random_file(rng, count):
    lines = [f"line {number} {rng.random()}\n" for number in range(count)]
    if lines and rng.random() < 0.3:
        lines[-1] = lines[-1].rstrip("\n")
    return lines


def random_edits(rng, text):
    """Edits of ours anywhere, also within lines."""
    places = sorted(rng.sample(range(len(text) + 1), min(6, len(text) + 1)))
    edits = []
    for start, end in zip(places[::2], places[1::2]):
        if rng.random() < 0.5:
            end = start
        new = rng.choice(["", "x", "our line\n", "one\ntwo\n", "tail\nhead"])
        edits.append(Edit(start, end, f"{new}{rng.random()}" if new else ""))
    return edits


@pytest.mark.parametrize("seed", range(300))
def test_hunks_and_unmerge_of_random_files(seed):
    rng = random.Random(seed)
    before = "".join(random_file(rng, rng.choice([0, 1, 2, 3, 7, 33])))
    edits = random_edits(rng, before)
    after = apply_edits(before, edits)
    hunks = hunks_of(before, edits)
    old, new = lines_of(before), lines_of(after)
    # outside the hunks the files are the same, and the hunks are in order
    done = shift = 0
    for first, last, start, end in hunks:
        assert done <= first <= last and start - first == shift
        assert old[done:first] == new[done + shift : start]
        done, shift = last, end - last
    assert old[done:] == new[done + shift :]
    # untouched, it comes back
    assert unmerge(before, after, after, hunks).text == before
    # an owner's line between two hunks, or at an end, stays, and ours goes
    taken = {line for first, last, start, end in hunks for line in range(start, end)}
    free = [line for line in range(len(new)) if line not in taken and new[line].endswith("\n")]
    if free:
        line = rng.choice(free)
        edited = new[:line] + ["the owner's\n", new[line]] + new[line + 1 :]
        result = unmerge(before, after, "".join(edited), hunks)
        assert not result.conflicts
        expected = lines_of(before)
        expected.insert(expected.index(new[line]), "the owner's\n")
        assert result.text == "".join(expected)
    # an owner's edit of a line of ours is a conflict there
    if taken:
        line = rng.choice(sorted(taken))
        edited = new[:line] + ["the owner's\n"] + new[line + 1 :]
        assert line + 1 in unmerge(before, after, "".join(edited), hunks).conflicts


def test_edits_that_overlap_are_a_mistake():
    with pytest.raises(ValueError, match="overlap in line 2"):
        apply_edits("a\nbcd\n", [Edit(2, 4, ""), Edit(3, 5, "")])
