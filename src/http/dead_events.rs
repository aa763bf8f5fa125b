//! The endpoints for dead events: seen, tried again, moved to the archive.
//!
//! Paths, statuses, keys and texts of what the predecessor had are a contract with existing clients. A change by ids or by description
//! goes in batches, each its own transaction: what is done is done, and the answer says how much that is.

use std::fmt::Write as _;
use std::time::Instant;

use serde_json::json;

use super::body::{self, Selection};
use super::calls::{BATCHES_MAX, Calls, come_again};
use super::exchange::{Incoming, Reply};
use super::query;
use super::route::{DeadRoute, Whom};
use crate::store::{DEAD_BATCH, DeadChange, Session, StoreError};

/// A list ends early behind so many bytes of payloads: a thousand large ones at a time no supervisor could hold. Counted as text and not as
/// they are stored, since a payload of a megabyte may take eleven kilobytes in the table.
const LIST_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Answers one request.
pub(super) fn answer(route: DeadRoute, request: &Incoming, calls: &Calls) -> Reply {
    let reply = match route {
        DeadRoute::List => list(&request.target, calls),
        DeadRoute::Stats => stats(&request.target, calls),
        DeadRoute::Show(id) => show(id, calls),
        DeadRoute::Change(change, whom) => query::nothing(&request.target)
            .map_err(bad_request)
            .and_then(|()| match whom {
                Whom::One(id) => change_one(change, id, calls),
                Whom::Batch => change_batch(change, &request.body, calls),
                Whom::Matching => change_matching(change, &request.body, calls),
            }),
    };
    reply.unwrap_or_else(|refusal| refusal)
}

fn bad_request(refusal: String) -> Reply {
    Reply::error(400, &refusal)
}

fn list(target: &str, calls: &Calls) -> Result<Reply, Reply> {
    let page = query::page(target).map_err(bad_request)?;
    let (limit, offset) = (page.limit, page.offset);
    let events = calls
        .make(move |session| session.dead_events(&page.filter, limit, offset, LIST_BYTES_MAX))?;
    let count = events.len();
    let mut body = r#"{"events":["#.to_owned();
    // One by one, so that each is in memory once and not in three forms beside all others.
    for (place, event) in events.into_iter().enumerate() {
        if place > 0 {
            body.push(',');
        }
        body.push_str(&event.to_json());
    }
    // Writing to a String cannot fail.
    let _ = write!(
        body,
        r#"],"count":{count},"limit":{limit},"offset":{offset}}}"#
    );
    Ok(Reply::json(200, body))
}

fn stats(target: &str, calls: &Calls) -> Result<Reply, Reply> {
    let filter = query::filter(target).map_err(bad_request)?;
    let counted = filter.clone();
    let total = calls.make(move |session| session.count_dead(&counted))?;
    Ok(Reply::json(
        200,
        format!(
            r#"{{"total":{total},"aggregate_type":{},"event_type":{}}}"#,
            json!(filter.aggregate_type),
            json!(filter.event_type)
        ),
    ))
}

fn show(id: i64, calls: &Calls) -> Result<Reply, Reply> {
    let event = calls.make(move |session| session.dead_event(id))?;
    Ok(match event {
        Some(event) => Reply::json(200, event.to_json()),
        None => Reply::error(404, &format!("Dead event {id} not found")),
    })
}

fn change_one(change: DeadChange, id: i64, calls: &Calls) -> Result<Reply, Reply> {
    let changed = calls.make(move |session| session.change_dead(change, &[id]))?;
    if changed.is_empty() {
        let error = format!("Dead event {id} not found or already processed");
        return Ok(Reply::error(404, &error));
    }
    let message = format!("Event {id} {}", change.done());
    Ok(Reply::json(
        200,
        format!(
            r#"{{"status":"success","message":{},"event_id":{id}}}"#,
            json!(message)
        ),
    ))
}

