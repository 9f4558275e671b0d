# attnbench.cdx.json: a CycloneDX list of what attnbench is linked to or made of, with the versions that configuring found. `--version` names it.
find_file(ATTN_DNNL_VERSION_FILE NAMES oneapi/dnnl/dnnl_version.h dnnl_version.h PATHS ${DNNL_INCLUDE_DIR} REQUIRED)
file(STRINGS ${ATTN_DNNL_VERSION_FILE} dnnl_lines REGEX "^#define DNNL_VERSION_(MAJOR|MINOR|PATCH) ")
string(REGEX REPLACE "[^0-9;]" "" dnnl_VERSION "${dnnl_lines}")
string(REPLACE ";" "." dnnl_VERSION "${dnnl_VERSION}")

# name, version, licence as SPDX has it, what the file of its shared library begins with (none: its headers are compiled in)
set(attn_components
  "oneTBB|${TBB_VERSION}|Apache-2.0|libtbb.so"
  "oneDNN|${dnnl_VERSION}|Apache-2.0|libdnnl.so"
  "highway|${hwy_VERSION}|Apache-2.0|libhwy.so"
  "hwloc|${hwloc_VERSION}|BSD-3-Clause|libhwloc.so"
  "fmt|${fmt_VERSION}|MIT|libfmt.so"
  "tomlplusplus|${tomlplusplus_VERSION}|MIT|libtomlplusplus.so"
  "benchmark|${benchmark_VERSION}|Apache-2.0|libbenchmark.so"
  "zlib|${ZLIB_VERSION_STRING}|Zlib|libz.so"
  "libpng|${PNG_VERSION_STRING}|libpng-2.0|libpng16.so"
  "libjpeg-turbo|${jpeg_VERSION}|IJG|libjpeg.so"
  "libsndfile|${sndfile_VERSION}|LGPL-2.1-or-later|libsndfile.so"
  "eigen|${Eigen3_VERSION}|MPL-2.0|"
  "cli11|${CLI11_VERSION}|BSD-3-Clause|"
  "nlohmann_json|${nlohmann_json_VERSION}|MIT|")
set(entries "")
foreach(component ${attn_components})
  string(REPLACE "|" ";" fields "${component}")
  list(GET fields 0 name)
  list(GET fields 1 version)
  list(GET fields 2 licence)
  list(GET fields 3 library)
  set(properties "")
  if(library)
    set(properties ", \"properties\": [{\"name\": \"attnbench:library\", \"value\": \"${library}\"}]")
  endif()
  list(APPEND entries "    {\"type\": \"library\", \"bom-ref\": \"${name}\", \"name\": \"${name}\", \"version\": \"${version}\",\n     \"purl\": \"pkg:generic/${name}@${version}\", \"licenses\": [{\"license\": {\"id\": \"${licence}\"}}]${properties}}")
endforeach()
list(JOIN entries ",\n" entries)
file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/attnbench.cdx.json @ONLY CONTENT [[{
  "bomFormat": "CycloneDX",
  "specVersion": "1.5",
  "version": 1,
  "metadata": {"component": {"type": "application", "bom-ref": "attnbench", "name": "attnbench", "version": "@PROJECT_VERSION@"}},
  "components": [
@entries@
  ]
}
]])
install(FILES ${PROJECT_BINARY_DIR}/attnbench.cdx.json DESTINATION ${CMAKE_INSTALL_DATADIR}/attnbench)
