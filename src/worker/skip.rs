//! Skipping the index entries of finished events that stand before the next due event: whether a
//! look skips them, and how many at once.
//!
//! The reach of a step grows while steps are cheap, and shrinks when one takes too long. It shrinks
//! in time first. Once a step covers only a single point in time, which all events of a bulk insert
//! share, it shrinks in ids.

use std::time::Duration;

use crate::store::skip::{Reach, Skipped};

/// A look or a step that takes less than this is cheap: the next one may read more.
pub(super) const CHEAP: Duration = Duration::from_millis(25);

/// A look or a step that takes longer than this is dear: the next one reads less.
pub(super) const DEAR: Duration = Duration::from_millis(100);

/// The divisor for the reach of a step that took too long. A step that fails costs its whole time
/// limit, and one that succeeds next to nothing.
const CUT: u32 = 16;

/// The resolution of the database's clock.
const TIME_LEAST: Duration = Duration::from_micros(1);

/// The first reach in ids within one point in time: some 150 ms where all entries are dead.
const IDS_FIRST: i64 = 1 << 20;

/// How the entries of finished events before the next due event are skipped.
#[derive(Debug, Clone, Copy)]
pub(super) struct Skip {
    /// The next look skips finished events.
    pub(super) is_skipped: bool,
    /// How far one step skips.
    pub(super) reach: Reach,
    /// The distance to the end of a step that took too long. No step grows before that place is
    /// passed, since millions of entries may share one point in time.
    too_far: Duration,
    /// The time that skipping has taken since the front walk began.
    cost: Duration,
}

impl Skip {
    pub(super) const FIRST: Skip = Skip {
        is_skipped: false,
        reach: Reach::Time(Duration::from_mins(1)),
        too_far: Duration::ZERO,
        cost: Duration::ZERO,
    };

    /// Notes how far one step came. A look follows if the step came to a due event.
    pub(super) fn skipped(&mut self, reach: Reach, skipped: &Skipped, took: Duration) {
        self.cost += took;
        self.is_skipped = skipped.reached.is_some() && !skipped.is_before_event;
        let factor = if took < CHEAP { 4 } else { 1 };
        self.reach = match reach {
            Reach::Time(time) => {
                self.too_far = self.too_far.saturating_sub(time);
                Reach::Time(if self.too_far.is_zero() {
                    time.saturating_mul(factor)
                } else {
                    part(self.too_far)
                })
            }
            Reach::Ids(_) if skipped.has_passed_time() => Reach::Time(TIME_LEAST),
            Reach::Ids(ids) => Reach::Ids(ids.saturating_mul(i64::from(factor))),
        };
    }

    /// Notes that a look or a skip took too long.
    pub(super) fn failed(&mut self, skip: Option<Reach>, took: Duration) {
        self.cost += took;
        self.is_skipped = true;
        self.reach = match skip {
            None => self.reach,
            Some(Reach::Time(TIME_LEAST)) => {
                self.too_far = Duration::ZERO;
                Reach::Ids(IDS_FIRST)
            }
            Some(Reach::Time(time)) => {
                self.too_far = time;
                Reach::Time(part(time))
            }
            Some(Reach::Ids(ids)) => Reach::Ids((ids / i64::from(CUT)).max(1)),
        };
    }

    /// Notes that the walk begins at the front again. If skipping was dear the last time, the walk
    /// begins with a skip.
    pub(super) fn begins_anew(&mut self) {
        self.is_skipped = self.cost > DEAR;
        self.cost = Duration::ZERO;
    }
}

/// A part of a time that took too long, in whole units of the database's clock.
fn part(time: Duration) -> Duration {
    let micros = time.as_micros() / u128::from(CUT);
    Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX)).max(TIME_LEAST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::cursor::Position;

    fn reaching(reached: Position) -> Skipped {
        Skipped {
            reached: Some(reached),
            is_before_event: false,
            now_micros: 1_000,
        }
    }

    #[test]
    fn what_takes_too_long_is_cut_down_to_a_single_id() {
        let mut skip = Skip::FIRST;
        skip.failed(None, DEAR);
        assert!(skip.is_skipped);
        assert_eq!(skip.reach, Skip::FIRST.reach);
        let mut n_steps = 0;
        while skip.reach != Reach::Ids(1) {
            skip.failed(Some(skip.reach), DEAR);
            n_steps += 1;
        }
        assert!(n_steps < 25, "{n_steps} steps");
    }

    /// Goal: the place of millions of finished events of one point in time is found with few steps
    /// that fail.
    #[test]
    fn steps_close_in_on_a_single_point_in_time() {
        const WALL: Duration = Duration::from_secs(500_000_003);
        let mut skip = Skip::FIRST;
        skip.failed(None, DEAR);
        let (mut at, mut n_failed, mut n_steps) = (Duration::ZERO, 0, 0);
        while let Reach::Time(time) = skip.reach {
            n_steps += 1;
            if at + time >= WALL {
                n_failed += 1;
                skip.failed(Some(skip.reach), DEAR);
            } else {
                at += time;
                skip.skipped(skip.reach, &reaching(Position::at(5)), Duration::ZERO);
            }
        }
        assert_eq!(at + TIME_LEAST, WALL);
        assert!(
            n_failed < 20 && n_steps < 1_000,
            "{n_failed} of {n_steps} failed"
        );
    }

    #[test]
    fn behind_the_events_of_one_time_it_goes_by_time_again() {
        let mut skip = Skip::FIRST;
        skip.failed(Some(Reach::Time(TIME_LEAST)), DEAR);
        assert_eq!(skip.reach, Reach::Ids(IDS_FIRST));

        skip.skipped(skip.reach, &reaching(Position::at(5)), DEAR);
        assert_eq!(skip.reach, Reach::Ids(IDS_FIRST));
        skip.skipped(skip.reach, &reaching(Position::behind(5)), DEAR);
        assert_eq!(skip.reach, Reach::Time(TIME_LEAST));
        skip.skipped(skip.reach, &reaching(Position::behind(6)), Duration::ZERO);
        assert_eq!(skip.reach, Reach::Time(4 * TIME_LEAST));
        assert!(skip.is_skipped);
    }

    #[test]
    fn in_front_of_an_event_and_at_the_end_a_look_follows() {
        for skipped in [
            Skipped {
                is_before_event: true,
                ..reaching(Position::at(5))
            },
            Skipped {
                reached: None,
                ..reaching(Position::at(5))
            },
        ] {
            let mut skip = Skip::FIRST;
            skip.failed(None, DEAR);
            skip.skipped(skip.reach, &skipped, DEAR);
            assert!(!skip.is_skipped, "{skipped:?}");
        }
    }

    #[test]
    fn a_walk_that_was_dear_begins_with_a_skip_the_next_time() {
        let mut skip = Skip::FIRST;
        skip.failed(None, 2 * DEAR);
        skip.begins_anew();
        assert!(skip.is_skipped);
        skip.begins_anew();
        assert!(!skip.is_skipped);
    }
}
