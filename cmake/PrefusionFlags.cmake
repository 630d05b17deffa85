# Compile and link flags every target of ours shares.
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "" FORCE)
endif()
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
# -g1 keeps line numbers in sanitizer reports without the size of full debug information.
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O2 -g1 -DNDEBUG")
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR})

add_library(prefusion_flags INTERFACE)
target_include_directories(prefusion_flags INTERFACE ${CMAKE_SOURCE_DIR})
target_compile_options(prefusion_flags INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wno-unused-parameter -Wno-missing-field-initializers>
  # What ccache needs to know a precompiled header by its contents.
  $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-fpch-preprocess>
  $<$<COMPILE_LANG_AND_ID:CXX,Clang>:SHELL:-Xclang -fno-pch-timestamp>)
if(PREFUSION_WERROR)
  target_compile_options(prefusion_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Werror>)
endif()
if(PREFUSION_SANITIZE)
  target_compile_options(prefusion_flags INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${PREFUSION_SANITIZE} -O1 -fno-omit-frame-pointer -fno-sanitize-recover=all>)
  target_link_options(prefusion_flags INTERFACE -fsanitize=${PREFUSION_SANITIZE})
endif()

# GNU ld rejects the wheel's libtorch_cuda (it wants NCCL symbols resolved at link time); mold links, and fast.
find_program(MOLD_PROGRAM mold)
if(MOLD_PROGRAM)
  add_link_options(-fuse-ld=mold)
endif()
