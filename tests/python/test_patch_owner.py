"""What the owner of a tree does after a patch: edits, chmod, removals, builds, a second patch.

--check tells it, --revert keeps it where it is outside our lines and refuses where it is not, and
a second patch rewrites only files that differ.
"""

from __future__ import annotations

import errno
import os
import subprocess
from dataclasses import replace as changed

import pytest
from caffe_metric import patch
from caffe_metric.patch import payload as payloads
from caffe_metric.support.errors import UserError
from caffe_trees import PROTO, STOCK, line_with, make_tree, snapshot

pytestmark = pytest.mark.slow

NORM = "include/caffe/layers/norm_layer.hpp"


@pytest.fixture
def root(tmp_path):
    return make_tree(tmp_path / "tree")


def edit(root, path, old, new):
    text = (root / path).read_bytes()
    assert old.encode() in text
    (root / path).write_bytes(text.replace(old.encode(), new.encode(), 1))


def test_a_second_patch_writes_nothing(root):
    assert patch.apply(root).changed
    times = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert not patch.apply(root).changed
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == times


def test_a_newer_payload_rewrites_only_what_differs(root):
    ours = payloads.load()
    patch.apply(root)
    times = {path: path.stat().st_mtime_ns for path in root.rglob("*.?pp")}
    sources = [s for s in ours.sources if not s.path.endswith("rank_hard_loss_layer.cpp")]
    sources = tuple(changed(s, data=s.data + b"//\n") if s.path == NORM else s for s in sources)
    sources += (payloads.Source("include/caffe_metric/new/x.hpp", b"// new\n", "mathematics"),)
    newer = changed(ours, sources=sources)
    assert not patch.check(root, newer).whole
    patch.apply(root, payload=newer)
    differing = {
        path.relative_to(root).as_posix()
        for path in {*root.rglob("*.?pp"), *times}
        if not path.exists() or times.get(path) != path.stat().st_mtime_ns
    }
    assert differing == {
        NORM,
        "src/caffe/layers/rank_hard_loss_layer.cpp",
        "src/caffe/test/test_rank_hard_loss_layer.cpp",
        "include/caffe_metric/new/x.hpp",
    }
    assert patch.check(root, newer).whole
    patch.revert(root)
    assert not (root / "include/caffe_metric").exists()


def test_check_tells_what_was_touched(root, command):
    assert command("patch", root, "--check")[:2] == (1, f"{root}: not patched\n")
    patch.apply(root)
    status, out, err = command("patch", root, "--check")
    assert (status, err) == (0, "") and "patched by caffe-metric" in out
    edit(root, PROTO, "optional string name = 1;", "optional string name = 1;  // mine")
    status, out, _ = command("patch", root, "--check")
    assert status == 1 and f"{PROTO}: edited, in lines that are not of the patch" in out
    edit(root, PROTO, "40103;", "40106;")
    (root / NORM).unlink()
    status, out, _ = command("patch", root, "--check")
    line = line_with(root, PROTO, "40106")
    assert status == 1
    assert f"{PROTO}: edited in lines of the patch ({line})" in out
    assert f"{NORM}: removed since" in out


def test_a_file_that_the_owner_removed_comes_back_with_a_patch(root):
    patch.apply(root)
    (root / NORM).unlink()
    assert patch.apply(root).changed
    assert patch.check(root).whole


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_edits_elsewhere_survive_revert_and_a_second_patch(tmp_path, newline):
    root = make_tree(tmp_path / "tree", STOCK.replace("\n", newline))
    patch.apply(root)

    def mine(text):
        """The owner's edits: above, right above and below, and far below our lines."""
        text = text.replace(f"123;{newline}", f"123;{newline}  optional int32 own = 9;{newline}", 1)
        text = text.replace("optional string name = 4;", "optional string name = 4 ;")
        return text.replace("message V0Layer", f"// mine{newline}message V0Layer")

    (root / PROTO).write_bytes(mine((root / PROTO).read_bytes().decode()).encode())
    with (root / PROTO).open("ab") as file:
        file.write(f"message Mine {{}}{newline}".encode())
    expected = mine(STOCK.replace("\n", newline)).encode() + f"message Mine {{}}{newline}".encode()
    assert not patch.check(root).whole
    patch.apply(root)
    assert patch.check(root).whole
    assert b"message Mine {}" in (root / PROTO).read_bytes()
    assert patch.revert(root)
    assert (root / PROTO).read_bytes() == expected


