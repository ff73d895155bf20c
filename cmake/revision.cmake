# cmake -DSOURCE=… -DOUTPUT=… -P revision.cmake: writes a file with the revision of the checkout, "a1b2c3d4e5f6" or "a1b2c3d4e5f6-dirty"; the
# file changes only when the revision does, so that nothing else is built again.
execute_process(COMMAND git describe --always --dirty --abbrev=12 --exclude=* WORKING_DIRECTORY ${SOURCE}
                OUTPUT_VARIABLE revision ERROR_QUIET OUTPUT_STRIP_TRAILING_WHITESPACE)
if(NOT revision)
  set(revision unknown)
endif()
file(CONFIGURE OUTPUT ${OUTPUT} CONTENT "const char* const molt_revision = \"@revision@\";\n" @ONLY)
