//! The endpoints for dead events: list, show, count, requeue, discard.
//!
//! Paths, statuses, keys and texts that the predecessor had are a contract with existing clients. A
//! change by ids or by a filter goes in batches. Each batch is a transaction of its own: what is
//! committed stays, and the answer says how much that is.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde::Serialize;
use serde_json::{Value, json};

use crate::http::api::body::{self, Selection};
use crate::http::api::calls::{BATCHES_MAX, CallError, Calls, FIRST_BATCH_MAX, come_again};
use crate::http::api::exchange::{Incoming, Reply};
use crate::http::api::query;
use crate::http::api::route::{DeadRoute, NO_EVENT_ID, Target};
use crate::store::{BulkChange, Changed, DeadChange, LeftAlone, Session, StoreError};

/// A list ends early after this many bytes of payloads: a thousand large payloads at a time would
/// not fit into the supervisor's memory. The payloads are counted as text and not as they are
/// stored, since a payload of a megabyte may take eleven kilobytes in the table.
const LIST_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Size of the first batch of a change of many events: where the database is slow, a batch of full
/// size would take all the time that a statement has.
const FIRST_BATCH: u32 = 1000;
/// Most events that an answer names of those that were left alone.
const LEFT_SHOWN_MAX: usize = 20;

/// Answers one request.
pub(in crate::http) fn answer(route: DeadRoute, request: &Incoming, calls: &Calls) -> Reply {
    let reply = match route {
        DeadRoute::List => list(&request.target, calls),
        DeadRoute::Stats => stats(&request.target, calls),
        DeadRoute::Show(id) => show(id, calls),
        DeadRoute::Change(change, target) => query::nothing(&request.target)
            .map_err(bad_request)
            .and_then(|()| match target {
                Target::One(id) => body::no_dry_run(&request.body)
                    .map_err(bad_request)
                    .and_then(|()| change_one(change, id, calls)),
                Target::Batch => change_batch(change, &request.body, calls),
                Target::Matching => change_matching(change, &request.body, calls),
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
    // The events are rendered one by one, so that each is in memory once and not in three forms
    // beside all others.
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
    let asked = filter.clone();
    let total = calls.make(move |session| session.count_dead(&asked))?;
    let counted = DeadCount {
        total,
        aggregate_type: filter.aggregate_type,
        event_type: filter.event_type,
    };
    Ok(Reply::of(200, &counted))
}

fn show(id: i64, calls: &Calls) -> Result<Reply, Reply> {
    let (event, is_id) = calls.make(move |session| {
        let event = session.dead_event(id)?;
        let is_id = event.is_some() || are_ids(session, &[id])?;
        Ok((event, is_id))
    })?;
    Ok(match event {
        Some(event) => Reply::json(200, event.to_json()),
        None if is_id => Reply::error(404, &format!("Dead event {id} not found")),
        None => bad_request(NO_EVENT_ID.to_owned()),
    })
}

/// Says whether all these numbers may be ids. Numbers below one are no ids, as clients have always
/// been told, unless the table holds such ids.
fn are_ids(session: &mut Session, ids: &[i64]) -> Result<bool, StoreError> {
    Ok(ids.iter().all(|&id| id > 0) || session.has_ids_below_one()?)
}

fn change_one(change: DeadChange, id: i64, calls: &Calls) -> Result<Reply, Reply> {
    let (changed, is_id) = calls.make(move |session| {
        let changed = session.change_dead(change, &[id])?;
        let is_id = changed != Changed::default() || are_ids(session, &[id])?;
        Ok((changed, is_id))
    })?;
    if !is_id {
        return Err(bad_request(NO_EVENT_ID.to_owned()));
    }
    if let Some(left) = changed.left.first() {
        let error = format!("Event {id} is not {}: {}", change.done(), left.reason);
        return Ok(Reply::error(409, &error));
    }
    if changed.ids.is_empty() {
        let error = format!("Dead event {id} not found or already processed");
        return Ok(Reply::error(404, &error));
    }
    let done = Done {
        event_id: Some(id),
        ..Done::new(format!("Event {id} {}", change.done()))
    };
    Ok(Reply::of(200, &done))
}

fn change_batch(change: DeadChange, body: &[u8], calls: &Calls) -> Result<Reply, Reply> {
    let ids = body::event_ids(body).map_err(bad_request)?;
    let requested = ids.len();
    let progress = Progress::default();
    let counted = progress.clone();
    let rest = calls.make(move |session| {
        if !are_ids(session, &ids)? {
            return Ok(Some(Rest::NoIds));
        }
        counted.make(
            session,
            &mut BulkChange::of_ids(change, ids).starting_with(FIRST_BATCH),
        )
    });
    if let Some(rest) = rest.map_err(|error| progress.refuse(error))? {
        return Err(match rest {
            Rest::NoIds => bad_request(body::NO_ID.to_owned()),
            Rest::OutOfTime => progress.come_again("stopped after the time for one request"),
            Rest::Failed(error) => progress.refuse(calls.judge(&error)),
        });
    }
    let done = Done {
        requested: Some(requested),
        ..progress.done(change)
    };
    Ok(Reply::of(200, &done))
}

fn change_matching(change: DeadChange, body: &[u8], calls: &Calls) -> Result<Reply, Reply> {
    let Selection {
        filter,
        is_dry_run,
        after,
    } = body::selection(body).map_err(bad_request)?;
    if is_dry_run {
        let matched = calls.make(move |session| session.count_dead(&filter))?;
        let done = Done {
            dry_run: Some(true),
            matched: Some(matched),
            ..Done::new(format!("{matched} event(s) would be {}", change.done()))
        };
        return Ok(Reply::of(200, &done));
    }
    let progress = Progress::default();
    let counted = progress.clone();
    let made = calls.make(move |session| {
        let mut work = BulkChange::matching(change, filter, after).starting_with(FIRST_BATCH);
        let rest = counted.make(session, &mut work)?;
        Ok((rest, work.reached()))
    });
    let (rest, reached) = made.map_err(|error| progress.refuse(error))?;
    let after = match rest {
        Some(Rest::OutOfTime) => Some(reached.to_string()),
        Some(Rest::Failed(error)) => return Err(progress.refuse(calls.judge(&error))),
        Some(Rest::NoIds) | None => None,
    };
    let done = Done {
        dry_run: Some(false),
        complete: Some(after.is_none()),
        after,
        ..progress.done(change)
    };
    Ok(Reply::of(200, &done))
}

/// The answer to a request for the number of dead events.
#[derive(Serialize)]
struct DeadCount {
    total: u64,
    aggregate_type: Option<String>,
    event_type: Option<String>,
}

/// The answer to a change that was made. Which keys it has depends on what was asked for.
#[derive(Default, Serialize)]
struct Done {
    status: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    requested: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dry_run: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    matched: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    processed: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    complete: Option<bool>,
    /// The place in the list behind which the rest stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<String>,
    /// Events that were left alone, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    left: Vec<Value>,
}

impl Done {
    fn new(message: String) -> Done {
        Done {
            status: "success",
            message,
            ..Done::default()
        }
    }
}

impl DeadChange {
    /// The word for what was done with the events.
    fn done(self) -> &'static str {
        match self {
            DeadChange::Requeue => "reset to pending",
            DeadChange::Discard => "discarded",
        }
    }
}

/// How far a change in batches has come. It is shared, so that the answer to a request whose call
/// does not return in time tells the progress, too.
#[derive(Clone, Default)]
struct Progress {
    processed: Arc<AtomicUsize>,
    /// The first of the dead events that were left alone.
    left: Arc<Mutex<Vec<LeftAlone>>>,
}

/// Why events are left.
enum Rest {
    /// Some of the numbers are no ids, so nothing was done.
    NoIds,
    OutOfTime,
    Failed(StoreError),
}

impl Progress {
    /// Changes one batch after the other until all events have been met, or the time for batches is
    /// over. Returns an error only where nothing is done.
    fn make(
        &self,
        session: &mut Session,
        work: &mut BulkChange,
    ) -> Result<Option<Rest>, StoreError> {
        let began = Instant::now();
        loop {
            let step = match work.find(session) {
                Ok(ids) if ids.is_empty() => return Ok(None),
                Ok(_) if self.is_out_of_time(began) => return Ok(Some(Rest::OutOfTime)),
                Ok(ids) => work.apply(session, &ids),
                Err(error) => Err(error),
            };
            match step {
                Ok(Some(changed)) => self.count(changed),
                // The batch was too slow: the next one is smaller.
                Ok(None) => {}
                Err(error) if self.processed() == 0 => return Err(error),
                Err(error) => return Ok(Some(Rest::Failed(error))),
            }
        }
    }

    fn count(&self, changed: Changed) {
        self.processed
            .fetch_add(changed.ids.len(), Ordering::Relaxed);
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let room = LEFT_SHOWN_MAX.saturating_sub(left.len());
        left.extend(changed.left.into_iter().take(room));
    }

    /// The answer of success: how many events were changed, and which were left alone.
    fn done(&self, change: DeadChange) -> Done {
        let processed = self.processed();
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        Done {
            processed: Some(processed),
            left: left
                .iter()
                .map(|left| json!({ "event_id": left.id, "reason": left.reason }))
                .collect(),
            ..Done::new(format!("{processed} event(s) {}", change.done()))
        }
    }

    fn is_out_of_time(&self, began: Instant) -> bool {
        let limit = if self.processed() == 0 {
            FIRST_BATCH_MAX
        } else {
            BATCHES_MAX
        };
        began.elapsed() >= limit
    }

    fn processed(&self) -> usize {
        self.processed.load(Ordering::Relaxed)
    }

    /// The reply where an answer of success would say that all is done; the same request, sent
    /// again, does the rest.
    fn refuse(&self, error: CallError) -> Reply {
        // Any other error before the first batch means that the change was not begun.
        if self.processed() == 0 && error != CallError::TooSlow {
            return error.into();
        }
        if error == CallError::Refused {
            let body = json!({ "error": error.text(), "processed": self.processed() });
            return Reply::of(500, &body);
        }
        self.come_again(error.text())
    }

    fn come_again(&self, error: &str) -> Reply {
        come_again(json!({ "error": error, "processed": self.processed() }))
    }
}