def test_lines_added_after_a_file_that_had_no_final_newline(tmp_path):
    root = make_tree(tmp_path / "tree", STOCK + "// the end")
    patch.apply(root)
    with (root / PROTO).open("a") as file:
        file.write("message Mine {}\n")
    patch.revert(root)
    assert (root / PROTO).read_text() == STOCK + "// the end\nmessage Mine {}\n"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("rank_param = 40103;", "rank_param = 40103; // mine"),
        ("  optional RankParameter rank_param = 40103;\n", ""),
        (
            "  optional RankParameter rank_param",
            "  optional int32 x = 8;\n  optional RankParameter rank_param",
        ),
        ("message RankParameter {\n", "message RankParameter {\n  optional int32 own = 9;\n"),
    ],
)
@pytest.mark.parametrize("again", [patch.revert, patch.apply])
def test_edits_in_our_lines_are_named_and_nothing_changes(root, old, new, again):
    patch.apply(root)
    edit(root, PROTO, old, new)
    before = snapshot(root)
    first = new.split("\n")[0] or "// An older spelling"
    line = line_with(root, PROTO, first) + ("\n" in new)
    with pytest.raises(UserError, match=rf"{PROTO}:({line}|{line - 1}) .nothing was changed"):
        again(root)
    assert snapshot(root) == before


@pytest.mark.parametrize("again", [patch.revert, patch.apply])
def test_edits_of_our_files_are_named_and_nothing_changes(root, again):
    patch.apply(root)
    with (root / NORM).open("a") as file:
        file.write("// mine\n")
    before = snapshot(root)
    with pytest.raises(UserError, match=NORM):
        again(root)
    assert snapshot(root) == before


def test_revert_keeps_what_the_owner_and_a_build_added(root):
    patch.apply(root)
    (root / "build").mkdir()
    (root / "build/libcaffe.so").write_bytes(b"\x7fELF")
    (root / "include/caffe_metric/own.hpp").write_text("// mine\n")
    patch.revert(root)
    assert (root / "build/libcaffe.so").exists()
    assert [p.name for p in (root / "include/caffe_metric").rglob("*")] == ["own.hpp"]


def test_an_owner_who_put_a_file_back_by_hand_may_go_on(root):
    """As `git checkout` of the changed files does."""
    patch.apply(root)
    (root / PROTO).write_text(STOCK)
    assert not patch.check(root).whole
    assert patch.apply(root).changed
    assert patch.check(root).whole
    (root / PROTO).write_text(STOCK)
    assert patch.revert(root)
    assert (root / PROTO).read_text() == STOCK


def test_reverting_twice_is_no_error(root, command):
    patch.apply(root)
    before_second = command("patch", root, "--revert")
    assert before_second[0] == 0
    whole = snapshot(root)
    assert command("patch", root, "--revert")[:2] == (0, f"{root}: not patched, nothing to do\n")
    assert snapshot(root) == whole


def test_modes_of_changed_files_are_kept(root):
    (root / PROTO).chmod(0o640)
    patch.apply(root)
    assert (root / PROTO).stat().st_mode & 0o777 == 0o640
    (root / PROTO).chmod(0o604)
    patch.revert(root)
    assert (root / PROTO).stat().st_mode & 0o777 == 0o604


def test_hard_links_to_files_outside_the_tree_are_not_written_through(root, tmp_path):
    os.link(root / PROTO, tmp_path / "pristine.proto")
    patch.apply(root)
    assert (tmp_path / "pristine.proto").read_text() == STOCK


def test_a_link_inside_the_tree_stays_a_link(root):
    (root / PROTO).rename(root / "src/real.proto")
    (root / PROTO).symlink_to("../../real.proto")
    before = snapshot(root)
    patch.apply(root)
    assert (root / PROTO).is_symlink()
    assert "40103" in (root / "src/real.proto").read_text()
    assert patch.check(root).whole
    patch.revert(root)
    assert snapshot(root) == before


def test_a_link_out_of_the_tree_is_refused(root, tmp_path):
    outside = tmp_path / "outside.proto"
    (root / PROTO).rename(outside)
    (root / PROTO).symlink_to(outside)
    before = snapshot(root)
    with pytest.raises(UserError, match="link out of the tree"):
        patch.apply(root)
    assert snapshot(root) == before
    assert outside.read_text() == STOCK


def test_the_tree_may_be_named_by_a_link(root, tmp_path):
    (tmp_path / "link").symlink_to(root)
    patch.apply(tmp_path / "link")
    assert patch.check(root).whole


def test_a_tree_that_cannot_be_written_is_left_alone(root, command, monkeypatch):
    folder = root / "src/caffe/layers"
    folder.chmod(0o555)
    if os.access(folder, os.W_OK):  # root may write everywhere, except where this says otherwise
        asked = os.access
        monkeypatch.setattr(os, "access", lambda path, mode: path != folder and asked(path, mode))
    before = snapshot(root)
    status, _, err = command("patch", root)
    assert status == 1 and "cannot be written to" in err and err.count("\n") == 1
    assert snapshot(root) == before


@pytest.mark.parametrize("at", [1, 5, 20])
def test_a_full_disk_leaves_the_tree_alone(root, command, monkeypatch, at):
    written = []

    def write(path, data, mode):
        written.append(path)
        if len(written) == at:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        path.write_bytes(data)

    monkeypatch.setattr(patch.journal, "_write", write)
    before = snapshot(root)
    status, _, err = command("patch", root)
    assert status == 1 and "No space left on device; nothing was changed" in err
    assert snapshot(root) == before


