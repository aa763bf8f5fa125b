//! GET /api/status: how the daemon, its workers and the table stand, for `dispatchbox status` and
//! the page.
//!
//! The answer is made from what the supervisor has published, so it comes at once, also while the
//! database does not answer. It tells ages instead of times, so a client needs no clock that agrees
//! with ours.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::domain::failure::FailureKind;
use crate::domain::protocol::DatabaseAccess;
use crate::status::history::{History, Rates, Totals};
use crate::status::metrics::TableStatistics;
use crate::status::published::Published;
use crate::status::state::{State, WorkerState};

/// Event types that are shown with their number of dead events: the most frequent ones. A person
/// reads no more of them, and a mistake of a producer could make a type of each event.
const TYPES_MAX: usize = 100;

/// Renders everything as one JSON object.
pub(in crate::http) fn render(published: &Published) -> String {
    let now = Instant::now();
    let state = published.health.state();
    let statistics = published.fresh_statistics();
    let history = published.history();
    let reason = state.not_ready(now).map(|reason| reason.to_string());
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "host": rustix::system::uname().nodename().to_string_lossy(),
        "pid": std::process::id(),
        "phase": state.phase.text(),
        "uptime_seconds": seconds(now - state.started),
        "ready": reason.is_none(),
        "reason": reason,
        "detail": state.detail(),
        "http_up": state.is_http_up,
        "workers": workers(&state, now),
        "in_flight": state.workers.iter().map(|worker| worker.in_flight).sum::<u64>(),
        "set_aside": state.workers.iter().map(|worker| worker.set_aside).sum::<u64>(),
        "totals": totals(history.totals()),
        "rates": rates(history.rates()),
        "backlog": statistics.as_ref().map(|statistics| backlog(statistics, now)),
        "not_due": statistics.as_ref().and_then(|statistics| not_due(statistics, now)),
        "dead": statistics.as_ref().and_then(dead),
        "history": steps(&history, now),
    })
    .to_string()
}

fn workers(state: &State, now: Instant) -> Vec<Value> {
    let numbered = state.workers.iter().enumerate();
    numbered
        .map(|(number, worker)| self::worker(number, worker, now))
        .collect()
}

fn worker(number: usize, worker: &WorkerState, now: Instant) -> Value {
    let (access, age) = worker.report.map_or((None, None), |(access, at)| {
        (Some(access), Some(seconds(now - at)))
    });
    json!({
        "name": format!("worker-{number:02}"),
        "pid": worker.pid,
        "state": worker.phase.text(),
        "uptime_seconds": worker.started.map(|started| seconds(now - started)),
        "restarts": worker.restarts,
        "in_flight": worker.in_flight,
        "set_aside": worker.set_aside,
        "stuck": worker.stuck,
        "db_connected": access.and_then(DatabaseAccess::is_connected) == Some(true),
        "trouble": worker.failure_kind(now).map(FailureKind::text),
        "report_age_seconds": age,
    })
}

fn totals(totals: Totals) -> Value {
    json!({
        "claimed": totals.claimed,
        "done": totals.done,
        "retry": totals.retry,
        "dead": totals.dead,
        "released": totals.released,
    })
}

fn rates(rates: Rates) -> Value {
    json!({
        "claimed": rounded(rates.claimed),
        "done": rounded(rates.done),
        "retry": rounded(rates.retry),
        "dead": rounded(rates.dead),
    })
}

fn backlog(statistics: &TableStatistics, now: Instant) -> Value {
    json!({
        "events": statistics.backlog,
        "capped": statistics.is_backlog_capped,
        "unreadable": statistics.unreadable,
        "oldest_due_age_seconds": seconds(statistics.oldest_due_age),
        "survey_age_seconds": seconds(now - statistics.taken_at),
    })
}

fn not_due(statistics: &TableStatistics, now: Instant) -> Option<Value> {
    let events = statistics.not_due?;
    let first_in = statistics.first_due_in;
    let first_in = first_in.map(|wait| wait.saturating_sub(now - statistics.taken_at));
    Some(json!({
        "events": events,
        "capped": statistics.is_not_due_capped,
        "first_in_seconds": first_in.map(seconds),
    }))
}

fn dead(statistics: &TableStatistics) -> Option<Value> {
    let counts = statistics.dead.as_ref()?;
    let by_type = counts
        .iter()
        .take(TYPES_MAX)
        .map(|(event_type, count)| json!({ "event_type": event_type, "count": count }));
    Some(json!({
        "total": counts.iter().map(|(_, count)| count).sum::<u64>(),
        "capped": statistics.is_dead_capped,
        "by_type": by_type.collect::<Vec<_>>(),
    }))
}

fn steps(history: &History, now: Instant) -> Vec<Value> {
    let render = |step: &crate::status::history::Step| {
        let mut value = rates(step.rates);
        value["age_seconds"] = json!(seconds(now - step.ended));
        value["backlog"] = json!(step.levels.backlog);
        value["oldest_due_age_seconds"] = json!(step.levels.oldest_due_age.map(seconds));
        value["in_flight"] = json!(step.levels.in_flight);
        value
    };
    history.steps().map(render).collect()
}

fn seconds(duration: Duration) -> f64 {
    rounded(duration.as_secs_f64())
}

/// Rounds to three decimals: more would only be noise.
fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}
