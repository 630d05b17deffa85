# Arrow and Parquet C++ from the pyarrow wheel (Debian 12 packages neither). Defines Arrow::Parquet.
if(NOT PYARROW_ROOT)
  file(GLOB _candidates ${CMAKE_SOURCE_DIR}/.venv/lib/python3*/site-packages/pyarrow)
  list(GET _candidates 0 PYARROW_ROOT)
endif()
set(PYARROW_ROOT ${PYARROW_ROOT} CACHE PATH "Folder of the pyarrow wheel")

find_path(ARROW_INCLUDE_DIR arrow/api.h PATHS ${PYARROW_ROOT}/include NO_DEFAULT_PATH)
file(GLOB ARROW_LIBRARY ${PYARROW_ROOT}/libarrow.so.*)
file(GLOB PARQUET_LIBRARY ${PYARROW_ROOT}/libparquet.so.*)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(ArrowFromPython
  REQUIRED_VARS ARROW_INCLUDE_DIR ARROW_LIBRARY PARQUET_LIBRARY
  REASON_FAILURE_MESSAGE "run scripts/setup.sh, or pass -DPYARROW_ROOT=<folder of the pyarrow wheel>")

if(ArrowFromPython_FOUND AND NOT TARGET Arrow::Parquet)
  add_library(Arrow::Parquet INTERFACE IMPORTED)
  target_include_directories(Arrow::Parquet SYSTEM INTERFACE ${ARROW_INCLUDE_DIR})
  target_link_libraries(Arrow::Parquet INTERFACE ${PARQUET_LIBRARY} ${ARROW_LIBRARY})
  target_link_options(Arrow::Parquet INTERFACE -Wl,-rpath,${PYARROW_ROOT})
endif()
