// Ctrl-C and SIGTERM ask a long run to save and stop; a second signal ends the process at once.
#pragma once

namespace molt {

// Installs the handlers for the lifetime of the process. Commands that can save call it first.
void catch_interrupts();
// The signal that asked the run to stop (SIGINT, SIGTERM), or 0.
int interrupt_signal();
// Throws Interrupted if a signal came: call it between units of work, after saving what must be kept.
void throw_if_interrupted();

}  // namespace molt
