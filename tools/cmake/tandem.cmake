# The project's few CMake helpers: one library a folder, one test program a file, warnings as
# errors for our own code only, and the search for CUDA.

# -Wrestrict warns about std::string's own operator+ in g++ 12 (GCC bug 105651).
add_library(tandem_warnings INTERFACE)
target_compile_options(tandem_warnings INTERFACE
  $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CXX_COMPILER_ID:GNU>>:-Wno-restrict>)
# With a sanitizer's checks in between, g++ takes much for uninitialised that is not.
if(CMAKE_CXX_FLAGS MATCHES "fsanitize")
  target_compile_options(tandem_warnings INTERFACE
    $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CXX_COMPILER_ID:GNU>>:-Wno-maybe-uninitialized>)
endif()
target_compile_options(tandem_warnings INTERFACE
  $<$<COMPILE_LANGUAGE:C,CXX>:-Wall -Wextra -Werror -Wno-missing-field-initializers>)

# tandem_library(NAME SOURCES a.cc ... [HEADERS a.h ...] [DEPS targets ...])
# The target is tandem_NAME; headers are included from the repository's root. Each listed header is
# compiled on its own by the target all_verify_interface_header_sets.
function(tandem_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;HEADERS;DEPS" ${ARGN})
  set(target tandem_${name})
  if(ARG_SOURCES)
    add_library(${target} STATIC ${ARG_SOURCES})
    target_include_directories(${target} PUBLIC ${PROJECT_SOURCE_DIR})
    target_link_libraries(${target} PUBLIC ${ARG_DEPS} PRIVATE tandem_warnings)
    set(scope PUBLIC)
  else()
    add_library(${target} INTERFACE)
    target_include_directories(${target} INTERFACE ${PROJECT_SOURCE_DIR})
    target_link_libraries(${target} INTERFACE ${ARG_DEPS})
    set(scope INTERFACE)
  endif()
  if(ARG_HEADERS)
    target_sources(${target} ${scope} FILE_SET HEADERS BASE_DIRS ${PROJECT_SOURCE_DIR}
      FILES ${ARG_HEADERS})
    set_target_properties(${target} PROPERTIES VERIFY_INTERFACE_HEADER_SETS ON)
  endif()
endfunction()

# tandem_test(NAME SOURCES x_test.cc ... [DEPS ...] [LABELS fast|slow|gpu|perf] [TIMEOUT seconds])
# A GoogleTest program, run by ctest as one test from the repository's root. Sanitizers get ten times
# the seconds.
function(tandem_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SOURCES;DEPS;LABELS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} tandem_warnings GTest::gtest_main GTest::gmock)
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
  if(NOT ARG_LABELS)
    set(ARG_LABELS fast)
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  # Checked at every access, threads in turn: some take ten times as long.
  if(CMAKE_CXX_FLAGS MATCHES "fsanitize")
    math(EXPR ARG_TIMEOUT "10 * ${ARG_TIMEOUT}")
  endif()
  add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(${name} PROPERTIES LABELS "${ARG_LABELS}" TIMEOUT ${ARG_TIMEOUT})
endfunction()

# Finds the CUDA toolkit. Sets TANDEM_HAVE_CUDA; when it is absent, says so once and goes on.
macro(tandem_find_cuda)
  set(TANDEM_HAVE_CUDA OFF)
  if(NOT TANDEM_CUDA STREQUAL "OFF")
    include(CheckLanguage)
    check_language(CUDA)
    if(CMAKE_CUDA_COMPILER)
      if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
        set(CMAKE_CUDA_ARCHITECTURES 80)
      endif()
      enable_language(CUDA)
      find_package(CUDAToolkit REQUIRED)
      set(CMAKE_CUDA_STANDARD 20)
      # CMake 3.25 does not know that nvcc has C++20.
      set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
      set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
      set(TANDEM_HAVE_CUDA ON)
      message(STATUS "CUDA ${CUDAToolkit_VERSION}: its part is built for sm_${CMAKE_CUDA_ARCHITECTURES}")
    elseif(TANDEM_CUDA STREQUAL "ON")
      message(FATAL_ERROR "TANDEM_CUDA=ON, but no CUDA compiler (nvcc) was found")
    else()
      message(STATUS "CUDA: no nvcc found; building without it (CPU devices only)")
    endif()
  endif()
endmacro()
