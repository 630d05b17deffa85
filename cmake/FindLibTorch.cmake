# LibTorch from the torch wheel in .venv (or -DLIBTORCH_ROOT=.../torch), as imported targets of our own.
#
# TorchConfig.cmake of a CUDA wheel runs the whole CUDA detection and fails where no toolkit is; this module needs none.
# Defines LibTorch::LibTorch, and LibTorch::CUDA where the wheel was built with CUDA.
if(NOT LIBTORCH_ROOT)
  file(GLOB _candidates ${CMAKE_SOURCE_DIR}/.venv/lib/python3*/site-packages/torch)
  list(GET _candidates 0 LIBTORCH_ROOT)
endif()
set(LIBTORCH_ROOT ${LIBTORCH_ROOT} CACHE PATH "Folder of LibTorch: include/ and lib/ below it")

find_path(LIBTORCH_INCLUDE_DIR ATen/ATen.h PATHS ${LIBTORCH_ROOT}/include NO_DEFAULT_PATH)
find_library(LIBTORCH_CPU_LIBRARY torch_cpu PATHS ${LIBTORCH_ROOT}/lib NO_DEFAULT_PATH)
find_library(LIBTORCH_C10_LIBRARY c10 PATHS ${LIBTORCH_ROOT}/lib NO_DEFAULT_PATH)
find_library(LIBTORCH_CUDA_LIBRARY torch_cuda PATHS ${LIBTORCH_ROOT}/lib NO_DEFAULT_PATH)
find_library(LIBTORCH_C10_CUDA_LIBRARY c10_cuda PATHS ${LIBTORCH_ROOT}/lib NO_DEFAULT_PATH)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(LibTorch
  REQUIRED_VARS LIBTORCH_INCLUDE_DIR LIBTORCH_CPU_LIBRARY LIBTORCH_C10_LIBRARY
  REASON_FAILURE_MESSAGE "run scripts/setup.sh, or pass -DLIBTORCH_ROOT=<folder of the torch wheel>")

if(LibTorch_FOUND AND NOT TARGET LibTorch::LibTorch)
  add_library(LibTorch::LibTorch INTERFACE IMPORTED)
  target_include_directories(LibTorch::LibTorch SYSTEM INTERFACE
    ${LIBTORCH_INCLUDE_DIR} ${LIBTORCH_INCLUDE_DIR}/torch/csrc/api/include)
  target_link_libraries(LibTorch::LibTorch INTERFACE ${LIBTORCH_CPU_LIBRARY} ${LIBTORCH_C10_LIBRARY})
  target_link_options(LibTorch::LibTorch INTERFACE -Wl,-rpath,${LIBTORCH_ROOT}/lib)
  if(LIBTORCH_CUDA_LIBRARY)
    # Nothing of ours names a symbol of libtorch_cuda, yet it registers the CUDA kernels when it is loaded.
    add_library(LibTorch::CUDA INTERFACE IMPORTED)
    target_link_libraries(LibTorch::CUDA INTERFACE
      -Wl,--no-as-needed ${LIBTORCH_CUDA_LIBRARY} ${LIBTORCH_C10_CUDA_LIBRARY} -Wl,--as-needed)
  endif()
endif()
