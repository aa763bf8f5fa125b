//! A complete daemon with a handler of its own: it writes one line per event to the file that `ORDERS_FILE` names.
//!
//! Run it like `dispatchbox` itself; all options, the file, the HTTP endpoints and the signals are the same:
//!
//!     ORDERS_FILE=/tmp/orders cargo run --example own_handler -- --dsn "host=localhost dbname=outbox user=postgres"

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::process::ExitCode;

use dispatchbox::event::Event;
use dispatchbox::handler::{Handler, HandlerError, Handlers};

/// Appends `id attempt payload` to a file. Called from several threads at once: each line is one write.
struct OrdersFile {
    file: File,
}

impl Handler for OrdersFile {
    fn handle(&self, event: &Event) -> Result<(), HandlerError> {
        if event.aggregate_id.is_empty() {
            // No attempt can succeed, so the event goes straight to the dead letters.
            return Err(HandlerError::Permanent(
                "the order has no number".to_owned(),
            ));
        }
        let line = format!("{} {} {}\n", event.id, event.attempt, event.payload);
        // A full disk may have room again later: worth another attempt, after the route's backoff.
        (&self.file).write_all(line.as_bytes()).map_err(|error| {
            HandlerError::retry(format!("could not write to the orders file: {error}"))
        })
    }
}

fn main() -> ExitCode {
    // The worker processes run this same `main`, so what a handler needs is made here, not once and for all elsewhere.
    let path = std::env::var_os("ORDERS_FILE").unwrap_or_else(|| "orders.txt".into());
    match OpenOptions::new().append(true).create(true).open(&path) {
        Ok(file) => dispatchbox::main_with(Handlers::default().on("order.*", OrdersFile { file })),
        Err(error) => {
            let _ = writeln!(
                std::io::stderr(),
                "error: could not open `{}`: {error}",
                path.display()
            );
            ExitCode::FAILURE
        }
    }
}
