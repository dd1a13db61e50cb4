"""The command line `caffe-metric COMMAND ...`.

A command is a module with `add_arguments(parser)` and `run(args) -> int`.  It
is imported only when it is called, so that no command waits for the libraries
of another.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from caffe_metric import __version__
from caffe_metric.support import extras
from caffe_metric.support.errors import UserError

# command: what it does. Its module is caffe_metric.commands.COMMAND.
COMMANDS = {
    "patch": "add the layers to a Caffe tree, or take them out again",
    "lint": "say what would fail in a net before Caffe aborts",
    "gradcheck": "compare a layer's gradient with finite differences",
    "convert": "turn images by folder or list, or IDX files, into LMDB",
    "align": "align faces by five landmarks",
    "preset": "write net and solver for one of the known ways to train",
    "train": "train, and survive what happens on the way",
    "extract": "write embeddings and labels of a data set",
    "mine": "mine triplets offline",
    "eval": "verification, retrieval and clustering of embeddings",
    "weights": "fit a model's MarginInnerProduct blobs to a net",
    "modernize": "rewrite a net of another fork for this suite",
    "deploy": "write a deploy net of stock layers only",
    "plot": "draw training curves from a Caffe log",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit status: 0, 1 (an error) or 2 (wrong usage)."""
    parser = argparse.ArgumentParser(
        prog="caffe-metric",
        description="Metric-learning layers for Caffe, and the tools around them.",
        epilog="commands:\n" + "\n".join(f"  {name:<10} {text}" for name, text in COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="see below")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="see COMMAND --help")
    for stream in (sys.stdout, sys.stderr):  # a name that is no UTF-8 must be said, too
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    chosen = parser.parse_args(argv)
    return _run(chosen.command, chosen.arguments)


def _run(command: str, arguments: Sequence[str]) -> int:
    try:
        module = importlib.import_module(f"{__name__}.{command}")
        parser = argparse.ArgumentParser(
            prog=f"caffe-metric {command}",
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(parser)
        return module.run(parser.parse_args(arguments))
    except UserError as error:
        return _fail(command, str(error))
    except ModuleNotFoundError as error:
        return _fail(command, extras.advice(error))
    except BrokenPipeError:
        # The reader of a pipe has left; nothing may be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(command, f"{where}{error.strerror or error}")
    except KeyboardInterrupt:
        return _fail(command, "interrupted")


def _fail(command: str, message: str) -> int:
    print(f"caffe-metric {command}: {' '.join(message.split())}", file=sys.stderr)
    return 1
