"""The command line `caffe-metric COMMAND ...`.

A command is a module with `add_arguments(parser)` and `run(args) -> int`.  It
is imported only when it is called, so that no command waits for the libraries
of another.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from caffe_metric import __version__
from caffe_metric.errors import UserError

# command: (module, what it does)
COMMANDS = {
    "patch": ("caffe_metric.patch", "add the layers to a Caffe tree, or take them out again"),
    "lint": ("caffe_metric.lint", "say what would fail in a net before Caffe aborts"),
    "gradcheck": ("caffe_metric.gradcheck", "compare a layer's gradient with finite differences"),
    "convert": ("caffe_metric.convert", "turn images by folder or list, or IDX files, into LMDB"),
    "align": ("caffe_metric.align", "align faces by five landmarks"),
    "train": ("caffe_metric.train", "run `caffe train` with progress and early warnings"),
    "extract": ("caffe_metric.extract", "write embeddings and labels of a data set"),
    "mine": ("caffe_metric.mine", "mine triplets offline"),
    "eval": ("caffe_metric.evaluate", "verification, retrieval and clustering of embeddings"),
    "weights": ("caffe_metric.weights", "fit a model's MarginInnerProduct blobs to a net"),
    "deploy": ("caffe_metric.deploy", "write a deploy net of stock layers only"),
    "plot": ("caffe_metric.plot", "draw training curves from a Caffe log"),
    "pages": ("caffe_metric.pages", "write the reference pages of the layers"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit status: 0, 1 (an error) or 2 (wrong usage)."""
    parser = argparse.ArgumentParser(
        prog="caffe-metric",
        description="Metric-learning layers for Caffe, and the tools around them.",
        epilog="commands:\n"
        + "\n".join(f"  {name:<10} {text}" for name, (_, text) in COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="see below")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="see COMMAND --help")
    chosen = parser.parse_args(argv)
    return _run(chosen.command, COMMANDS[chosen.command][0], chosen.arguments)


def _run(command: str, module_name: str, arguments: Sequence[str]) -> int:
    try:
        module = importlib.import_module(module_name)
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
        return _fail(command, f"needs the Python module {error.name}, which is not installed")
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
