# molt_embed(TARGET HEADER FUNCTION file…): the files' texts become part of the target, so that a binary can be moved without them.
# HEADER declares `const std::map<std::string, std::string>& FUNCTION()` (in namespace molt): content by file name.
function(molt_embed target header function)
  set(entries "")
  foreach(path ${ARGN})
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${path})
    get_filename_component(name ${path} NAME)
    file(READ ${path} content)
    string(APPEND entries "      {\"${name}\", R\"embedded(${content})embedded\"},\n")
  endforeach()
  set(source ${CMAKE_BINARY_DIR}/embedded/${function}.cc)
  file(GENERATE OUTPUT ${source} CONTENT "#include \"${header}\"

namespace molt {

const std::map<std::string, std::string>& ${function}() {
  static const std::map<std::string, std::string> files = {
${entries}  };
  return files;
}

}  // namespace molt
")
  target_sources(${target} PRIVATE ${source})
endfunction()
