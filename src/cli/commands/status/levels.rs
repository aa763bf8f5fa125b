//! How much there is to do, by a status: events that wait or are dead, and what was done lately.

use serde_json::Value;

use crate::cli::commands::status::cells::{age, capped, count, list};

/// Steps of the history that are shown: five minutes.
const STEPS_SHOWN: usize = 60;

/// The heights of a bar.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Counts that are older than this are shown with their age: a person looks that often.
const COUNTS_FRESH_SECONDS: f64 = 2.0;

/// Backlog and dead events, and how long ago they were counted; unknown counts are shown only
/// where `is_all`.
pub(super) fn levels(status: &Value, is_all: bool) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    let unknown = || match status["reason"].as_str() {
        Some(reason) => format!("unknown: {reason}"),
        None => "unknown".to_owned(),
    };
    let backlog = &status["backlog"];
    let counted = counted(status);
    if !backlog.is_null() {
        let oldest = match backlog["events"].as_u64() {
            Some(0) | None => String::new(),
            Some(_) => format!(
                ", the oldest due for {}",
                age(&backlog["oldest_due_age_seconds"])
            ),
        };
        let events = capped(&backlog["events"], backlog);
        lines.push(("backlog", format!("{events}{counted}{oldest}")));
    } else if is_all {
        lines.push(("backlog", unknown()));
    }
    if backlog["unreadable"].as_u64() > Some(0) {
        let events = count(&backlog["unreadable"]);
        lines.push((
            "unreadable",
            format!("{events}, passed over until the next look; the log names them"),
        ));
    }
    let not_due = &status["not_due"];
    if not_due["events"].as_u64() > Some(0) {
        let first = match not_due["first_in_seconds"].as_f64() {
            Some(_) => format!(", the first due in {}", age(&not_due["first_in_seconds"])),
            None => String::new(),
        };
        let events = capped(&not_due["events"], not_due);
        lines.push(("not due yet", format!("{events}{counted}{first}")));
    }
    let dead = &status["dead"];
    if !dead.is_null() {
        let total = capped(&dead["total"], dead);
        lines.push(("dead", format!("{total}{counted}")));
    } else if is_all {
        lines.push(("dead", unknown()));
    }
    lines
}

/// How long ago the table was counted, where the count is not fresh: ` (12 s ago)`.
pub(super) fn counted(status: &Value) -> String {
    let survey_age = &status["backlog"]["survey_age_seconds"];
    match survey_age.as_f64() {
        Some(seconds) if seconds > COUNTS_FRESH_SECONDS => {
            format!(" ({} ago)", age(survey_age))
        }
        Some(_) | None => String::new(),
    }
}

/// Renders how many events were done in each of the last steps, the newest at the right.
pub(super) fn bars(status: &Value) -> String {
    let history = list(&status["history"]);
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