def test_a_moved_tree_is_still_patched(root, tmp_path):
    patch.apply(root)
    root.rename(tmp_path / "moved")
    assert patch.check(tmp_path / "moved").whole


def test_dry_run_prints_a_diff_that_makes_the_patch(tmp_path, capfdbinary):
    """The diff of a tree without final newlines, with CRLF, given to git, makes the same tree."""
    from caffe_metric import commands

    files = {"CMakeLists.txt": "cmake_minimum_required(VERSION 2.8.7)\r\nproject(Caffe)"}
    proto = STOCK.rstrip("\n").replace("\n", "\r\n")
    one, two = (make_tree(tmp_path / name, proto, files) for name in ("one", "two"))
    before = snapshot(one)
    assert commands.main(["patch", str(one), "--dry-run"]) == 0
    diff = capfdbinary.readouterr().out
    assert snapshot(one) == before
    subprocess.run(["git", "apply", "--unsafe-paths", "-"], input=diff, cwd=two, check=True)
    patch.apply(one)
    after = {k: v for k, v in snapshot(one).items() if ".caffe-metric" not in k}
    assert {name: entry[0] for name, entry in snapshot(two).items()} == {
        name: entry[0] for name, entry in after.items()
    }


def test_a_damaged_record_is_an_error(root, command):
    patch.apply(root)
    (root / ".caffe-metric/manifest.json").write_text("{")
    status, _, err = command("patch", root, "--revert")
    assert status == 1 and "record of the patch is damaged" in err
    (root / ".caffe-metric/manifest.json").write_text('{"format": 99, "version": "9.0"}')
    assert "9.0" in command("patch", root, "--check")[2]


def test_a_lost_copy_of_an_original_is_an_error(root):
    patch.apply(root)
    (root / ".caffe-metric/before" / PROTO).write_text("other")
    with pytest.raises(UserError):
        patch.revert(root)


@pytest.mark.parametrize(
    ("path", "words"),
    [("nowhere", "no such folder"), ("", "not a Caffe source tree: it has no src/caffe/proto")],
)
def test_what_is_no_caffe_tree(tmp_path, command, path, words):
    status, _, err = command("patch", tmp_path / path)
    assert status == 1 and words in err and err.count("\n") == 1


@pytest.mark.parametrize("header", ["loss_layers.hpp", "vision_layers.hpp"])
def test_trees_before_december_2015_are_refused_with_that_reason(tmp_path, header):
    files = {f"include/caffe/{header}": "", "include/caffe/layers/relu_layer.hpp": None}
    root = make_tree(tmp_path, files=files)
    before = snapshot(root)
    with pytest.raises(UserError, match=rf"before December 2015 .it has {header}"):
        patch.apply(root)
    assert snapshot(root) == before


@pytest.mark.parametrize(
    "layer",
    [
        "template<typename Ftype, typename Btype>\nclass Layer : public LayerBase {\n};",
        "template <typename Dtype, typename Mtype>\nclass Layer {\n};",
        "class LayerBase {};\nclass Layer : public LayerBase {};",
        "template <typename Dtype>\nclass Layer {\n  virtual void Forward_cpu(\n"
        "      const vector<Blob*>& bottom, const vector<Blob*>& top) = 0;\n};",
    ],
)
def test_another_layer_class_gets_the_proto_only_and_is_told_so(tmp_path, command, layer):
    files = {
        "include/caffe/layer.hpp": layer,
        "src/caffe/layers/norm.cpp": "REGISTER_LAYER_CLASS(Norm);\n",  # no clash then
    }
    root = make_tree(tmp_path, files=files)
    before = snapshot(root)
    status, out, err = command("patch", root)
    assert (status, err) == (0, "")
    assert "only caffe.proto is patched" in out and "Python layers" in out
    assert "40105" in (root / PROTO).read_text()
    new = {name for name in snapshot(root) if not name.startswith(".caffe-metric")}
    assert new == set(before)
    assert patch.revert(root)
    assert snapshot(root) == before


@pytest.mark.parametrize(
    "layer",
    [
        "class A { void f() { Forward_cpu(bottom, top); } };\ntemplate <class T> class Layer\n{\n"
        "  virtual void Forward_cpu(const std::vector< Blob<T> * > &b) = 0;\n};",
        "template <typename Dtype> class Layer;\nclass LayerBase { int Layer; };\n"
        "template <typename Dtype>\nclass CAFFE_DLL Layer : public LayerBase {\n};",
        "// nothing that tells\n",
    ],
)
def test_a_layer_class_of_one_type_takes_the_layers(tmp_path, layer):
    root = make_tree(tmp_path, files={"include/caffe/layer.hpp": layer})
    assert patch.apply(root).plan.kind.layers_fit
    assert (root / NORM).exists()
