//! The `dispatchbox` program.

use std::process::ExitCode;

use dispatchbox::handler::Handlers;

fn main() -> ExitCode {
    dispatchbox::main_with(Handlers::default())
}
