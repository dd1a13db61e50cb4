"""The command line itself: statuses, one-line errors, lazy imports."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest
from caffe_metric import commands
from caffe_metric.support.errors import UserError


@pytest.fixture
def fake(monkeypatch):
    """Registers a command whose module runs the given function."""

    def register(run):
        module = types.ModuleType("fake_command", "A command of this test.")
        module.add_arguments = lambda parser: parser.add_argument("--count", type=int, default=1)
        module.run = run
        monkeypatch.setitem(sys.modules, "caffe_metric.commands.fake", module)
        monkeypatch.setattr(commands, "COMMANDS", {"fake": "does this"})

    return register


def test_arguments_reach_the_command_and_its_status_comes_back(fake, command):
    fake(lambda args: args.count)
    assert command("fake", "--count", "3") == (3, "", "")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (UserError("two\nlines"), "two lines"),
        (
            FileNotFoundError(2, "No such file or directory", "net.prototxt"),
            "net.prototxt: No such",
        ),
        (OSError(28, "No space left on device"), "No space left on device"),
        (
            ModuleNotFoundError("No module named 'faiss'", name="faiss"),
            "pip install 'caffe-metric[mine]'",
        ),
        (KeyboardInterrupt(), "interrupted"),
    ],
)
def test_an_error_is_one_line_and_status_1(fake, command, error, words):
    def run(args):
        raise error

    fake(run)
    status, out, err = command("fake")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("caffe-metric fake: ")
    assert words in err


def test_a_bug_keeps_its_traceback(fake, command):
    fake(lambda args: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        command("fake")


@pytest.mark.parametrize("arguments", [[], ["no-such-command"], ["fake", "--count", "x"]])
def test_wrong_usage_is_status_2(fake, command, arguments):
    fake(lambda args: 0)
    with pytest.raises(SystemExit) as stopped:
        command(*arguments)
    assert stopped.value.code == 2


def test_a_reader_that_leaves_is_no_traceback():
    code = (
        "import sys, types; from caffe_metric import commands\n"
        "m = types.ModuleType('m'); m.add_arguments = lambda p: None\n"
        "m.run = lambda args: print('x' * 1000000) or 0\n"
        "sys.modules['caffe_metric.commands.m'] = m; commands.COMMANDS = {'m': ''}\n"
        "sys.exit(commands.main(['m']))"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    writer.stdout.close()
    errors = writer.stderr.read()
    writer.stderr.close()
    assert (writer.wait(), errors) == (1, b"")


def test_help_imports_no_library_of_a_command():
    code = (
        "import sys; from caffe_metric import commands\n"
        "try: commands.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'caffe', 'numpy', 'matplotlib', 'google'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_every_command_has_its_module(name):
    assert importlib.util.find_spec(f"caffe_metric.commands.{name}")


def test_commands_import_nothing_of_each_other():
    folder = Path(commands.__file__).parent
    names = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert names == set(commands.COMMANDS)
    for path in folder.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        found = re.search(
            r"^\s*(from|import) caffe_metric(\.| import )commands.*", text, re.MULTILINE
        )
        assert not found, f"{path.name}: {found[0]}"
