//! A daemon for the tests: some of its handlers end the process that they run in.

use std::hint::black_box;
use std::process::ExitCode;

use dispatchbox::event::Event;
use dispatchbox::handler::{Handler, HandlerError, Handlers};

/// Aborts, as a failed allocation or a library written in C does.
struct Aborts;

impl Handler for Aborts {
    fn handle(&self, _: &Event) -> Result<(), HandlerError> {
        std::process::abort()
    }
}

/// Calls itself until its stack is used up, which the kernel answers with a signal.
struct Overflows;

impl Handler for Overflows {
    fn handle(&self, _: &Event) -> Result<(), HandlerError> {
        black_box(depth(0));
        Ok(())
    }
}

fn depth(n: u64) -> u64 {
    let room = black_box([n; 64]);
    if n == u64::MAX {
        return 0;
    }
    depth(n + 1) + black_box(room)[0]
}

/// Succeeds.
struct Succeeds;

impl Handler for Succeeds {
    fn handle(&self, _: &Event) -> Result<(), HandlerError> {
        Ok(())
    }
}

fn main() -> ExitCode {
    dispatchbox::main_with(
        Handlers::default()
            .on("poison.abort", Aborts)
            .on("poison.overflow", Overflows)
            .on("*", Succeeds),
    )
}