fn change_batch(change: DeadChange, body: &[u8], calls: &Calls) -> Result<Reply, Reply> {
    let ids = body::event_ids(body).map_err(bad_request)?;
    let requested = ids.len();
    let progress = calls.make(move |session| {
        let mut batches = ids.chunks(DEAD_BATCH as usize).map(<[i64]>::to_vec);
        Progress::make(change, session, |_| Ok(batches.next().unwrap_or_default()))
    })?;
    let processed = progress.processed;
    if let Some(rest) = progress.rest {
        return Err(rest.refuse(processed, calls));
    }
    let message = format!("{processed} event(s) {}", change.done());
    Ok(Reply::json(
        200,
        format!(
            r#"{{"status":"success","message":{},"requested":{requested},"processed":{processed}}}"#,
            json!(message)
        ),
    ))
}

fn change_matching(change: DeadChange, body: &[u8], calls: &Calls) -> Result<Reply, Reply> {
    let Selection {
        filter,
        is_dry_run,
        after,
    } = body::selection(body).map_err(bad_request)?;
    if is_dry_run {
        let matched = calls.make(move |session| session.count_dead(&filter))?;
        let message = format!("{matched} event(s) would be {}", change.done());
        return Ok(Reply::json(
            200,
            format!(
                r#"{{"status":"success","message":{},"dry_run":true,"matched":{matched}}}"#,
                json!(message)
            ),
        ));
    }
    let (progress, reached) = calls.make(move |session| {
        let mut cursor = after;
        let mut reached = cursor.clone();
        let progress = Progress::make(change, session, |session| {
            // Whoever asks for the next batch has changed the one before.
            reached = cursor.clone();
            session.matching_dead(&filter, &mut cursor, DEAD_BATCH)
        })?;
        Ok((progress, reached))
    })?;
    let processed = progress.processed;
    let end = match progress.rest {
        None => r#""complete":true"#.to_owned(),
        Some(Rest::OutOfTime) => format!(r#""complete":false,"after":"{reached}""#),
        Some(rest @ Rest::Failed(_)) => return Err(rest.refuse(processed, calls)),
    };
    let message = format!("{processed} event(s) {}", change.done());
    Ok(Reply::json(
        200,
        format!(
            r#"{{"status":"success","message":{},"dry_run":false,"processed":{processed},{end}}}"#,
            json!(message)
        ),
    ))
}

impl DeadChange {
    /// What has become of the events.
    fn done(self) -> &'static str {
        match self {
            DeadChange::Requeue => "reset to pending",
            DeadChange::Discard => "discarded",
        }
    }
}

/// How far a change in batches came.
struct Progress {
    processed: usize,
    /// Why it is not complete, if it is not.
    rest: Option<Rest>,
}

/// Why events are left.
enum Rest {
    OutOfTime,
    Failed(StoreError),
}

impl Progress {
    /// Changes one batch after the other until `next` finds none, or the time for batches is over; an error only where nothing is done.
    fn make(
        change: DeadChange,
        session: &mut Session,
        mut next: impl FnMut(&mut Session) -> Result<Vec<i64>, StoreError>,
    ) -> Result<Progress, StoreError> {
        let deadline = Instant::now() + BATCHES_MAX;
        let mut processed = 0;
        let rest = loop {
            let step = match next(session) {
                Ok(ids) if ids.is_empty() => break None,
                Ok(_) if Instant::now() >= deadline => break Some(Rest::OutOfTime),
                Ok(ids) => session.change_dead(change, &ids),
                Err(error) => Err(error),
            };
            match step {
                Ok(changed) => processed += changed.len(),
                Err(error) if processed == 0 => return Err(error),
                Err(error) => break Some(Rest::Failed(error)),
            }
        };
        Ok(Progress { processed, rest })
    }
}

impl Rest {
    /// The reply where an answer of success would say that all is done; the same request again does the rest.
    fn refuse(self, processed: usize, calls: &Calls) -> Reply {
        let error = match self {
            Rest::OutOfTime => "stopped after the time for one request",
            Rest::Failed(error) => calls.judge(&error).text(),
        };
        come_again(json!({ "error": error, "processed": processed }))
    }
}
