"""Teeth of the host-emulated tests: a fault put into a kernel has to make one of them fail.

A mutant is one place changed in a .cu file or in a header of kernels that it launches, compiled and
linked as build/hostcuda does it with the original, whose other objects it shares.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass

import pytest
from hostcuda_build import BUILD, ROOT, need_hostcuda, run

need_hostcuda()
pytestmark = pytest.mark.slow  # each compiles

REWRITER = ROOT / "tests" / "hostcuda" / "launch_rewrite.py"


@dataclass
class Mutant:
    """`old`, once in the .cu file or `header`, becomes `new`; `test` has to fail."""

    file: str
    old: str
    new: str
    test: str
    says: str = "FAILED"
    header: str = ""  # of include/caffe_metric
    guard: str = ""  # HOSTCUDA_GUARD: which side of an allocation may not be read


MUTANTS = {
    "wrong index": Mutant(
        "triplet_rows",
        "slope[own] +=",
        "slope[q] +=",
        "GpuParityTest/0.TestTripletLossMined",
        header="triplet_mining.cuh",
    ),
    "one anchor's side only": Mutant(
        "sup_con_loss_layer",
        "met, measure, strip.labels[i] == label, states[i], own));",
        "met, measure, strip.labels[i] == label, own, own));",
        "BatchLossTest/2.TestFormulas",
        header="batch_rows.cuh",
    ),
    "search astray": Mutant(
        "triplet_rows",
        "if (!own.is_finite()) {",
        "if (false) {",
        "TripletMining*/2.TestNaNAndTooLarge",
        header="triplet_all.cuh",
        guard="start",
    ),
    "missing term": Mutant(
        "rank_hard_loss_layer",
        "of_anchor * anchor[k] + of_positive * anchor[dim + k];",
        "of_anchor * anchor[k] + 0 * of_positive * anchor[dim + k];",
        "GpuParityTest/0.TestRankHardLoss",
        header="rank_hard.cuh",
    ),
    "host pointer": Mutant(
        "margin_inner_product_layer",
        "this->targets_.gpu_data(), this->norms_.gpu_data(),",
        "this->targets_.cpu_data(), this->norms_.gpu_data(),",
        "GpuParityTest/0.TestMarginInnerProduct",
        "set_target_logits was given the host pointer",
    ),
    "one element too many": Mutant(
        "norm_layer",
        "    y[begin + k] = x[begin + k] * factor;",
        "    y[begin + k + 1] = x[begin + k] * factor;",
        "GpuParityTest/0.TestNorm",
        "kernel norm_rows, .* bytes after an allocation",
        header="norm.cuh",
    ),
    "one element too early": Mutant(
        "norm_layer",
        "    y[begin + k] = x[begin + k] * factor;",
        "    y[begin + k - 1] = x[begin + k] * factor;",
        "GpuParityTest/0.TestNorm",
        "kernel norm_rows .* bytes before an allocation",
        header="norm.cuh",
    ),
    "host reads the device": Mutant(
        "norm_layer",
        "  CUDA_POST_KERNEL_CHECK;\n}\n\ntemplate",
        "  CUDA_POST_KERNEL_CHECK;\n  norms[0] += 1;\n}\n\ntemplate",
        "GpuParityTest/0.TestNorm",
        "host code touched device memory",
    ),
    "loss weight forgotten": Mutant(
        "rank_hard_loss_layer",
        "const T scale = loss_diff[0] / normalizer;",
        "const T scale = 1 / normalizer;",
        "RankHardLoss*/2.*:RankHardLoss*/3.*",
        header="rank_hard.cuh",
    ),
}


def rewrite(source, target):
    headers = sorted((ROOT / "include" / "caffe_metric").glob("*.cuh"))
    subprocess.run([sys.executable, REWRITER, source, target, *headers], check=True)


def build_mutant(mutant, folder):
    """Compiles and links the mutant's test program."""
    [original] = (ROOT / "src" / "caffe").glob(f"*/{mutant.file}.cu")
    shutil.copy(original, folder)
    changed = ROOT / "include" / "caffe_metric" / mutant.header if mutant.header else original
    source = changed.read_text()
    assert source.count(mutant.old) == 1, "the place to change has changed"
    (folder / changed.name).write_text(source.replace(mutant.old, mutant.new))
    if mutant.header:
        (folder / "caffe_metric").mkdir()
        rewrite(folder / changed.name, folder / "caffe_metric" / changed.name)
    rewritten = folder / f"{original.name}.cpp"
    rewrite(folder / original.name, rewritten)
    entries = json.loads((BUILD / "compile_commands.json").read_text())
    [entry] = [e for e in entries if e["file"].endswith(f"/{original.name}.cpp")]
    compile_line = shlex.split(entry["command"])
    old_object = compile_line[compile_line.index("-o") + 1]
    compile_line[compile_line.index("-o") + 1] = str(folder / "mutant.o")
    compile_line[compile_line.index("-c") + 1] = str(rewritten)
    first = next(i for i, word in enumerate(compile_line) if word.startswith("-I"))
    compile_line.insert(first, f"-I{folder}")
    subprocess.run(compile_line, cwd=BUILD, check=True)
    commands = subprocess.run(
        ["ninja", "-t", "commands", "metric_test"],
        cwd=BUILD,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    link_line = shlex.split(commands.splitlines()[-1])
    link_line = link_line[link_line.index("&&") + 1 :]
    link_line = link_line[: link_line.index("&&")]
    assert old_object in link_line
    link_line[link_line.index(old_object)] = str(folder / "mutant.o")
    link_line[link_line.index("-o") + 1] = str(folder / "mutant_test")
    subprocess.run(link_line, cwd=BUILD, check=True)
    return folder / "mutant_test"


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_found(name, tmp_path):
    mutant = MUTANTS[name]
    healthy = run(BUILD / "metric_test", f"--gtest_filter={mutant.test}")
    assert healthy.returncode == 0, healthy.stdout[-2000:]
    assert "[  PASSED  ] 0 tests" not in healthy.stdout
    program = build_mutant(mutant, tmp_path)
    sick = run(program, f"--gtest_filter={mutant.test}", HOSTCUDA_GUARD=mutant.guard)
    assert sick.returncode != 0, f"no test saw: {name}"
    assert re.search(mutant.says, sick.stdout + sick.stderr)
