//! How far work on a set of dead letters has come: a place in the order of the list, newest first.
//!
//! It survives as text, for work that takes several requests: from the beginning again, such work
//! would meet what it has requeued and what has become dead once more meanwhile, and might never
//! see the rest.

use std::fmt;
use std::str::FromStr;

use crate::store::time::{DbTime, db_time, unix_micros};

/// How far work on a set of dead letters has come; starts before the newest.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadCursor {
    /// Among those without `created_at`, which come first.
    pub(super) undated_id: i64,
    pub(super) created_at: DbTime,
    pub(super) id: i64,
}

impl Default for DeadCursor {
    fn default() -> DeadCursor {
        DeadCursor {
            undated_id: i64::MAX,
            created_at: DbTime::PosInfinity,
            id: i64::MAX,
        }
    }
}

impl DeadCursor {
    pub(super) fn advance(&mut self, id: i64, created_at: Option<DbTime>) {
        match created_at {
            None => self.undated_id = id,
            Some(created_at) => {
                *self = DeadCursor {
                    undated_id: i64::MIN,
                    created_at,
                    id,
                }
            }
        }
    }
}

const UNDATED: &str = "undated";

const BEGIN: &str = "-infinity";

const END: &str = "infinity";

/// `1735787045000000.7`: microseconds since 1970 and the id of the last that was met.
impl fmt::Display for DeadCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.undated_id != i64::MIN {
            return write!(f, "{UNDATED}.{}", self.undated_id);
        }
        match (self.created_at, unix_micros(self.created_at)) {
            (_, Some(micros)) => write!(f, "{micros}.{}", self.id),
            (DbTime::NegInfinity, None) => write!(f, "{BEGIN}.{}", self.id),
            (DbTime::PosInfinity | DbTime::Value(_), None) => write!(f, "{END}.{}", self.id),
        }
    }
}

/// A text that is no place in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoCursor;

impl FromStr for DeadCursor {
    type Err = NoCursor;

    fn from_str(text: &str) -> Result<DeadCursor, NoCursor> {
        let (time, id) = text.split_once('.').ok_or(NoCursor)?;
        let id = id.parse().map_err(|_| NoCursor)?;
        let created_at = match time {
            UNDATED => None,
            BEGIN => Some(DbTime::NegInfinity),
            END => Some(DbTime::PosInfinity),
            micros => Some(db_time(micros.parse().map_err(|_| NoCursor)?)),
        };
        let mut cursor = DeadCursor::default();
        cursor.advance(id, created_at);
        Ok(cursor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_survives_as_text() {
        for (text, created_at) in [
            ("undated.7", None),
            ("infinity.7", Some(DbTime::PosInfinity)),
            ("-infinity.7", Some(DbTime::NegInfinity)),
            ("1735787045000001.7", Some(db_time(1_735_787_045_000_001))),
            ("-1.7", Some(db_time(-1))),
        ] {
            let mut cursor = DeadCursor::default();
            cursor.advance(7, created_at);
            assert_eq!(cursor.to_string(), text);
            assert_eq!(text.parse(), Ok(cursor));
        }
        let begin = DeadCursor::default();
        assert_eq!(begin.to_string().parse(), Ok(begin));
    }

    #[test]
    fn what_no_answer_gave_is_no_place() {
        for text in ["", "7", ".", "7.", ".7", "a.7", "7.a", "1.2.3", "1e3.7"] {
            assert_eq!(text.parse::<DeadCursor>(), Err(NoCursor), "{text}");
        }
    }
}
