//! Points in time as the database knows them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use postgres::types::Timestamp;

/// A point in time as the database knows them, `infinity` and `-infinity` among them; microseconds
/// survive the way there and back.
pub(super) type DbTime = Timestamp<SystemTime>;

/// Microseconds since 1970; `None` for the infinities.
pub(super) fn unix_micros(time: DbTime) -> Option<i64> {
    let Timestamp::Value(time) = time else {
        return None;
    };
    let micros = |distance: Duration| i64::try_from(distance.as_micros()).ok();
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => micros(since),
        Err(before) => micros(before.duration()).map(|micros| -micros),
    }
}

/// A time as the database takes it: what was before its calendar is infinitely long ago.
pub(super) fn db_time(micros: i64) -> DbTime {
    /// 4713 BC, with some days to spare. On the other side its calendar reaches further than the
    /// number.
    const EARLIEST: i64 = -210_866_000_000_000_000;
    let distance = Duration::from_micros(micros.unsigned_abs());
    match micros {
        ..EARLIEST => DbTime::NegInfinity,
        EARLIEST..0 => DbTime::Value(UNIX_EPOCH - distance),
        0.. => DbTime::Value(UNIX_EPOCH + distance),
    }
}
