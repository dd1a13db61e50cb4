"""BatchNorm's averages of a trained model, measured anew."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np

from caffe_metric.nets import batch_norm, blobs, netfile
from caffe_metric.nets.phases import TRAIN
from caffe_metric.nets.prune import layers_of_phase
from caffe_metric.support import child
from caffe_metric.support.errors import UserError
from caffe_metric.training.trunks import trunk_until

BATCH, BATCHES = 64, 200
READER = """
layer {{ name: "caffe_metric_images" type: "Python" top: "{0}" top: "caffe_metric_label"
  python_param {{ module: "caffe_metric.layers" layer: "IdentityDataLayer" param_str: {1} }} }}
"""


def measure(source, target, net_path, data, batches=BATCHES) -> list[str]:
    """Writes a model whose BatchNorm layers hold the plain mean over so many batches of `data`.

    Images are read as the net's TRAIN data layer reads them, in shuffled batches of 64; Dropout
    works as in training. What else the model holds is kept. Returns lines that tell. UserError.
    """
    message = netfile.read(str(net_path))
    layers = batch_norm.averages(layers_of_phase(message, TRAIN))
    if not layers:
        raise UserError(f"{net_path}: has no BatchNorm layer that keeps averages")
    names = [layer.name for layer in layers]
    trunk = trunk_until(message, net_path, [layer.top[0] for layer in layers])
    settings = {**trunk.picture, "source": str(data), "layout": "SHUFFLED", "batch_size": BATCH}
    settings.update(seed=0, persist_iteration=False)
    for layer in trunk.layers:
        if layer.type == "BatchNorm":
            # Nothing shrinks: sums, and their number.
            layer.batch_norm_param.moving_average_fraction = 1
    quoted = json.dumps(json.dumps(settings), ensure_ascii=False)
    text = READER.format(trunk.blob, quoted) + trunk.text()
    netfile.find_python_layers(str(net_path))
    outcome = child.run(lambda: _forward(text, source, names, batches))
    if not outcome.ok:
        raise UserError(f"{net_path}: {outcome.last_words}")
    with blobs.open_model(source) as model:
        for name, values in outcome.value.items():
            if not model.shapes().get(name):
                raise UserError(f"{source}: has no layer '{name}'")
            for place, value in enumerate(values):
                model.put(name, place, value)
        model.save(target)
    return [
        f"measured {len(names)} BatchNorm layer(s) over {batches} batches of {BATCH} of {data}",
        f"wrote {target}",
    ]


def _forward(text, model, names, batches):
    import caffe

    caffe.set_mode_cpu()
    caffe.set_random_seed(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "net.prototxt")
        path.write_text(text)
        net = caffe.Net(str(path), caffe.TRAIN)
    net.copy_from(str(model))
    for name in names:
        for blob in net.params[name]:
            blob.data[...] = 0
    for _ in range(batches):
        net.forward()
    return {name: [np.array(blob.data) for blob in net.params[name]] for name in names}
