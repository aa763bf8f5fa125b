//! Drawing a status: from the JSON of the daemon or of the database to lines of text.
//!
//! It reads the JSON as it is and not into types of its own: a field that a daemon of another version has or lacks is shown, or is a dash, and
//! never an error.

use std::time::Duration;

use serde_json::Value;

use crate::cli::terminal::{self, Table};

/// Steps of the history that are drawn: five minutes.
const STEPS_SHOWN: usize = 60;

/// The heights of a bar.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Event types of dead events that are drawn; `dead-events stats` names all.
const TYPES_SHOWN: usize = 10;

/// A status, and how wide it may be.
pub(super) struct Picture<'a> {
    pub(super) status: &'a Value,
    pub(super) width: Option<usize>,
}

impl Picture<'_> {
    /// Draws what a daemon has told.
    pub(super) fn daemon(&self) -> String {
        let status = self.status;
        let ready = match (status["ready"].as_bool(), status["reason"].as_str()) {
            (Some(true), _) => "ready".to_owned(),
            (_, Some(reason)) => format!("not ready: {reason}"),
            (_, None) => "not ready".to_owned(),
        };
        let rates = &status["rates"];
        let mut lines = vec![
            (
                "daemon",
                format!(
                    "{} on {}, version {}, pid {}, {} for {}",
                    ready,
                    text(&status["host"]),
                    text(&status["version"]),
                    text(&status["pid"]),
                    text(&status["phase"]),
                    age(&status["uptime_seconds"])
                ),
            ),
            (
                "per second",
                format!(
                    "{} claimed, {} done, {} retried, {} dead",
                    rate(&rates["claimed"]),
                    rate(&rates["done"]),
                    rate(&rates["retry"]),
                    rate(&rates["dead"])
                ),
            ),
            ("in flight", text(&status["in_flight"])),
        ];
        lines.extend(self.levels());
        let done = self.bars();
        if !done.is_empty() {
            lines.push(("done", done));
        }
        let mut picture = self.cut(&terminal::fields(&lines));
        picture.push('\n');
        picture.push_str(&self.workers().render(self.width));
        picture.push_str(&self.dead_types());
        picture
    }

    /// Draws what the database has told.
    pub(super) fn table(&self) -> String {
        let mut picture = self.cut(&terminal::fields(&self.levels()));
        let holders = list(&self.status["workers"]);
        if !holders.is_empty() {
            let mut table =
                Table::new(&["worker by its leases", "leases#", "events#", "until", ""]);
            for holder in holders {
                let until = terminal::short_time(&text(&holder["expires_at"]));
                let is_expired = holder["expired"] == true;
                table.row([
                    text(&holder["worker"]),
                    text(&holder["leases"]),
                    text(&holder["events"]),
                    until,
                    if is_expired { "expired" } else { "" }.to_owned(),
                ]);
            }
            picture.push('\n');
            picture.push_str(&table.render(self.width));
        }
        picture.push_str(&self.dead_types());
        picture
    }

    /// Backlog and dead events, where they are known.
    fn levels(&self) -> Vec<(&'static str, String)> {
        let mut lines = Vec::new();
        let backlog = &self.status["backlog"];
        if !backlog.is_null() {
            let oldest = match backlog["events"].as_u64() {
                Some(0) | None => String::new(),
                Some(_) => format!(
                    ", the oldest due for {}",
                    age(&backlog["oldest_due_age_seconds"])
                ),
            };
            lines.push((
                "backlog",
                format!("{}{oldest}", capped(&backlog["events"], backlog)),
            ));
        }
        let dead = &self.status["dead"];
        if !dead.is_null() {
            lines.push(("dead", capped(&dead["total"], dead)));
        }
        lines
    }

    fn workers(&self) -> Table {
        let mut table = Table::new(&[
            "worker",
            "pid#",
            "state",
            "up",
            "restarts#",
            "in flight#",
            "stuck#",
            "database",
        ]);
        for worker in list(&self.status["workers"]) {
            let database = match (worker["db_connected"] == true, worker["trouble"].as_str()) {
                (_, Some(trouble)) => trouble,
                (true, None) => "connected",
                (false, None) => "not connected",
            };
            table.row([
                text(&worker["name"]),
                text(&worker["pid"]),
                text(&worker["state"]),
                age(&worker["uptime_seconds"]),
                text(&worker["restarts"]),
                text(&worker["in_flight"]),
                text(&worker["stuck"]),
                database.to_owned(),
            ]);
        }
        table
    }

    fn dead_types(&self) -> String {
        let by_type = list(&self.status["dead"]["by_type"]);
        if by_type.is_empty() {
            return String::new();
        }
        let mut table = Table::new(&["dead#", "event type"]);
        for count in by_type.iter().take(TYPES_SHOWN) {
            table.row([text(&count["count"]), text(&count["event_type"])]);
        }
        let mut picture = format!("\n{}", table.render(self.width));
        if by_type.len() > TYPES_SHOWN {
            picture.push_str("…  `dispatchbox dead-events stats` names all\n");
        }
        picture
    }

    /// Draws how many events were done in each of the last steps, the newest at the right.
    fn bars(&self) -> String {
        let history = list(&self.status["history"]);
        let shown = history.len().saturating_sub(STEPS_SHOWN);
        let done: Vec<f64> = history[shown..]
            .iter()
            .map(|step| step["done"].as_f64().unwrap_or(0.0))
            .collect();
        let most = done.iter().copied().fold(0.0, f64::max);
        if most <= 0.0 {
            return String::new();
        }
        let bar = |rate: &f64| {
            let reached = |at: &usize| {
                let height = f64::from(u32::try_from(*at).unwrap_or(0)) / 8.0;
                *rate > most * height
            };
            let height = (1..BARS.len()).take_while(reached).count();
            BARS[height]
        };
        let bars: String = done.iter().map(bar).collect();
        format!(
            "{bars}  up to {most:.0}/s in the last {} min",
            (done.len() * 5).div_ceil(60)
        )
    }

    fn cut(&self, lines: &str) -> String {
        let width = self.width.unwrap_or(usize::MAX);
        lines
            .lines()
            .map(|line| terminal::cut(line, width) + "\n")
            .collect()
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A text or number as it is, a dash for what is not there.
fn text(value: &Value) -> String {
    if value.is_null() {
        return "-".to_owned();
    }
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

fn age(seconds: &Value) -> String {
    seconds
        .as_f64()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .map_or_else(|| "-".to_owned(), terminal::in_words)
}

fn rate(value: &Value) -> String {
    value
        .as_f64()
        .map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}"))
}

fn capped(number: &Value, of: &Value) -> String {
    let more = if of["capped"] == true { " or more" } else { "" };
    format!("{}{more}", text(number))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_daemon_of_another_version_is_drawn_with_dashes() {
        let status = json!({"phase": "running", "workers": [{"name": "worker-00"}], "history": [{"done": 4.0}, {}]});

        let picture = Picture {
            status: &status,
            width: Some(80),
        }
        .daemon();

        assert!(
            picture.contains("not ready on -, version -, pid -, running for -"),
            "{picture}"
        );
        assert!(picture.contains("worker-00"), "{picture}");
        assert!(picture.contains("█▁  up to 4/s"), "{picture}");
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_and_no_text_is_raw() {
        let hostile = "a\u{1b}[2J\n".repeat(40);
        let status = json!({
            "phase": hostile, "host": hostile, "reason": hostile, "ready": false,
            "workers": [{"name": hostile, "state": hostile, "trouble": hostile}],
            "backlog": {"events": 3, "capped": true, "oldest_due_age_seconds": 1e300},
            "dead": {"total": 1, "by_type": [{"event_type": hostile, "count": 1}]},
        });
        let picture = Picture {
            status: &status,
            width: Some(100),
        };

        for drawn in [picture.daemon(), picture.table()] {
            assert!(!drawn.contains('\u{1b}'), "{drawn:?}");
            assert!(drawn.contains("3 or more, the oldest due for -"), "{drawn}");
            for line in drawn.lines() {
                assert!(line.chars().count() <= 100, "{line}");
            }
        }
    }
}
