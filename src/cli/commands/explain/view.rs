//! The text and the JSON of an explanation.

use serde_json::{Value, json};

use crate::cli::commands::explain::diagnosis::Diagnosis;
use crate::cli::commands::explain::{Story, Taken};
use crate::cli::terminal;

impl Story {
    /// Renders the diagnosis, and below it the facts that it follows from.
    pub(super) fn text(&self, diagnosis: &Diagnosis) -> String {
        let mut lines = vec![("verdict", diagnosis.text.clone())];
        if let Some(event) = &self.event {
            let attempts = match &self.route {
                Taken::By(route) => format!("{} of {}", event.attempts, route.max_attempts),
                Taken::No | Taken::Left | Taken::Unknown => event.attempts.to_string(),
            };
            let route = match &self.route {
                Taken::Unknown => {
                    "not known here: give --config or --route as the daemon has them".to_owned()
                }
                Taken::No | Taken::Left => format!("none takes event_type `{}`", event.event_type),
                Taken::By(route) => route.name.clone(),
            };
            let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
            let time = |text: &Option<String>| {
                text.as_deref()
                    .map_or_else(|| "-".to_owned(), terminal::short_time)
            };
            lines.extend([
                ("event type", event.event_type.clone()),
                (
                    "aggregate",
                    format!("{}/{}", event.aggregate_type, event.aggregate_id),
                ),
                ("status", event.status.clone()),
                ("attempts", attempts),
                ("written", time(&event.created_at)),
                ("due at", time(&event.next_run_at)),
                ("last error", or_dash(&event.last_error)),
                ("failed last", time(&event.last_error_at)),
                ("route", route),
                (
                    "workers",
                    format!(
                        "{} with live leases, {} whose connections this role sees",
                        self.n_leasing, self.n_connected
                    ),
                ),
            ]);
        } else if let Some(error) = self
            .archived
            .as_ref()
            .and_then(|one| one.last_error.clone())
        {
            lines.push(("last error", error));
        }
        format!("event {}\n{}", self.id, terminal::fields(&lines))
    }

    /// Renders the same as one JSON object.
    pub(super) fn json(&self, diagnosis: &Diagnosis) -> Value {
        let event = self.event.as_ref().map(|event| {
            json!({
                "aggregate_type": event.aggregate_type,
                "aggregate_id": event.aggregate_id,
                "event_type": event.event_type,
                "status": event.status,
                "attempts": event.attempts,
                "next_run_at": event.next_run_at,
                "created_at": event.created_at,
                "last_error": event.last_error,
                "last_error_at": event.last_error_at,
                "finished_at": event.finished_at,
                "lease": event.lease.as_ref().map(|lease| json!({
                    "worker": lease.worker,
                    "expires_at": lease.expires_at,
                })),
            })
        });
        let archived = self.archived.as_ref().map(|archived| {
            json!({
                "status": archived.status,
                "attempts": archived.attempts,
                "archived_at": archived.archived_at,
                "last_error": archived.last_error,
            })
        });
        let route = match &self.route {
            Taken::Unknown => json!({"known": false, "pattern": null}),
            Taken::No | Taken::Left => json!({"known": true, "pattern": null}),
            Taken::By(route) => json!({
                "known": true,
                "pattern": route.patterns,
                "max_attempts": route.max_attempts,
                "max_parallel": route.max_parallel,
            }),
        };
        json!({
            "id": self.id,
            "code": diagnosis.code,
            "verdict": diagnosis.text,
            "event": event,
            "archived": archived,
            "route": route,
            "workers": {"leasing": self.n_leasing, "connected": self.n_connected},
        })
    }
}
