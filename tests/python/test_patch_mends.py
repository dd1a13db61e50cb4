"""Each mend acts where a tree has its break, on that alone, and can be left out.

BROKEN holds, for each mend, a text that has the break and what becomes of it; WHOLE texts that
look alike and have it not. What a compiler makes of the mended stock tree is seen by building it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from caffe_metric import patch
from caffe_metric.patch.mends import MENDS
from caffe_metric.support.errors import UserError
from caffe_trees import make_tree, snapshot

pytestmark = pytest.mark.slow

CPP = "src/caffe/util/some.cpp"
CMAKE = "CMakeLists.txt"

BROKEN = {
    "protobuf-bytes-limit": [
        (
            CPP,
            "in->SetTotalBytesLimit(kLimit, 536870912);\n",
            "in->SetTotalBytesLimit(kLimit);\n",
        ),
        (
            CPP,
            "in . SetTotalBytesLimit( INT_MAX ,\n  -1 );\n",
            "in . SetTotalBytesLimit( INT_MAX );\n",
        ),
    ],
    "cuda13-device-properties": [
        (
            CPP,
            "cudaDeviceProp prop;\nint a;\n"
            'LOG(INFO) << "Clock; rate: "\n    << prop.clockRate; // kHz\nint b;\n',
            "cudaDeviceProp prop;\nint a;\n#if CUDART_VERSION < 13000\n"
            'LOG(INFO) << "Clock; rate: "\n    << prop.clockRate; // kHz\n#endif\nint b;\n',
        )
    ],
    "random-shuffle": [
        (
            CPP,
            '#include <vector>\n#include "caffe/layer.hpp"\nvoid f() {\n'
            "  std::random_shuffle(v.begin(), g(v, 1));\n}\n",
            '#include <vector>\n#include "caffe/layer.hpp"\n#include "caffe/util/rng.hpp"\n'
            "void f() {\n  caffe::shuffle(v.begin(), g(v, 1));\n}\n",
        ),
        (
            CPP,
            '#include "caffe/util/rng.hpp"\nint x = (random_shuffle(a, b), 1);\n',
            '#include "caffe/util/rng.hpp"\nint x = (caffe::shuffle(a, b), 1);\n',
        ),
    ],
    "opencv4-constants": [
        (
            CPP,
            "f(CV_LOAD_IMAGE_COLOR, CV_BGR2GRAY, CV_CAP_PROP_FPS, CV_FOURCC('X','V','I','D'),\n"
            "  CV_INTER_NN, CV_FILLED, CV_RGB(255, 0, 1), CV_8UC3, CV_MAJOR_VERSION);\n",
            "f(cv::IMREAD_COLOR, cv::COLOR_BGR2GRAY, cv::CAP_PROP_FPS,"
            " cv::VideoWriter::fourcc('X','V','I','D'),\n"
            "  cv::INTER_NEAREST, cv::FILLED, cv::Scalar(1, 0, 255), CV_8UC3, CV_MAJOR_VERSION);\n",
        )
    ],
    "opencv4-headers": [
        (
            CPP,
            '#include <opencv/cv.h>\n#  include "highgui.h"\n#include <opencv2/core/core.hpp>\n',
            '#include <opencv2/opencv.hpp>\n#  include "opencv2/opencv.hpp"\n'
            "#include <opencv2/core/core.hpp>\n",
        )
    ],
    "opencv-version-guards": [
        (
            CPP,
            "#if CV_VERSION_MAJOR == 3\n#define CV_BGR2GRAY cv::COLOR_BGR2GRAY\n#endif\n"
            "#if CV_MAJOR_VERSION == 2\nint a;\n#elif (CV_MAJOR_VERSION == 3)\nint b;\n#endif\n"
            "#if CV_MAJOR_VERSION != 3  // == 3\nint c;\n#endif\n",
            "#if CV_VERSION_MAJOR >= 3\n#define CV_BGR2GRAY cv::COLOR_BGR2GRAY\n#endif\n"
            "#if CV_MAJOR_VERSION == 2\nint a;\n#elif (CV_MAJOR_VERSION >= 3)\nint b;\n#endif\n"
            "#if CV_MAJOR_VERSION < 3  // == 3\nint c;\n#endif\n",
        ),
        (
            "cmake/a.cmake",
            'if(OpenCV_VERSION_MAJOR EQUAL 3)\nelseif("${OpenCV_VERSION_MAJOR}" STREQUAL "3")\n',
            'if(OpenCV_VERSION_MAJOR GREATER 2)\nelseif("${OpenCV_VERSION_MAJOR}" GREATER 2)\n',
        ),
    ],
    "cxx11-cmake": [
        (
            CMAKE,
            "project(Caffe C CXX)\nset(x 1)\n",
            'project(Caffe C CXX)\nif(CMAKE_CXX_STANDARD_DEFAULT STREQUAL "98")\n'
            '  set(CMAKE_CXX_FLAGS "${CMAKE_CXX_FLAGS} -std=c++11")\nendif()\nset(x 1)\n',
        )
    ],
    "cmake-minimum": [
        (
            CMAKE,
            "# cmake_minimum_required(VERSION 2.0)\n"
            "CMAKE_MINIMUM_REQUIRED( VERSION 2.8 FATAL_ERROR)\n",
            "# cmake_minimum_required(VERSION 2.0)\n"
            "CMAKE_MINIMUM_REQUIRED( VERSION 2.8...3.10 FATAL_ERROR)\n",
        ),
        (
            "cmake/a.cmake",
            "cmake_policy(VERSION 3.1...3.4)\n",
            "cmake_policy(VERSION 3.1...3.10)\n",
        ),
    ],
    "cmake-old-policies": [
        (
            CMAKE,
            "cmake_policy(SET CMP0054 OLD)\ncmake_policy(SET CMP0074 OLD)\n",
            "if(CMAKE_VERSION VERSION_LESS 4.0)\n  cmake_policy(SET CMP0054 OLD)\nendif()\n"
            "cmake_policy(SET CMP0074 OLD)\n",
        )
    ],
    "boost-system-cmake": [
        (
            "cmake/Dependencies.cmake",
            "find_package(Boost 1.46 REQUIRED COMPONENTS system thread filesystem)\n",
            "find_package(Boost 1.46 REQUIRED COMPONENTS thread filesystem"
            " OPTIONAL_COMPONENTS system)\n",
        )
    ],
    "boost-python-cmake": [
        (
            "cmake/Dependencies.cmake",
            'find_package(Boost 1.46 COMPONENTS "python-py${boost_py_version}")\n'
            "set(Boost_PYTHON_FOUND ${Boost_PYTHON-PY${boost_py_version}_FOUND})\n",
            'find_package(Boost 1.46 COMPONENTS "python${boost_py_version}")\n'
            "set(Boost_PYTHON_FOUND ${Boost_PYTHON${boost_py_version}_FOUND})\n",
        )
    ],
    "python3-cmake": [
        (
            CMAKE,
            'set(python_version "2" CACHE STRING "Which")\n',
            'set(python_version "3" CACHE STRING "Which")\n',
        )
    ],
    "glog-export-cmake": [
        (
            "cmake/Dependencies.cmake",
            'include("cmake/External/glog.cmake")\r\n',
            'include("cmake/External/glog.cmake")\r\nadd_definitions(-DGLOG_USE_GLOG_EXPORT)\r\n',
        )
    ],
    "cuda13-kernel-stubs": [
        (
            "cmake/Cuda.cmake",
            "list(APPEND CUDA_NVCC_FLAGS ${NVCC_FLAGS_EXTRA})\nmessage()\n",
            "list(APPEND CUDA_NVCC_FLAGS ${NVCC_FLAGS_EXTRA})\n"
            "if(NOT CUDA_VERSION VERSION_LESS 13.0)\n"
            "  list(APPEND CUDA_NVCC_FLAGS -static-global-template-stub=false\n"
            "    -device-entity-has-hidden-visibility=false)\n"
            "endif()\nmessage()\n",
        )
    ],
    "skimage-as-gray": [
        (
            "python/caffe/io.py",
            "img = skimage.io.imread(name, as_grey=not color)  # as_grey=\n",
            "img = skimage.io.imread(name, as_gray=not color)  # as_grey=\n",
        )
    ],
    "numpy-byte-strings": [
        (
            "python/caffe/io.py",
            "a = b.tostring()\nc = np.fromstring(d.data, dtype=t(1)).reshape(\n    2)\n",
            "a = b.tobytes()\nc = np.frombuffer(d.data, dtype=t(1)).copy().reshape(\n    2)\n",
        )
    ],
    "numpy-aliases": [
        ("tools/extra/a.py", "x = np.int(y) + np.float32(z)\n", "x = int(y) + np.float32(z)\n")
    ],
    "cxx-standard": [
        (CMAKE, 'set(F "${F} -std=c++11 -Wall")\n', 'set(F "${F} -std=c++17 -Wall")\n'),
        ("Makefile", "CXXFLAGS += -std=c++0x -g\n", "CXXFLAGS += -std=c++17 -g\n"),
        (CMAKE, "set(CMAKE_CXX_STANDARD 11)\n", "set(CMAKE_CXX_STANDARD 17)\n"),
    ],
}

# What `_active` leaves out: used where OpenCV 4 compiles, defined where it does not.
GUARDED = [
    (
        "#if CV_MAJOR_VERSION == 2\n#define CV_BGR2GRAY 6\n#endif\nf(CV_BGR2GRAY);\n",
        "#if CV_MAJOR_VERSION == 2\n#define CV_BGR2GRAY 6\n#endif\nf(cv::COLOR_BGR2GRAY);\n",
    ),
    (
        "#ifdef CV_VERSION_EPOCH\nf(CV_AA);\n#else\nf(CV_AA);\n#endif\n",
        "#ifdef CV_VERSION_EPOCH\nf(CV_AA);\n#else\nf(cv::LINE_AA);\n#endif\n",
    ),
    (
        "#if CV_VERSION_MAJOR >= 3\n#define CV_AA cv::LINE_AA\n#endif\nf(CV_AA);\n",
        "#if CV_VERSION_MAJOR >= 3\n#define CV_AA cv::LINE_AA\n#endif\nf(CV_AA);\n",
    ),
    (
        "#if defined(CV_VERSION_EPOCH)\n#if X\n#define CV_AA 16\n#endif\n#endif\n"
        "#if CV_MAJOR_VERSION < 3 || X\nf(CV_AA);\n#endif\n",
        "#if defined(CV_VERSION_EPOCH)\n#if X\n#define CV_AA 16\n#endif\n#endif\n"
        "#if CV_MAJOR_VERSION < 3 || X\nf(cv::LINE_AA);\n#endif\n",
    ),
    (
        "#if CV_MAJOR_VERSION < 3\nf(CV_AA);\n#elif CV_MAJOR_VERSION > 3\nf(CV_AA);\n"
        "#else\nf(CV_AA);\n#endif\n",
        "#if CV_MAJOR_VERSION < 3\nf(CV_AA);\n#elif CV_MAJOR_VERSION > 3\nf(cv::LINE_AA);\n"
        "#else\nf(CV_AA);\n#endif\n",
    ),
]

WHOLE = [
    (CMAKE, 'project(Caffe C CXX)\nset(F "-std=c++17")\n'),
    (CMAKE, "project(Other)\n"),
    ("Makefile", "CXXFLAGS += -fPIC $(COMMON_FLAGS)\nX = -std=c++17\n"),
    (CPP, "#if CV_VERSION_MAJOR >= 3\n#elif CV_MAJOR_VERSION == 2\n#endif\n"),
    (CPP, "// #if CV_MAJOR_VERSION == 3\nint i = CV_MAJOR_VERSION == 3;\n"),
    (CPP, "in->SetTotalBytesLimit(kLimit);\n// SetTotalBytesLimit(a, b)\n"),
    (CPP, "#define CV_LOAD_IMAGE_COLOR cv::IMREAD_COLOR\nint i = CV_LOAD_IMAGE_COLOR;\n"),
    (
        CPP,
        '#if CV_MAJOR_VERSION >= 4\n#include "opencv2/imgcodecs/legacy/constants_c.h"\n#endif\n'
        "int i = CV_LOAD_IMAGE_COLOR;\n",
    ),
    (CPP, 'const char* s = "std::random_shuffle(a, b)"; int i = x.random_shuffle(a, b);\n'),
    (CPP, "std::random_shuffle(a, b, generator);\nint CV_32F, MY_CV_BGR2GRAY;\n"),
    (
        CPP,
        "cudaDeviceProp p;\n#if CUDART_VERSION < 13000\nLOG(INFO) << p.clockRate;\n#endif\n",
    ),
    (CPP, "struct Prop { int clockRate; };\nint i = other.clockRate;\n"),
    (CMAKE, "cmake_minimum_required(VERSION 3.5)\ncmake_policy(SET CMP0054 NEW)\n"),
    (CMAKE, "cmake_minimum_required(VERSION 2.8...3.20)\nset(CMAKE_CXX_STANDARD 17)\n"),
    ("cmake/a.cmake", "find_package(Boost REQUIRED COMPONENTS thread filesystem)\n"),
    ("cmake/a.cmake", "find_package(Boost COMPONENTS thread OPTIONAL_COMPONENTS system)\n"),
    ("Makefile", "LIBRARIES += boost_thread\nPYTHON_LIBRARIES ?= boost_python311 python3.11 x\n"),
    ("Makefile", "# LIBRARIES += boost_system hdf5 glog\nF += -std=c++17\n"),
    ("python/caffe/io.py", '"""np.fromstring(x), as_grey=1"""\nnp.fromstring(x, sep=" ")\n'),
    ("python/caffe/io.py", "np.int32, np.float_, xnp.int, np.integer, np.bool_\n"),
    ("build/x.py", "np.int\n"),
    ("src/build_x/x.cpp", "std::random_shuffle(a, b);\n"),
    ("docs/Makefile", "LIBRARIES += boost_system\n"),
]


def names():
    return [mend.name for mend in MENDS]


CASES = [(name, *case) for name, cases in BROKEN.items() for case in cases]


@pytest.mark.parametrize(("name", "path", "before", "after"), CASES)
def test_a_break_is_mended_alone(tmp_path, name, path, before, after):
    others = tuple(other for other in names() if other != name)
    root = make_tree(tmp_path, files={path: before})
    report = patch.apply(root, without=others)
    assert (root / path).read_bytes().decode() == after
    assert set(report.plan.mended) == {name}
    assert all(place.startswith(f"{path}:") for place in report.plan.mended[name])
    # left out now, the break comes back; then all of it goes
    patch.apply(root, without=tuple(names()))
    assert (root / path).read_bytes().decode() == before
    patch.apply(root, without=())
    assert (root / path).read_bytes().decode() == after
    patch.revert(root)
    assert (root / path).read_bytes().decode() == before


@pytest.mark.parametrize(("path", "text"), WHOLE)
def test_what_is_not_broken_is_not_mended(tmp_path, path, text):
    root = make_tree(tmp_path, files={path: text})
    report = patch.apply(root)
    assert (root / path).read_text() == text
    assert not report.plan.mended


@pytest.mark.parametrize(("before", "after"), GUARDED)
def test_constants_are_mended_where_opencv_4_sees_them(tmp_path, before, after):
    root = make_tree(tmp_path, files={CPP: before})
    patch.apply(root)
    assert (root / CPP).read_text() == after


LAYER = """\
namespace caffe {
template <typename Dtype>
void SomeLayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom) {}
%sINSTANTIATE_CLASS(SomeLayer);
REGISTER_LAYER_CLASS(Some);
}  // namespace caffe
"""
BOTH = """\
template <typename Dtype> void SomeLayer<Dtype>::Forward_gpu(int) {}
template <typename Dtype> void SomeLayer<Dtype>::Backward_gpu(int) {}
"""
ONE = "template <typename Dtype> void SomeLayer < Dtype >::Forward_gpu(int) {}\n"
STUB = "#ifdef CPU_ONLY\nSTUB_GPU(SomeLayer);\n#endif\n\n"


@pytest.mark.parametrize(
    ("device", "before", "after"),
    [
        (BOTH, "", STUB),
        (ONE, "", "#ifdef CPU_ONLY\nSTUB_GPU_FORWARD(SomeLayer, Forward);\n#endif\n\n"),
        (BOTH, STUB, STUB),
        (BOTH, "#ifdef CPU_ONLY\n" + BOTH + "#endif\n", "#ifdef CPU_ONLY\n" + BOTH + "#endif\n"),
        ("// " + ONE, "", ""),
        (BOTH, "// STUB_GPU(SomeLayer);\n", "// STUB_GPU(SomeLayer);\n" + STUB),
        (BOTH.replace("SomeLayer", "Other"), "", ""),
        (None, "", ""),
    ],
)
def test_a_stub_is_written_where_a_processor_build_needs_it(tmp_path, device, before, after):
    files = {"src/caffe/layers/some_layer.cpp": LAYER % before}
    if device is not None:
        files["src/caffe/layers/some_layer.cu"] = device
    root = make_tree(tmp_path, files=files)
    whole = snapshot(root)
    report = patch.apply(root)
    assert (root / "src/caffe/layers/some_layer.cpp").read_text() == LAYER % after
    assert ("gpu-stub" in report.plan.mended) == (before != after)
    patch.revert(root)
    assert snapshot(root) == whole


def test_a_compiler_of_cxx98_gets_a_flag(tmp_path):
    """What make and CMake do with a compiler whose default is C++98, and with one whose is not."""
    if not shutil.which("make"):
        pytest.skip("needs make")
    show = "all:\n\t@echo '$(CXXFLAGS)|$(NVCCFLAGS)'\n"
    root = make_tree(
        tmp_path, files={"Makefile": "CXXFLAGS += -fPIC $(COMMON_FLAGS)\nNVCCFLAGS += -x\n" + show}
    )
    assert set(patch.apply(root).plan.mended) == {"cxx11-makefile"}
    old = tmp_path / "old-c++"
    old.write_text("#!/bin/sh\necho '#define __cplusplus 199711L'\n")
    old.chmod(0o755)
    for compiler, flag in [(str(old), " -std=c++11"), ("c++", "")]:
        done = subprocess.run(
            ["make", "-s", "-C", str(root), f"CXX={compiler}"],
            capture_output=True,
            text=True,
            check=True,
        )
        cxx, nvcc = done.stdout.strip().split("|")
        assert (cxx.split(), nvcc.split()) == (f"-fPIC{flag}".split(), f"{flag} -x".split())


MAKEFILE = """\
LIBRARIES += glog gflags protobuf boost_system boost_filesystem m
ifeq ($(USE_HDF5), 1)
\tLIBRARIES += hdf5_hl hdf5
endif
ifeq ($(OPENCV_VERSION), 3)
\tLIBRARIES += opencv_imgcodecs
endif
PYTHON_LIBRARIES ?= boost_python python2.7
PKG_CONFIG := $(shell pkg-config opencv --libs)
"""


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_the_makefile(tmp_path, newline):
    before = MAKEFILE.replace("\n", newline)
    root = make_tree(tmp_path, files={"Makefile": before})
    whole = snapshot(root)
    report = patch.apply(root)
    after = (root / "Makefile").read_bytes().decode()
    assert set(report.plan.mended) == {
        "boost-python-makefile",
        "boost-system-makefile",
        "hdf5-folders",
        "opencv4-makefile",
        "glog-export-makefile",
    }
    assert after.count("\n") == after.count(newline)
    assert f"LIBRARIES += glog gflags protobuf $(BOOST_SYSTEM) boost_filesystem m{newline}" in after
    assert "ifneq ($(filter 3 4,$(OPENCV_VERSION)),)" in after
    patch.revert(root)
    assert snapshot(root) == whole


def test_make_understands_the_mended_makefile(tmp_path):
    """What it links on this machine: OpenCV 4's and this Python's libraries, by their names."""

    if not shutil.which("make"):
        pytest.skip("needs make")
    show = "all:\n\t@echo '$(LIBRARIES)|$(PYTHON_LIBRARIES)'\n"
    root = make_tree(tmp_path, files={"Makefile": "USE_HDF5 := 1\n" + MAKEFILE + show})
    patch.apply(root)
    done = subprocess.run(
        ["make", "-s", "-C", str(root)], capture_output=True, text=True, check=True
    )
    libraries, python = done.stdout.strip().split("|")
    version = subprocess.run(
        ["python3", "-c", "import sys; print('%d%d %d.%d' % (sys.version_info[:2] * 2))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert python == f"boost_python{version[0]} python{version[1]}"
    assert {"glog", "hdf5", "boost_filesystem"} <= set(libraries.split())


def test_every_mend_has_a_case_a_reason_and_a_name_of_its_own():
    makefile = {
        "boost-python-makefile",
        "boost-system-makefile",
        "hdf5-folders",
        "opencv4-makefile",
        "glog-export-makefile",
        "cxx11-makefile",
    }
    assert set(names()) == set(BROKEN) | makefile | {"gpu-stub"}
    assert len(names()) == len(set(names()))
    assert all(len(mend.reason) > 20 for mend in MENDS)


def test_the_command_lists_mends_and_leaves_them_out(tmp_path, command):
    path, before, after = BROKEN["protobuf-bytes-limit"][0]
    root = make_tree(tmp_path, files={path: before, CMAKE: BROKEN["cmake-minimum"][0][1]})
    status, out, _ = command("patch", root, "--without", "protobuf-bytes-limit")
    assert status == 0 and "mend cmake-minimum: CMake 4 refuses" in out
    assert "CMakeLists.txt:2" in out and "protobuf-bytes-limit" not in out
    assert (root / path).read_text() == before
    # it stays left out until something else is said
    assert command("patch", root)[1].count("nothing to do") == 1
    assert command("patch", root, "--without", "none")[0] == 0
    assert (root / path).read_text() == after
    assert command("patch", root, "--without", "all")[0] == 0
    assert (root / path).read_text() == before
    status, _, err = command("patch", root, "--without", "cmake-minimum,typo")
    assert status == 1 and "no such mend: typo (there are protobuf-bytes-limit" in err


def test_an_unknown_mend_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no such mend: x"):
        patch.apply(make_tree(tmp_path), without=("x",))


def test_the_page_lists_every_mend_with_its_reason():
    page = (Path(__file__).resolve().parents[2] / "docs/patch.md").read_text()
    listed = set(re.findall(r"^\| `([\w-]+)` \| (.*) \|$", page, re.MULTILINE))
    assert listed == {(mend.name, mend.reason) for mend in MENDS}
