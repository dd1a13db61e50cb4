"""`caffe-metric preset NAME --trunk NET -o DIR`: net and solver for a known way to train.

NET is a net that makes embeddings, for deployment or training: its own data layer and losses are
left out. Writes DIR/net.prototxt, DIR/solver.prototxt, for a training in two stages also the
first's DIR/1_net.prototxt and DIR/1_solver.prototxt, and prints the commands that train. Margin,
scale, lambda, rate and BatchNorm's averages fit the number of classes and iterations.

Names:
"""

from __future__ import annotations

from caffe_metric.training import preset_options
from caffe_metric.training.presets import PRESETS

__doc__ += "".join(f"  {name:<22}{preset.text}\n" for name, preset in PRESETS.items())


def add_arguments(parser):
    parser.add_argument("name", metavar="NAME", choices=sorted(PRESETS), help="see above")
    preset_options.add_options(parser, required=True)


def run(args):
    preset_options.write_files(args.name, args)
    return 0
