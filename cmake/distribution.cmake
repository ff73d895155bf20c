# The folder of programs that `make cuda` makes for a machine with a GPU: bin/, lib/ with the system's libraries that they need, data of
# tests, and `run`, which finds LibTorch there. Its parts are installed as the component `distribution`.

# Adds a program to the folder.
function(molt_distribute target)
  if(MOLT_CUDA)
    install(TARGETS ${target} RUNTIME_DEPENDENCY_SET distribution DESTINATION bin COMPONENT distribution EXCLUDE_FROM_ALL)
  endif()
endfunction()

# To be called when every program has been added.
function(molt_finish_distribution)
  if(NOT MOLT_CUDA)
    return()
  endif()
  install(RUNTIME_DEPENDENCY_SET distribution
          PRE_EXCLUDE_REGEXES "^ld-linux" "^lib(c|m|dl|rt|util|pthread|stdc\\+\\+|gcc_s|gomp)\\.so"  # of every system
                              "^lib(torch|c10|cu|nv|nccl)"                                         # come with the torch package
          DESTINATION lib COMPONENT distribution EXCLUDE_FROM_ALL)
  install(PROGRAMS ${PROJECT_SOURCE_DIR}/tools/run_distributed DESTINATION . RENAME run COMPONENT distribution EXCLUDE_FROM_ALL)
  foreach(data tests/model/mamba_vectors.json tests/ops/vectors models/tiny-teacher recipes)
    get_filename_component(folder ${data} DIRECTORY)
    if(IS_DIRECTORY ${PROJECT_SOURCE_DIR}/${data})
      install(DIRECTORY ${PROJECT_SOURCE_DIR}/${data} DESTINATION ./${folder} COMPONENT distribution EXCLUDE_FROM_ALL)
    else()
      install(FILES ${PROJECT_SOURCE_DIR}/${data} DESTINATION ./${folder} COMPONENT distribution EXCLUDE_FROM_ALL)
    endif()
  endforeach()
endfunction()
