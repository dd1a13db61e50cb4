"""A patcher that is killed at any moment leaves the tree whole: as before, or as after.

Every step between two system calls of the transaction is a place to die, by SIGKILL, in a process
of its own. The next call of any kind then finds a tree that is whole.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from caffe_metric import patch
from caffe_metric.patch import journal
from caffe_metric.support.errors import UserError
from caffe_trees import layer_source, make_tree, snapshot

ROOT = Path(patch.__file__).resolve().parents[2]
EVERYTHING = patch.payload.load()
PAYLOAD = dataclasses.replace(  # enough to add, change, replace and remove
    EVERYTHING, sources=tuple(s for s in EVERYTHING.sources if "norm" in s.path)
)


def run_and_kill(root, action, at, who="alone"):
    """Runs the action in a forked process that dies once, at step `at`; waits for all it started.

    who: "alone": the process has no second one to carry the change out. "worker": the one dies that
    makes the steps. "waiting": the command dies while its worker makes them. Returns the status,
    and how many steps were reached.
    """
    died = Path(f"{root}.died")
    died.unlink(missing_ok=True)
    reader, writer = os.pipe()
    main = os.fork()
    if main == 0:
        with contextlib.suppress(BaseException):
            os.close(reader)
            _act_and_die(root, action, at, who, died, writer)
            os._exit(0)
        os._exit(1)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        steps = len(pipe.read())  # ends when the last process has
    return os.waitpid(main, 0)[1], steps


def _act_and_die(root, action, at, who, died, writer):
    main, steps = os.getpid(), 0

    def reached(step):
        nonlocal steps
        steps += 1
        os.write(writer, b".")
        if steps == at and not died.exists():
            died.touch()
            os.kill(main if who == "waiting" else os.getpid(), signal.SIGKILL)

    journal.reached = reached
    if who == "alone":
        journal._own_process = lambda: contextlib.nullcontext(True)
    if action == "apply":
        patch.apply(root, replace=True, payload=PAYLOAD)
    else:
        patch.revert(root)


def tree(root):
    """A tree in which files are added, changed, replaced and removed."""
    files = {
        "CMakeLists.txt": "cmake_minimum_required(VERSION 2.8.7)\n",
        "include/caffe/layers/norm_layer.hpp": "// theirs\n",
        "src/caffe/layers/l2.cpp": layer_source("Norm"),
    }
    return make_tree(root, files=files)


def content(root):
    """The tree without the patcher's own folder."""
    return {k: v for k, v in snapshot(root).items() if not k.startswith(".caffe-metric")}


def ends(tmp_path, action):
    """(before, after, number of steps) of a run that nobody kills."""
    root = tree(tmp_path / "undisturbed")
    if action == "revert":
        patch.apply(root, replace=True, payload=PAYLOAD)
    before = content(root)
    status, steps = run_and_kill(root, action, -1)
    assert status == 0
    return before, content(root), steps


@pytest.mark.parametrize("action", ["apply", "revert"])
@pytest.mark.slow
def test_killed_at_every_step(tmp_path, action):
    before, after, steps = ends(tmp_path, action)
    assert before != after and steps > 20
    outcomes = []
    for at in range(1, steps + 1):
        root = tree(tmp_path / f"at{at}")
        if action == "revert":
            patch.apply(root, replace=True, payload=PAYLOAD)
        assert run_and_kill(root, action, at)[0] == signal.SIGKILL
        status = patch.check(root, PAYLOAD)
        assert content(root) in (before, after), at
        outcomes.append(content(root) == after)
        assert status.version == "" or status.whole, at
        assert not (root / journal.NEXT).exists() and not (root / journal.JOURNAL).exists()
        if action == "revert" and outcomes[-1]:
            assert snapshot(root) == after, at
    assert outcomes == sorted(outcomes)  # before it counts, then after
    assert not outcomes[0] and outcomes[-1]


@pytest.mark.parametrize("who", ["worker", "waiting"])
@pytest.mark.slow
def test_no_other_call_is_needed_while_one_of_two_processes_lives(tmp_path, who):
    before, after, steps = ends(tmp_path, "apply")
    outcomes = []
    for at in range(1, steps + 1, 3):
        root = tree(tmp_path / f"at{at}")
        run_and_kill(root, "apply", at, who)
        assert content(root) in (before, after), at
        outcomes.append(content(root) == after)
    assert outcomes == sorted(outcomes) and outcomes[-1]


def test_recovery_may_be_killed_too(tmp_path):
    _, after, steps = ends(tmp_path, "apply")
    root = tree(tmp_path / "tree")
    run_and_kill(root, "apply", steps - 8)
    assert (root / journal.JOURNAL).exists()
    for _ in range(3):
        run_and_kill(root, "apply", 2)
    patch.check(root)
    assert content(root) == after


def test_two_patchers_do_not_meet(tmp_path, monkeypatch):
    root = tree(tmp_path / "tree")
    before = snapshot(root)
    monkeypatch.setattr(journal, "PATIENCE", 0.1)
    with journal.locked(root.resolve()), pytest.raises(UserError, match="another caffe-metric"):
        patch.apply(root)
    assert snapshot(root) == before


def test_a_patcher_waits_for_another(tmp_path):
    root = tree(tmp_path / "tree")
    many = [
        subprocess.Popen(
            [sys.executable, "-m", "caffe_metric", "patch", str(root), "--replace"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
        )
        for _ in range(3)
    ]
    said = [process.communicate()[0].decode() for process in many]
    assert all(process.returncode == 0 for process in many)
    assert sum("nothing to do" in words for words in said) == 2
    assert patch.check(root).whole
