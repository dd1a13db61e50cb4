# add_caffe_tree(NAME SOURCE dir TREE dir [PATCH] [TOOLS dir]
#                [TARGETS target...] [CMAKE_ARGS arg...])
#
# Targets NAME-tree (copies SOURCE to TREE, with our layers if PATCH is given;
# with TOOLS, with the programs in that folder, and Caffe's own kernels in few
# files), NAME (TARGETS, by default library, `caffe` tool and pycaffe, in
# TREE/build) and NAME-gtests.
# CMAKE_ARGS come after, and so override, those of the processor build below;
# CAFFE_ARGUMENTS, a command line of the user's, comes last.
include(ExternalProject)

# FindPythonLibs prefers the newest Python; pycaffe needs that of PYTHON.
function(ask_python variable expression)
  execute_process(
    COMMAND "${PYTHON}" -c "import sysconfig as s, os; print(${expression})"
    OUTPUT_VARIABLE answer OUTPUT_STRIP_TRAILING_WHITESPACE
    COMMAND_ERROR_IS_FATAL ANY)
  set(${variable} "${answer}" PARENT_SCOPE)
endfunction()

ask_python(PYTHON_MINOR "s.get_python_version()")
ask_python(PYTHON_INCLUDE "s.get_path('include')")
ask_python(PYTHON_LIBRARY
  "os.path.join(s.get_config_var('LIBDIR'), s.get_config_var('LDLIBRARY'))")

find_program(CCACHE ccache)

# Caffe's own option compiles only these tests.
file(GLOB gtest_files CONFIGURE_DEPENDS
  "${PROJECT_SOURCE_DIR}/tests/cpp/test_*.cpp")
list(TRANSFORM gtest_files REPLACE ".*/test_(.*)\\.cpp" "\\1")
list(JOIN gtest_files "," GTEST_NAMES)

set(BASE_ARGS
  -DCMAKE_BUILD_TYPE=Release
  -DCPU_ONLY=ON
  -DBLAS=Open
  -DBUILD_docs=OFF
  -DBUILD_matlab=OFF
  -DBUILD_only_tests=${GTEST_NAMES}
  -Dpython_version=${PYTHON_MINOR}
  -DPYTHON_EXECUTABLE=${PYTHON}
  -DPYTHON_INCLUDE_DIR=${PYTHON_INCLUDE}
  -DPYTHON_LIBRARY=${PYTHON_LIBRARY})
if(CCACHE)
  list(APPEND BASE_ARGS
    -DCMAKE_C_COMPILER_LAUNCHER=${CCACHE}
    -DCMAKE_CXX_COMPILER_LAUNCHER=${CCACHE})
endif()
if(CMAKE_VERSION VERSION_GREATER_EQUAL 4)
  # Caffe asks for policies of CMake 2.8.
  list(APPEND BASE_ARGS -DCMAKE_POLICY_VERSION_MINIMUM=3.5)
endif()

separate_arguments(user_args UNIX_COMMAND "${CAFFE_ARGUMENTS}")

function(add_caffe_tree name)
  cmake_parse_arguments(PARSE_ARGV 1 ARG "PATCH" "SOURCE;TREE;TOOLS"
    "TARGETS;CMAKE_ARGS")
  if(NOT ARG_TARGETS)
    set(ARG_TARGETS caffe.bin pycaffe)
  endif()
  set(tree_options "")
  if(ARG_PATCH)
    set(tree_options --patch "--patch-arguments=${PATCH_ARGUMENTS}")
  endif()
  if(ARG_TOOLS)
    list(APPEND tree_options --tools "${ARG_TOOLS}" --unite 8)
  endif()

  add_custom_target(${name}-tree
    COMMAND "${PYTHON}" "${PROJECT_SOURCE_DIR}/cmake/prepare_tree.py"
            "${ARG_SOURCE}" "${ARG_TREE}" ${tree_options}
    COMMENT "Preparing ${ARG_TREE}" USES_TERMINAL VERBATIM)

  ExternalProject_Add(${name}
    DEPENDS ${name}-tree
    PREFIX "${CMAKE_BINARY_DIR}/${name}"
    SOURCE_DIR "${ARG_TREE}"
    BINARY_DIR "${ARG_TREE}/build"
    DOWNLOAD_COMMAND ""
    CMAKE_ARGS ${BASE_ARGS} ${ARG_CMAKE_ARGS} ${user_args}
    BUILD_COMMAND "${CMAKE_COMMAND}" --build <BINARY_DIR>
                  --target ${ARG_TARGETS}
    BUILD_ALWAYS TRUE
    INSTALL_COMMAND ""
    USES_TERMINAL_CONFIGURE TRUE
    USES_TERMINAL_BUILD TRUE
    EXCLUDE_FROM_ALL TRUE)

  add_custom_target(${name}-gtests
    COMMAND "${CMAKE_COMMAND}" --build "${ARG_TREE}/build"
            --target test.testbin
    DEPENDS ${name}
    COMMENT "Building the gtests of ${ARG_TREE}" USES_TERMINAL VERBATIM)
endfunction()
