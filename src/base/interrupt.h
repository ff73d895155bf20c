// Ctrl-C, SIGTERM, a terminal that closes (SIGHUP, unless it is ignored, as under nohup) and output that nobody reads any more
// (SIGPIPE) ask a long run to save and stop; Ctrl-C or SIGTERM for a second time end the process at once.
#pragma once

namespace molt {

// Installs the handlers for the lifetime of the process. Commands that can save call it first.
void catch_interrupts();
// The signal that asked the run to stop, or 0.
int interrupt_signal();
// Throws Interrupted if a signal came: call it between units of work, after saving what must be kept.
void throw_if_interrupted();

}  // namespace molt
