# cmake --install, find_package(attnbench) and attnbench_add_plugin() for projects elsewhere. A project that takes
# attnbench by add_subdirectory has the same targets and function without installing.
include(AttnPlugin)
include(CMakePackageConfigHelpers)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/attnbench)
get_property(floors GLOBAL PROPERTY ATTN_FLOORS)
install(TARGETS ${floors} EXPORT attnbenchTargets LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(EXPORT attnbenchTargets NAMESPACE attnbench:: DESTINATION ${package_dir})
install(DIRECTORY harness/attn DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
  FILES_MATCHING PATTERN "*.hpp" PATTERN "*-inl.hpp" EXCLUDE)

configure_package_config_file(harness/cmake/attnbenchConfig.cmake.in attnbenchConfig.cmake INSTALL_DESTINATION ${package_dir})
# A plugin must come from the very release that loads it.
write_basic_package_version_file(attnbenchConfigVersion.cmake COMPATIBILITY ExactVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/attnbenchConfig.cmake ${CMAKE_CURRENT_BINARY_DIR}/attnbenchConfigVersion.cmake
  harness/cmake/AttnPlugin.cmake DESTINATION ${package_dir})

# Relative to where the file is found, so that an installed tree can be moved.
file(RELATIVE_PATH pc_to_prefix /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
configure_file(harness/cmake/attnbench.pc.in attnbench.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/attnbench.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

# The reports know only the CSV, so they go along; what builds or checks this tree stays.
install(DIRECTORY scripts/ DESTINATION ${CMAKE_INSTALL_DATADIR}/attnbench/scripts USE_SOURCE_PERMISSIONS
  FILES_MATCHING PATTERN "*.py" PATTERN "guests/*" PATTERN schema1.json PATTERN "page/*" PATTERN "*.toml" PATTERN noise_floor.sh PATTERN check_layers.py EXCLUDE PATTERN new_variant.py EXCLUDE PATTERN "readme*.py" EXCLUDE
  PATTERN train_facts.py EXCLUDE
  PATTERN __pycache__ EXCLUDE)
install(FILES LICENSE README.md CHANGELOG.md CITATION.cff DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY tests/plugin/stranger/ DESTINATION ${CMAKE_INSTALL_DOCDIR}/examples/plugin)

# cpack: the same tree as a Debian package, which depends on what its programs and libraries are linked to.
if(PROJECT_IS_TOP_LEVEL)
  set(CPACK_GENERATOR DEB)
  set(CPACK_PACKAGE_NAME attnbench)
  set(CPACK_PACKAGE_CONTACT "attnbench maintainers <attnbench@localhost>")
  set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
  set(CPACK_STRIP_FILES ON)
  set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
  set(CPACK_DEBIAN_PACKAGE_SECTION science)
  set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
  set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS_PRIVATE_DIRS ${CMAKE_LIBRARY_OUTPUT_DIRECTORY})
  set(CPACK_DEBIAN_PACKAGE_RECOMMENDS "python3-numpy, python3-pandas, python3-scipy, python3-matplotlib, libjs-chart.js")  # the reports
  set(CPACK_DEBIAN_PACKAGE_SUGGESTS "g++, cmake, pkg-config")                                               # plugins
  include(CPack)
endif()
