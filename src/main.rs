//! The `dispatchbox` program.

use std::process::ExitCode;

use dispatchbox::handlers::Handlers;

fn main() -> ExitCode {
    dispatchbox::main_with(Handlers::default())
}
