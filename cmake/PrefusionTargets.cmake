# One target a folder, one helper for tests.

# prefusion_library(NAME SOURCES a.cpp ... DEPENDS prefusion::core ... [TORCH_PCH])
# makes the static library prefusion_NAME with the alias prefusion::NAME.
# TORCH_PCH reuses the one precompiled header (torch/nn/module.h, ATen): for folders whose sources include it anyway.
function(prefusion_library name)
  cmake_parse_arguments(ARG "TORCH_PCH" "" "SOURCES;DEPENDS;PRIVATE_DEPENDS" ${ARGN})
  add_library(prefusion_${name} STATIC ${ARG_SOURCES})
  add_library(prefusion::${name} ALIAS prefusion_${name})
  target_link_libraries(prefusion_${name} PUBLIC prefusion_flags LibTorch::LibTorch ${ARG_DEPENDS}
                                          PRIVATE ${ARG_PRIVATE_DEPENDS})
  if(ARG_TORCH_PCH)
    target_precompile_headers(prefusion_${name} REUSE_FROM prefusion_pch)
  endif()
endfunction()

# What scripts/check.sh --sanitize runs: unit tests, and the program for the malformed-file tests.
add_custom_target(sanitizer_tests)

# prefusion_test(NAME SOURCES a_test.cpp ... DEPENDS prefusion::x ... [LABELS unit])
# makes the executable tests/NAME, which is one ctest: a process for each of a thousand tests would load LibTorch as often,
# and comparisons with a reference library start Python once for all their cases. A single TEST is run by hand:
# build/tests/NAME --gtest_filter=Suite.Test
function(prefusion_test name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPENDS;LABELS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  target_link_libraries(${name} PRIVATE ${ARG_DEPENDS} prefusion_test_support prefusion_flags LibTorch::LibTorch GTest::gtest_main)
  # The precompiled header is made with -fPIC; CMake gives executables -fPIE, with which it could not be reused.
  set_target_properties(${name} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
  target_compile_options(${name} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-fPIC>)
  target_precompile_headers(${name} REUSE_FROM prefusion_test_pch)
  if(NOT ARG_LABELS)
    set(ARG_LABELS unit)
  endif()
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES LABELS "${ARG_LABELS}" TIMEOUT 1200 ENVIRONMENT OMP_NUM_THREADS=1)
  if(NOT ARG_LABELS STREQUAL reference)
    add_dependencies(sanitizer_tests ${name})
  endif()
endfunction()
