# Speed is the kernels' business: record, program, sweep, apps and tests are compiled for a short build.
add_library(attn_quick INTERFACE)
target_compile_options(attn_quick INTERFACE $<$<CONFIG:Release>:-O1>)

# Flags that every target shares, and one library for each floor of the house.
add_library(attn_flags INTERFACE)
target_compile_features(attn_flags INTERFACE cxx_std_20)
target_compile_options(attn_flags INTERFACE -Wall -Wextra -Wconversion -Wshadow -Wnon-virtual-dtor -Wno-missing-field-initializers $<$<BOOL:${ATTN_WERROR}>:-Werror>
  $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>)  # g++ 12 sees overlap in std::string's own code (GCC bug 105329)
if(ATTN_SANITIZE)
  # -O1: at -O2 the template-heavy files (tile.cpp, elementwise.cpp) take many minutes under a sanitizer.
  target_compile_options(attn_flags INTERFACE -fsanitize=${ATTN_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all -O1 -g1)
  target_link_options(attn_flags INTERFACE -fsanitize=${ATTN_SANITIZE})
  target_compile_options(attn_quick INTERFACE -O0)  # these files take clang half as long as at -O1
endif()

# attn_floor(name USES floors... LINKS libraries...): library attn_<name> from harness/attn/<name>/*.cpp and, where the floor has rooms, harness/attn/<name>/<room>/*.cpp.
# USES are public (headers pass through); LINKS are private (no header of the floor shows them).
function(attn_floor name)
  cmake_parse_arguments(arg "" "" "USES;LINKS" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/harness/attn/${name}/*.cpp)
  if(NOT sources)
    return()
  endif()
  add_library(attn_${name} SHARED ${sources})
  add_library(attnbench::${name} ALIAS attn_${name})
  set_target_properties(attn_${name} PROPERTIES EXPORT_NAME ${name} VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION})
  target_include_directories(attn_${name} PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/harness> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  list(TRANSFORM arg_USES PREPEND attn_)
  target_link_libraries(attn_${name} PUBLIC ${arg_USES} PRIVATE $<BUILD_INTERFACE:attn_flags> ${arg_LINKS})
  target_compile_features(attn_${name} PUBLIC cxx_std_20)
  set_property(GLOBAL APPEND PROPERTY ATTN_FLOORS attn_${name})
endfunction()
