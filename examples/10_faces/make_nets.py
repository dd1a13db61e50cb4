"""Writes the nets beside it: ResFace-28 and SphereFace-20, to train and to deploy.

    .venv/bin/python examples/10_faces/make_nets.py examples/10_faces/nets

ResFace-28 is the residual net of Wen et al. 2016 (center loss): 27 convolutions of 3 x 3 and an
InnerProduct. SphereFace-20 is that of Liu et al. 2017, table 2: 20 convolutions, those that halve
the sides with stride 2. PReLU behind each convolution, an embedding of 512 numbers.
"""

from __future__ import annotations

import sys
from pathlib import Path

SIZES = {"112x112": (112, 112), "112x96": (112, 96)}  # height x width
PEOPLE = 10575

DATA = """layer {{
  name: "{name}" type: "Data" top: "data" top: "label" include {{ phase: {phase} }}
  transform_param {{ mean_value: 127.5 scale: 0.0078125{mirror} }}
  data_param {{ source: "faces/{source}.lmdb" batch_size: {batch} backend: LMDB }}
}}
"""
INPUT = """layer {{
  name: "data" type: "Input" top: "data"
  input_param {{ shape {{ dim: 1 dim: 3 dim: {} dim: {} }} }}
}}
"""
CONVOLUTION = """layer {{
  name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}"
  param {{ lr_mult: 1 decay_mult: 1 }} param {{ lr_mult: {bias} decay_mult: 0 }}
  convolution_param {{
    num_output: {width} kernel_size: 3{more}
    weight_filler {{ {filler} }} bias_filler {{ type: "constant" value: 0 }}
  }}
}}
layer {{ name: "relu_{name}" type: "PReLU" bottom: "{name}" top: "{name}" }}
"""
SUM = """layer {{
  name: "{name}" type: "Eltwise" bottom: "{left}" bottom: "{right}" top: "{name}"
  eltwise_param {{ operation: SUM }}
}}
"""
POOL = """layer {{
  name: "{name}" type: "Pooling" bottom: "{bottom}" top: "{name}"
  pooling_param {{ pool: MAX kernel_size: 2 stride: 2 }}
}}
"""
EMBEDDING = """layer {{
  name: "fc5" type: "InnerProduct" bottom: "{bottom}" top: "fc5"
  param {{ lr_mult: 1 decay_mult: 1 }} param {{ lr_mult: 2 decay_mult: 0 }}
  inner_product_param {{
    num_output: 512 weight_filler {{ type: "xavier" }} bias_filler {{ type: "constant" value: 0 }}
  }}
}}
"""
# m = 2; the weights are samples of the batch and no class centres, for sets with few images of many
# people, and only semi-hard rows teach.
HEAD = f"""layer {{
  name: "classes" type: "MarginInnerProduct" bottom: "fc5" bottom: "label"
  top: "logits" top: "lambda" include {{ phase: TRAIN }}
  param {{ lr_mult: 0 decay_mult: 0 }} param {{ lr_mult: 0 decay_mult: 0 }}
  margin_inner_product_param {{
    num_output: {PEOPLE} type: DOUBLE weight_filler {{ type: "xavier" }}
    base: 1000 gamma: 0.12 power: 1 lambda_min: 3 triplet: true semihard: true
  }}
}}
layer {{
  name: "loss" type: "SoftmaxWithLoss" bottom: "logits" bottom: "label" top: "loss"
  include {{ phase: TRAIN }}
}}
"""
SOLVER = """# SphereFace-20's schedule, for 494,414 images of 10,575 people; never run in full.
net: "examples/10_faces/nets/{name}/train.prototxt"
type: "SGD"
base_lr: {rate}
lr_policy: "multistep"
gamma: 0.1
stepvalue: 16000
stepvalue: 24000
max_iter: 28000
momentum: 0.9
weight_decay: 0.0005
display: 100
snapshot: 4000
snapshot_prefix: "faces/{name}"
random_seed: 1
solver_mode: CPU
"""


class Body:
    """Layers, one after another; `at` is the blob at the end."""

    def __init__(self):
        self.text, self.at = "", "data"

    def convolution(self, name, width, more, residual=False):
        filler = 'type: "gaussian" std: 0.01' if residual else 'type: "xavier"'
        bias = 0 if residual else 2
        self.text += CONVOLUTION.format(
            name=name, bottom=self.at, width=width, more=more, filler=filler, bias=bias
        )
        self.at = name

    def units(self, stage, width, count):
        """Residual units: two convolutions, whose output is added to their input."""
        for unit in range(count):
            before = self.at
            for half in (2, 3):
                self.convolution(f"conv{stage}_{2 * unit + half}", width, " stride: 1 pad: 1", True)
            self.text += SUM.format(name=f"res{stage}_{unit + 1}", left=before, right=self.at)
            self.at = f"res{stage}_{unit + 1}"

    def pool(self, name):
        self.text += POOL.format(name=name, bottom=self.at)
        self.at = name

    def embedding(self):
        self.text += EMBEDDING.format(bottom=self.at)
        return self.text


def sphereface20() -> str:
    body = Body()
    for stage, (width, units) in enumerate([(64, 1), (128, 2), (256, 4), (512, 1)], 1):
        body.convolution(f"conv{stage}_1", width, " stride: 2 pad: 1")
        body.units(stage, width, units)
    return body.embedding()


def resface28() -> str:
    body = Body()
    body.convolution("conv1_0", 32, "")
    for stage, (width, units) in enumerate([(64, 1), (128, 2), (256, 5), (512, 3)], 1):
        body.convolution(f"conv{stage}_1", width, "")
        body.pool(f"pool{stage}")
        body.units(stage, width, units)
    return body.embedding()


def write(folder: Path) -> None:
    for name, body, rate in [
        ("sphereface20", sphereface20(), 0.1),
        ("resface28", resface28(), 0.05),
    ]:
        made = folder / name
        made.mkdir(parents=True, exist_ok=True)
        reader = DATA.format(
            name="train", phase="TRAIN", mirror=" mirror: true", source="train", batch=128
        )
        reader += DATA.format(name="test", phase="TEST", mirror="", source="test", batch=100)
        texts = {
            "train.prototxt": f'name: "{name}"\n{reader}{body}{HEAD}',
            "solver.prototxt": SOLVER.format(name=name, rate=rate),
        }
        for size, sides in SIZES.items():
            texts[f"deploy_{size}.prototxt"] = f'name: "{name}"\n{INPUT.format(*sides)}{body}'
        for file, text in texts.items():
            (made / file).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
