"""What example 04's nets learned in 200 steps: their models on the test images.

    learned.py NET...

In the folder that holds build/demo. Prints, for the untrained net and each of the trained, recall
at 1 of the trained classes and the AUC of verification of the classes that were kept out; exit
status 1 where an AUC has not grown by GAIN.
"""

from __future__ import annotations

import sys

import numpy as np
from caffe_metric.demo.images import load_images
from caffe_metric.demo.measure import measure
from caffe_metric.evaluation.extraction import extract

GAIN = 0.05


def auc_of(model, net, images) -> float:
    """Prints the line of a model."""
    embeddings = extract(
        f"examples/04_python_layers/{net}.prototxt",
        f"build/demo/python/{model}.caffemodel",
        "build/demo/test.lmdb",
        "embedding",
        500,
    )[0]
    found = measure(np.array(embeddings), images.test.labels, images.unseen())
    auc = found.roc.auc()
    print(f"{model}: recall at 1 {found.recall_at_1:.3f}, unseen AUC {auc:.3f}", flush=True)
    return auc


def main() -> int:
    images = load_images()
    # All have one trunk, and one seed of its weights.
    least = auc_of("untrained_iter_0", "triplet", images) + GAIN
    poor = [net for net in sys.argv[1:] if auc_of(f"{net}_iter_200", net, images) < least]
    if poor:
        print(f"learned less than {GAIN} of AUC: {', '.join(poor)}", file=sys.stderr)
    return int(bool(poor))


if __name__ == "__main__":
    sys.exit(main())
