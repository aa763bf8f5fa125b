//! A pooler between this program and the server.

use serde_json::json;

use super::{Findings, Patient};
use crate::store::doctor::{Finding, Level};

/// How many times another connection is opened to see whether it gets the same server's process.
const LOOKS: usize = 3;

/// Finds the mode of a pooler. In session mode each connection has a server's process for itself;
/// in transaction mode one that is opened beside it gets the same one, which is idle.
pub(super) fn look(patient: &mut Patient<'_>) -> Findings {
    if !patient.session.is_shared() {
        return Ok(Vec::new());
    }
    let mut is_same = false;
    for _ in 0..LOOKS {
        let mut other = patient.daemon.target.connect("doctor")?;
        is_same |= other.back_end()? == patient.session.back_end()?;
    }
    let mode = if is_same { "transaction" } else { "session" };
    let text = format!(
        "a pooler in {mode} mode is in between: it works, and each call takes three round trips to it instead of one; \
         `migrate` needs the server itself"
    );
    let finding = Finding::new(Level::Ok, text).data(json!({ "mode": mode }));
    Ok(vec![finding])
}
