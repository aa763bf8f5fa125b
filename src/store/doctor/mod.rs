//! The checks of `dispatchbox doctor`, as far as they are questions to the server; the texts stand
//! under `sql/doctor/`. Those in [`statements`] say themselves what is wrong, those in [`facts`]
//! are judged by the command.
//!
//! They change nothing and are bounded: transactions that only read, catalogs and indexes alone,
//! and limits so short that no check is felt on a loaded server. What does not answer within them
//! is not known.

pub mod facts;
pub mod finding;
pub mod statements;

use std::time::Duration;

use postgres::types::ToSql;
use serde_json::Value;

pub use crate::store::doctor::finding::{Finding, Level};
use crate::store::error::StoreError;
use crate::store::session::{Limits, Session};
use crate::store::text::Text;

/// How long one check may take, and how long it may wait for a lock.
const CHECK: Limits = Limits {
    lock: Some(Duration::from_millis(200)),
    statement: Some(Duration::from_secs(2)),
};

impl Session {
    /// Makes the following statements short, and unable to change anything. Where there is an
    /// index, no table is read as a whole.
    pub fn begin_checkup(&mut self) -> Result<(), StoreError> {
        self.wait_no_longer(CHECK)?;
        self.bind(
            "forbid changes",
            "select set_config(case when $1 then 'transaction_read_only' else 'default_transaction_read_only' end, 'on', $1), \
             set_config('enable_seqscan', 'off', $1)",
            |_| Ok(()),
        )
        .map(|_| ())
    }

    /// Runs the statement of one check; `seconds` is its parameter, where it has one.
    pub fn findings(
        &mut self,
        sql: &'static str,
        seconds: Option<f64>,
    ) -> Result<Vec<Finding>, StoreError> {
        let params: Vec<&(dyn ToSql + Sync)> = match &seconds {
            Some(seconds) => vec![seconds],
            None => vec![],
        };
        self.query("find that out", sql, &params, |row| {
            let data: Text = row.try_get(3)?;
            Ok(Finding {
                level: Level::of(row.try_get(0)?),
                message: row.try_get::<_, Text>(1)?.into(),
                remedy: row.try_get::<_, Option<Text>>(2)?.map(String::from),
                data: serde_json::from_str(&data.0).unwrap_or(Value::Null),
            })
        })
    }
}
