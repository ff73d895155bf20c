#include "cli/commands.h"
#include "ops/host_allocator.h"

int main(int argc, char** argv) {
  molt::ops::install_host_allocator();
  return molt::run_program(argc, argv,
                           {
                               molt::inspect_command(),
                               molt::prepare_command(),
                               molt::synthesize_command(),
                               molt::train_command(),
                               molt::rank_command(),
                               molt::convert_command(),
                               molt::distill_command(),
                               molt::generate_command(),
                               molt::chat_command(),
                               molt::evaluate_command(),
                               molt::bench_command(),
                               molt::logits_command(),
                               molt::compare_command(),
                               molt::report_command(),
                               molt::config_command(),
                           });
}
