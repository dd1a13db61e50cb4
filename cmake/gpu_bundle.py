"""Packs a build of the layers for GPUs so that another machine can check and time it.

    gpu_bundle.py BUILD BUNDLE.tar.xz [--preset 6]

BUILD is the tree of `./run gpu-bundle`, or the folder of the host emulation's build. The programs
are packed with the libraries that they need, but for glibc, CUDA's own and the driver: those are of
the machine that runs it. benchmarks/gpu/check.sh goes with them, and what it needs: the nets of
examples 01 to 03 and a few images.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "python"))

from caffe_metric.data.conversion import convert, keep_classes  # noqa: E402
from caffe_metric.demo.databases import TEST, TRAINING  # noqa: E402
from caffe_metric.demo.images import load_images  # noqa: E402

PROGRAMS = ("caffe", "test.testbin", "gpu_device", "gpu_parity", "gpu_times")
EXAMPLES = ("01_triplet", "02_rank_hard", "03_margin")
# Images of which the databases are made: some 28 batches.
TRAINING_IMAGES, TEST_IMAGES = 4000, 500
LARGEST = 60_000_000  # bytes of the bundle
# The newest of glibc that a program may need: Debian 12's.
GLIBC = (2, 36)

# Of the machine that runs it.
OF_GLIBC = re.compile(
    r"(ld-linux.*|linux-vdso|lib(c|m|mvec|pthread|dl|rt|resolv|util|anl|nsl|BrokenLocale))\.so.*"
)
OF_CUDA = re.compile(r"lib(cublas|cublasLt|curand|cudart|nvJitLink)\.so.*")
OF_DRIVER = re.compile(r"lib(cuda|nvidia-.*)\.so.*")


class BundleError(Exception):
    """Says what cannot be packed."""


def programs(build):
    """{name: path}: of Caffe's own build, or of the host emulation's."""
    places = (build / "build" / "tools", build / "build" / "test", build)
    found = {}
    for name in PROGRAMS:
        path = next((place / name for place in places if (place / name).is_file()), None)
        if path is None:
            raise BundleError(f"{build} has no {name}")
        found[name] = path
    return found


def libraries(paths, folders):
    """({name: path} of what they need and the bundle carries, names of CUDA's libraries)."""
    search = ":".join(map(str, folders))
    carried, of_cuda = {}, set()
    for path in paths:
        done = subprocess.run(
            ["ldd", str(path)],
            env={"LD_LIBRARY_PATH": search, "PATH": "/usr/bin:/bin", "LC_ALL": "C"},
            capture_output=True,
            text=True,
            check=True,
        )
        for line in done.stdout.splitlines():
            words = line.split()
            name = Path(words[0]).name
            if OF_GLIBC.fullmatch(name) or OF_DRIVER.fullmatch(name):
                continue
            if OF_CUDA.fullmatch(name):
                of_cuda.add(name)
            elif "not found" in line:
                raise BundleError(f"{path.name} needs {name}, which is not on this machine")
            else:
                carried[name] = Path(words[2])
    return carried, sorted(of_cuda)


def newest_glibc(path):
    """(2, 34), of the versions of glibc's functions that a file needs."""
    done = subprocess.run(["objdump", "-T", str(path)], capture_output=True, text=True, check=True)
    versions = re.findall(r"GLIBC_(\d+)\.(\d+)", done.stdout)
    return max(((int(major), int(minor)) for major, minor in versions), default=(0, 0))


def copy_binary(source, target):
    """A copy without the symbols that only a debugger reads."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(0o755)
    subprocess.run(["strip", "--strip-unneeded", str(target)], check=True)
    needed = newest_glibc(target)
    if needed > GLIBC:
        raise BundleError(
            f"{target.name} needs glibc {needed[0]}.{needed[1]}, newer than {GLIBC[0]}.{GLIBC[1]}"
        )


def make_databases(folder):
    """The databases that the examples' nets read, of a few images."""
    images = load_images()
    few = images.train.select(np.arange(min(TRAINING_IMAGES, len(images.train.labels))))
    train = keep_classes(few, exclude=set(images.unseen_classes), relabel=True)
    for name, options in TRAINING.items():
        convert(train, folder / name, force=True, **{**options, "epochs": 1})
    convert(images.test.select(np.arange(TEST_IMAGES)), folder / TEST, force=True)
    for lock in folder.glob("*/lock.mdb"):
        lock.unlink()


def fill(build, folder):
    """Puts all of it into a folder."""
    found = programs(build)
    search = [build, build / "build" / "lib"]
    search += sorted((ROOT / "build" / "cuda-toolkit").glob("nvidia/*/lib"))
    carried, of_cuda = libraries(found.values(), search)
    for name, path in found.items():
        copy_binary(path, folder / "bin" / name)
    for name, path in carried.items():
        copy_binary(path, folder / "lib" / name)
    (folder / "needs").write_text("".join(f"{name}\n" for name in of_cuda))
    for name in EXAMPLES:
        (folder / "examples" / name).mkdir(parents=True)
        for file in ("net.prototxt", "solver.prototxt"):
            shutil.copy(ROOT / "examples" / name / file, folder / "examples" / name)
    tree = build if (build / "src").is_dir() else ROOT / "build" / "caffe"
    shutil.copytree(tree / "src/caffe/test/test_data", folder / "src/caffe/test/test_data")
    (folder / "build" / "demo").mkdir(parents=True)
    make_databases(folder / "build" / "demo")
    shutil.copy(ROOT / "benchmarks" / "gpu" / "check.sh", folder)
    shutil.copy(ROOT / "LICENSE", folder)
    shutil.copy(tree / "LICENSE", folder / "LICENSE.caffe")


def pack(folder, out, preset):
    """The folder as a .tar.xz, the same for the same content."""
    temporary = out.with_name(out.name + ".new")
    command = ["tar", "--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mtime=@0"]
    command += [f"--use-compress-program=xz -{preset} -T0", "-C", str(folder.parent)]
    subprocess.run([*command, "-cf", str(temporary), folder.name], check=True)
    size = temporary.stat().st_size
    if size > LARGEST:
        temporary.unlink()
        raise BundleError(f"the bundle has {size / 1e6:.1f} MB, more than {LARGEST / 1e6:.0f}")
    temporary.replace(out)
    return size


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--preset", type=int, default=6, help="of xz (%(default)s)")
    arguments = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "gpu-bundle"
            fill(arguments.build.resolve(), folder)
            size = pack(folder, arguments.out, arguments.preset)
    except (BundleError, OSError, subprocess.CalledProcessError) as error:
        print(f"error: {error}")
        return 1
    print(f"note: {arguments.out}, {size / 1e6:.1f} MB: unpack it where a GPU is, and ./check.sh")
    return 0


if __name__ == "__main__":
    sys.exit(main())
