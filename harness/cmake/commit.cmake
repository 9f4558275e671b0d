# Run at every build: writes OUTPUT only when the commit, or the cleanness of the tree, has changed.
cmake_minimum_required(VERSION 3.25)  # a script starts without any policy
execute_process(COMMAND git -C ${SOURCE} describe --always --dirty --abbrev=12 --exclude=* OUTPUT_VARIABLE commit
                OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
if(failed)
  set(commit "unsupported: no git checkout")
endif()
file(CONFIGURE OUTPUT ${OUTPUT} CONTENT "#pragma once\n#define ATTN_COMMIT \"@commit@\"\n" @ONLY)
