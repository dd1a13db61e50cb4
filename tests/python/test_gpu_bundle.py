"""What `./run gpu-bundle` packs, tried on the host emulation: unpacked, it checks by itself.

The same packing, check.sh and programs, with a device that the processor plays, and few sizes. What
takes the place of a program here shows that check.sh does not call well what is not.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
from caffe_metric import suite
from hostcuda_build import BUILD, ROOT, need_hostcuda

need_hostcuda()
if not (BUILD / "test.testbin").is_file():
    pytest.skip("the bundle's programs are not built: ./run test", allow_module_level=True)

TESTS = "GpuParityTest/0.TestNorm:PowerLayerTest/2.*:SyncedMemoryTest.TestGPURead"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """The folder that the archive holds."""
    folder = tmp_path_factory.mktemp("bundle")
    archive = folder / "gpu-bundle.tar.xz"
    pack = [sys.executable, ROOT / "cmake" / "gpu_bundle.py", BUILD, archive, "--preset", "0"]
    done = subprocess.run(pack, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    subprocess.run(["tar", "-xf", archive, "-C", folder], check=True)
    return folder / "gpu-bundle"


def check(bundle, out, *arguments, **variables):
    """check.sh with nothing of this project around it."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "OPENBLAS_NUM_THREADS": "1"}
    environment.update(variables)
    return subprocess.run(
        [bundle / "check.sh", "--few", "--steps", "6", "--tests", TESTS, "-o", out, *arguments],
        env=environment,
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_the_unpacked_bundle_checks_the_emulated_device(bundle, tmp_path):
    done = check(bundle, tmp_path / "results")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All is well" in done.stdout
    found = json.loads((tmp_path / "results" / "check.json").read_text())
    assert found["good"] is True
    assert found["device"]["name"] == "host emulation"
    assert found["tests"]["passed"] >= 5
    assert found["tests"]["failed"] == 0
    assert found["tests"]["same_bits"] is True
    native = {layer.type for layer in suite.NATIVE}
    for table in (found["parity"], found["times"]["layers"]):
        assert {re.match(r"\w+", row["layer"]).group() for row in table} == native
    for row in found["parity"]:
        assert row["good"], row
        assert row["selections"], row
        assert row["repeats"], row
        assert row["exact_error"] <= 1e-3
    for row in found["times"]["layers"]:
        assert row["forward_ms"] > 0
        assert row["backward_ms"] > 0
        assert row["beside_ms"] > 0
    assert found["times"]["copy_bytes_per_second"] > 0
    assert [training["steps"] for training in found["training"]] == [6, 6, 6]
    assert all(training["good"] for training in found["training"])
    table = done.stdout
    for word in ("host emulation", "02_rank_hard", "SupConLoss", "InnerProduct", "GB/s"):
        assert word in table


@pytest.mark.slow
def test_nothing_of_this_machine_is_needed_but_glibc(bundle):
    """And, where it is no emulation, what the list of CUDA's libraries names."""
    assert (bundle / "needs").read_text() == ""
    for program in sorted((bundle / "bin").iterdir()):
        done = subprocess.run(
            ["ldd", program],
            env={"LD_LIBRARY_PATH": str(bundle / "lib"), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert "not found" not in done.stdout
        for line in done.stdout.splitlines():
            path = line.split("=>")[-1].split("(")[0].strip()
            at_home = path.startswith(str(bundle)) or re.search(
                r"(ld-linux|linux-vdso|lib(c|m|pthread|dl|rt|resolv|mvec))[-.]", path
            )
            assert at_home, line
            assert str(ROOT) not in path


FAULTS = {
    "test.testbin": ("gtests", 'echo "[  FAILED  ] Norm.Test (1 ms)"; exit 1'),
    "gpu_parity": ("parity", 'echo "Norm 3e-1 <- wrong"; echo "[]" >"$2"; exit 1'),
    # It ends in the middle: what it has found is there.
    "gpu_times": (
        "times",
        '"$0.true" "$@" & until grep -qs Norm "$2"; do :; done; kill -9 $!; wait $!; exit 137',
    ),
    # A GPU that learns something else.
    "caffe": (
        "01_triplet, 02_rank_hard, 03_margin",
        '"$0.true" "$@" 2>&1 | if grep -q GPU "${2#--solver=}"; '
        "then sed 's/loss = /loss = 7/'; else cat; fi",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("program", FAULTS)
def test_a_fault_is_told_by_the_exit_status(bundle, tmp_path, program):
    wrong, script = FAULTS[program]
    path = bundle / "bin" / program
    original = bundle / "bin" / f"{program}.true"
    os.rename(path, original)
    try:
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        done = check(bundle, tmp_path / "results", "--steps", "2")
    finally:
        os.rename(original, path)
    assert done.returncode == 1
    assert f"WRONG: {wrong}." in done.stdout
    found = json.loads((tmp_path / "results" / "check.json").read_text())
    assert found["good"] is False
    if program == "gpu_times":
        assert 0 < len(found["times"]["layers"]) < len(found["parity"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("driver", "message"),
    [
        ("0", "no driver of CUDA is installed here"),
        ("8000", "the driver is too old: it knows CUDA 8.0, and CUDA 9.0 is needed"),
    ],
)
def test_without_a_driver_it_says_so(bundle, tmp_path, driver, message):
    done = check(bundle, tmp_path, HOSTCUDA_DRIVER=driver)
    assert done.returncode == 1
    assert done.stderr == f"{message}\ncheck: no GPU to check\n"


@pytest.mark.slow
def test_without_cudas_libraries_it_says_what_to_install(bundle, tmp_path):
    needs = bundle / "needs"
    needs.write_text("libcublas.so.99\nlibcurand.so.98\n")
    try:
        done = check(bundle, tmp_path)
    finally:
        needs.write_text("")
    assert done.returncode == 1
    assert "libcublas.so.99, libcurand.so.98 of CUDA 13 not found" in done.stderr
