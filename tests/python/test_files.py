"""Files that appear whole: what is replaced, what is written through, what a kill leaves.

The process is killed at every call that changes a name, in a child: what the folder holds then is
either the old content or the new one.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading

import pytest
from caffe_metric.support import child, files
from caffe_metric.support.errors import UserError
from caffe_metric.support.files import replacing, replacing_folder, resuming_folder

CHANGES = ("replace", "unlink", "rmdir")


def write(path, text):
    with replacing(path) as temporary:
        temporary.write_text(text)


def test_a_link_stays_and_its_target_is_replaced(tmp_path):
    (tmp_path / "far").mkdir()
    target, link = tmp_path / "far" / "numbers.json", tmp_path / "link.json"
    target.write_text("old")
    link.symlink_to("far/numbers.json")
    write(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["far", "link.json", "numbers.json"]


def test_a_link_to_nothing_gets_its_target(tmp_path):
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "target")
    write(link, "new")
    assert link.is_symlink()
    assert (tmp_path / "target").read_text() == "new"


def test_a_pipe_is_written_through(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_text()), daemon=True)
    reader.start()
    write(pipe, "through")
    reader.join(10)
    assert got == ["through"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.parametrize("redirected", [False, True], ids=["pipe", "file"])
def test_standard_output_is_written_to(tmp_path, redirected):
    link = tmp_path / "stdout"
    link.symlink_to("/dev/stdout")
    script = (
        "from caffe_metric.support.files import replacing\n"
        "print('before')\n"
        f"with replacing({str(link)!r}) as path: path.write_text('between\\n')\n"
        "print('after')\n"
    )
    if redirected:
        with (tmp_path / "out").open("wb") as out:
            subprocess.run([sys.executable, "-c", script], stdout=out, check=True)
        text = (tmp_path / "out").read_text()
    else:
        text = subprocess.run(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, check=True, text=True
        ).stdout
    assert text == "before\nbetween\nafter\n"
    assert link.is_symlink()


def test_an_older_file_keeps_its_mode(tmp_path):
    path = tmp_path / "secret"
    path.write_text("old")
    path.chmod(0o600)
    write(path, "new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path}: is a folder"):
        write(tmp_path, "new")


def test_file_and_folder_are_flushed_before_and_after_the_rename(tmp_path, monkeypatch):
    steps = []
    monkeypatch.setattr(files, "sync", lambda path: steps.append(("sync", path.is_dir())))
    replace = files.Path.replace
    monkeypatch.setattr(
        files.Path, "replace", lambda *both: steps.append(("rename",)) or replace(*both)
    )
    write(tmp_path / "file", "new")
    assert steps == [("sync", False), ("rename",), ("sync", True)]
    steps.clear()
    with replacing_folder(tmp_path / "folder") as folder:
        (folder / "data").write_text("new")
    assert steps == [("sync", False), ("sync", True), ("rename",), ("sync", True)]


def test_a_linked_folder_is_replaced_where_it_is(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "data").write_text("old")
    (tmp_path / "link").symlink_to("far")
    with replacing_folder(tmp_path / "link", force=True) as folder:
        (folder / "data").write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "far" / "data").read_text() == "new"


def killed_at(place, out):
    """Replaces a folder in a process that dies at the `place`-th change of a name."""
    count = 0

    def dying(function):
        def call(*arguments, **options):
            nonlocal count
            count += 1
            if count == place:
                os.kill(os.getpid(), 9)
            return function(*arguments, **options)

        return call

    def run():
        for name in CHANGES:
            setattr(os, name, dying(getattr(os, name)))
        files._exchange = dying(files._exchange)
        with replacing_folder(out, force=True) as folder:
            (folder / "data").write_text("new")

    return child.run(run)


@pytest.mark.parametrize("exchanges", [True, False], ids=["exchange", "aside"])
def test_killed_at_any_step_a_folder_is_whole(tmp_path, monkeypatch, exchanges):
    if not exchanges:
        monkeypatch.setattr(files, "_exchange", lambda *_: False)
    killed = 0
    for place in range(1, 20):
        out = tmp_path / str(place) / "out"
        out.mkdir(parents=True)
        (out / "data").write_text("old")
        outcome = killed_at(place, out)
        killed += outcome.signal == 9
        if exchanges:  # whole at any moment
            assert (out / "data").read_text() in ("old", "new")
        with pytest.raises(UserError, match="exists already"), replacing_folder(out):
            pass
        assert (out / "data").read_text() in ("old", "new")  # whole at the next call
        if outcome.ok:
            break
    assert outcome.ok
    assert killed >= (2 if exchanges else 3)


def test_a_folder_that_cannot_be_renamed_comes_back(tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    (out / "data").write_text("old")
    monkeypatch.setattr(files, "_exchange", lambda *_: False)
    replace = files.Path.replace

    def refuse(path, target):
        if target == out and not path.name.endswith("-replaced"):
            raise OSError(28, "No space left on device")
        return replace(path, target)

    monkeypatch.setattr(files.Path, "replace", refuse)
    with pytest.raises(OSError, match="No space"), replacing_folder(out, force=True) as folder:
        (folder / "data").write_text("new")
    assert (out / "data").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_two_processes_do_not_resume_one_folder(tmp_path):
    with resuming_folder(tmp_path / "out", "a") as folder:
        (folder / "data").write_text("first")
        outcome = child.run(lambda: enter(tmp_path / "out"))
        assert "another process is writing it" in outcome.last_words
    assert (tmp_path / "out/data").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def enter(path):
    with resuming_folder(path, "a", force=True):
        pass


def test_an_interrupted_folder_goes_on_and_an_error_ends_it(tmp_path):
    def begin(error):
        with resuming_folder(tmp_path / "out", "a") as folder:
            found = sorted(path.name for path in folder.iterdir())
            (folder / str(len(found))).write_text("")
            if error:
                raise error
        return found

    for error in (KeyboardInterrupt(), KeyboardInterrupt(), ValueError()):
        with pytest.raises(type(error)):
            begin(error)
    assert begin(None) == []
    assert not list(tmp_path.glob(".*"))
    with pytest.raises(KeyboardInterrupt), resuming_folder(tmp_path / "two", "a") as folder:
        (folder / "data").write_text("")
        raise KeyboardInterrupt
    with resuming_folder(tmp_path / "two", "a") as folder:
        assert (folder / "data").exists()
