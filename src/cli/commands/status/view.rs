//! Renders a status: from the JSON of the daemon or of the database to lines of text.
//!
//! The JSON is read as it is and not into types of its own: a field that a daemon of another
//! version adds or lacks is shown, or is a dash, and is never an error.

use serde_json::Value;

use crate::cli::commands::status::cells::{age, count, list, rate, text};
use crate::cli::commands::status::levels::{bars, counted, levels};
use crate::cli::terminal::{self, Table};
use crate::status::history::RATE_SPAN;

/// Width of the longest time that a worker is up, `23 h 59 min`, so that no column moves as it
/// grows.
const UP_WIDTH: usize = 11;

/// Least width at which no column moves. On a narrower terminal columns may move, since the cells
/// need the room.
const WIDTH_STEADY: usize = 80;

/// Most event types of dead events that are shown; `dead-events stats` names all.
const TYPES_SHOWN: usize = 10;

/// A status, and the width of the terminal.
pub(super) struct StatusView<'a> {
    pub(super) status: &'a Value,
    pub(super) width: Option<usize>,
}

impl StatusView<'_> {
    /// Renders the status of a daemon. Counts that the daemon does not know are shown as unknown,
    /// unless those of the database follow below.
    pub(super) fn daemon(&self, is_told_below: bool) -> String {
        let status = self.status;
        let ready = match (status["ready"].as_bool(), status["reason"].as_str()) {
            (Some(true), _) => "ready".to_owned(),
            (_, Some(reason)) => format!("not ready ({reason})"),
            (_, None) => "not ready".to_owned(),
        };
        let rates = &status["rates"];
        let mut lines = vec![
            (
                "daemon",
                format!(
                    "{} on {}, version {}, pid {}, {}, up {}",
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
                    "{} claimed, {} done, {} retried, {} dead, over the last {}",
                    rate(&rates["claimed"]),
                    rate(&rates["done"]),
                    rate(&rates["retry"]),
                    rate(&rates["dead"]),
                    terminal::in_words(RATE_SPAN)
                ),
            ),
            ("in flight", count(&status["in_flight"])),
        ];
        if status["ready"] != true && !status["detail"].is_null() {
            lines.insert(1, ("because", text(&status["detail"])));
        }
        if status["set_aside"].as_u64() > Some(0) {
            let events = count(&status["set_aside"]);
            let why =
                "the database does not take their outcome; the log names those that it refuses";
            lines.push(("set aside", format!("{events} of them: {why}")));
        }
        lines.extend(levels(status, !is_told_below));
        let done = bars(status);
        if !done.is_empty() {
            lines.push(("done", done));
        }
        let mut view = self.cut(&terminal::fields(&lines));
        view.push('\n');
        view.push_str(&self.workers().render(self.width));
        view.push_str(&self.dead_types());
        view
    }

    /// Renders the status that the database knows.
    pub(super) fn table(&self) -> String {
        let mut lines = levels(self.status, true);
        if let Some(hidden) = self.status["hidden"].as_str() {
            lines.push(("warning", hidden.to_owned()));
        }
        let mut view = self.cut(&terminal::fields(&lines));
        let holders = list(&self.status["workers"]);
        if !holders.is_empty() {
            let mut table =
                Table::new(&["worker by its leases", "leases#", "events#", "until", ""]);
            for holder in holders {
                let until = terminal::short_time(&text(&holder["expires_at"]));
                let is_expired = holder["expired"] == true;
                table.row([
                    text(&holder["worker"]),
                    count(&holder["leases"]),
                    count(&holder["events"]),
                    until,
                    if is_expired { "expired" } else { "" }.to_owned(),
                ]);
            }
            view.push('\n');
            view.push_str(&table.render(self.width));
        }
        view.push_str(&self.dead_types());
        view
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
        let is_steady = self.width.is_none_or(|width| width >= WIDTH_STEADY);
        let up_width = if is_steady { UP_WIDTH } else { 0 };
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
                format!("{:up_width$}", age(&worker["uptime_seconds"])),
                text(&worker["restarts"]),
                count(&worker["in_flight"]),
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
        for one in by_type.iter().take(TYPES_SHOWN) {
            table.row([count(&one["count"]), text(&one["event_type"])]);
        }
        let mut view = String::from("\n");
        let counted = counted(self.status);
        if !counted.is_empty() {
            view.push_str(&self.cut(&format!("dead events by type{counted}\n")));
        }
        view.push_str(&table.render(self.width));
        if by_type.len() > TYPES_SHOWN {
            view.push_str("…  `dispatchbox dead-events stats` names all\n");
        }
        view
    }

    fn cut(&self, lines: &str) -> String {
        let width = self.width.unwrap_or(usize::MAX);
        lines
            .lines()
            .map(|line| terminal::cut(line, width) + "\n")
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_daemon_of_another_version_is_drawn_with_dashes() {
        let status = json!({"phase": "running", "workers": [{"name": "worker-00"}], "history": [{"done": 4.0}, {}]});

        let view = StatusView {
            status: &status,
            width: Some(80),
        }
        .daemon(false);

        assert!(
            view.contains("not ready on -, version -, pid -, running, up -"),
            "{view}"
        );
        assert!(view.contains("worker-00"), "{view}");
        assert!(view.contains("█▁  up to 4/s"), "{view}");
    }

    #[test]
    fn what_waits_for_its_time_and_why_nothing_is_delivered_are_told() {
        let status = json!({
            "ready": false,
            "reason": "schema not usable",
            "detail": "the schema lacks the function outbox_renew_1",
            "not_due": {"events": 1500, "capped": false, "first_in_seconds": 540},
        });

        let view = StatusView {
            status: &status,
            width: None,
        }
        .daemon(false);

        for line in [
            "because        the schema lacks the function outbox_renew_1\n",
            "not due yet    1,500, the first due in 9 min\n",
        ] {
            assert!(view.contains(line), "{view}");
        }
    }

    #[test]
    fn counts_are_grouped_and_say_how_old_they_are() {
        let drawn = |status: Value| {
            let view = StatusView {
                status: &status,
                width: None,
            };
            view.daemon(false)
        };
        let old = drawn(json!({
            "backlog": {"events": 48_500, "oldest_due_age_seconds": 3.2, "survey_age_seconds": 12.4},
            "dead": {"total": 1000, "by_type": []},
        }));
        assert!(
            old.contains("backlog        48,500 (12 s ago), the oldest due for 3 s\n"),
            "{old}"
        );
        assert!(old.contains("dead           1,000 (12 s ago)\n"), "{old}");
        let all_old = drawn(json!({
            "backlog": {"events": 0, "survey_age_seconds": 40.0},
            "not_due": {"events": 3, "first_in_seconds": 9},
            "dead": {"total": 1, "by_type": [{"event_type": "order.created", "count": 1}]},
        }));
        for line in [
            "backlog        0 (40 s ago)\n",
            "not due yet    3 (40 s ago), the first due in 9 s\n",
            "dead           1 (40 s ago)\n",
            "\ndead events by type (40 s ago)\ndead  event type\n",
        ] {
            assert!(all_old.contains(line), "{line}: {all_old}");
        }
        let away =
            drawn(json!({"ready": false, "reason": "database not connected", "backlog": null}));
        assert!(
            away.contains("backlog        unknown: database not connected\n"),
            "{away}"
        );
        let fresh = drawn(json!({"backlog": {"events": 0, "survey_age_seconds": 1.9}}));
        assert!(fresh.contains("backlog        0\n"), "{fresh}");
        assert!(fresh.contains("dead           unknown\n"), "{fresh}");
        let none = drawn(json!({"backlog": null, "dead": null}));
        assert!(none.contains("backlog        unknown\n"), "{none}");
    }

    #[test]
    fn no_column_moves_while_a_worker_grows_old() {
        let drawn = |seconds: u64| {
            let status = json!({"workers": [{"name": "worker-00", "uptime_seconds": seconds}]});
            let view = StatusView {
                status: &status,
                width: None,
            };
            let drawn = view.daemon(false);
            drawn.lines().find_map(|line| line.find("restarts"))
        };
        let at = drawn(3);
        assert!(at.is_some());
        for seconds in [70, 3_599, 86_399, 9_000_000] {
            assert_eq!(drawn(seconds), at, "{seconds}");
        }
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
        let view = StatusView {
            status: &status,
            width: Some(100),
        };

        for drawn in [view.daemon(false), view.table()] {
            assert!(!drawn.contains('\u{1b}'), "{drawn:?}");
            assert!(drawn.contains("3 or more, the oldest due for -"), "{drawn}");
            for line in drawn.lines() {
                assert!(line.chars().count() <= 100, "{line}");
            }
        }
    }
}
