//! What each path answers. An endpoint is a route in `route.rs`, an arm here, and a file of this
//! directory unless its answer is short.

mod dead_events;
mod status;

use std::sync::Arc;
use std::time::Instant;

use log::warn;
use serde::Serialize;

use crate::http::api::access::Access;
use crate::http::api::calls::Calls;
use crate::http::api::exchange::{Incoming, Reply};
use crate::http::api::route::{self, Route};
use crate::http::page;
use crate::status::metrics;
use crate::status::published::Published;
use crate::status::state::DaemonPhase;

/// All sources of the answers. Cheap to clone: its parts are shared.
#[derive(Clone)]
pub(in crate::http) struct Endpoints {
    pub(in crate::http) published: Published,
    pub(in crate::http) access: Arc<Access>,
    pub(in crate::http) calls: Calls,
}

impl Endpoints {
    /// Answers one request.
    pub(in crate::http) fn answer(&self, request: &Incoming) -> Reply {
        if route::is_api(&request.target)
            && let Err(refusal) = self.access.check(request)
        {
            return refusal;
        }
        match route::find(&request.method, &request.target) {
            Route::Page => page::reply(),
            Route::Health => Reply::json(200, r#"{"status":"ok"}"#),
            Route::Ready => self.ready(),
            Route::Metrics => self.metrics(),
            Route::Status => self.status(),
            Route::DeadEvents(route) => {
                let calls = self.calls.of_request(request.arrived);
                dead_events::answer(route, request, &calls)
            }
            Route::BadPath(refusal) => Reply::error(400, refusal),
            Route::NotFound => Reply::json(
                404,
                r#"{"error":"Not Found","message":"The requested resource was not found"}"#,
            ),
            Route::MethodNotAllowed(allow) => Reply::json(
                405,
                r#"{"error":"Method Not Allowed","message":"The HTTP method is not allowed for this resource"}"#,
            )
            .with("Allow", allow),
        }
    }

    /// Answers whether the daemon should get traffic now, and if not, why.
    fn ready(&self) -> Reply {
        let health = &self.published.health;
        // A daemon that drains asks the database no more.
        if health.state().phase != DaemonPhase::Draining {
            self.published.looks.ask();
        }
        let reason = health.state().not_ready(Instant::now());
        let (code, status) = match reason {
            None => (200, "ready"),
            Some(_) => (503, "not ready"),
        };
        let reason = reason.map(|reason| reason.to_string());
        Reply::of(code, &Readiness { status, reason })
    }

    /// Answers from what the last look found, and asks for the next one.
    fn status(&self) -> Reply {
        if self.published.health.state().phase != DaemonPhase::Draining {
            self.published.looks.glance();
        }
        Reply::json(200, status::render(&self.published))
    }

    fn metrics(&self) -> Reply {
        let rendered = self.published.fleet().render();
        match rendered {
            Ok(body) => Reply {
                status: 200,
                media_type: metrics::CONTENT_TYPE,
                body,
                headers: Vec::new(),
            },
            Err(error) => {
                warn!("could not render the metrics: {error}");
                Reply::error(500, "metrics unavailable")
            }
        }
    }
}

/// The answer of /ready.
#[derive(Serialize)]
struct Readiness {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}
