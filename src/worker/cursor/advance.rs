//! How the cursors and the front walk move by the results of looks, and how long they pause.

use std::time::{Duration, Instant};

use crate::store::claim::Looked;
use crate::store::cursor::Position;
use crate::store::skip::Skipped;
use crate::worker::cursor::{
    Cursors, END, END_PAUSE, FRONT, Front, Look, PASSING, PAUSE_MAX, Purpose, RECENT, REST,
};

impl Cursors {
    /// Notes the result of a look: `taken` are the groups of the events that it claimed, and
    /// `is_cut` says that it claimed as many as it asked for.
    pub(in crate::worker) fn looked(
        &mut self,
        look: &Look,
        looked: &Looked,
        taken: &[usize],
        is_cut: bool,
        took: Duration,
    ) {
        self.stretches[look.purpose as usize].adapt(looked.reached.is_none(), is_cut, took);
        self.advance(look, looked, taken, is_cut, took);
    }

    /// Notes how far a look that skips finished events came.
    pub(in crate::worker) fn skipped(&mut self, look: &Look, skipped: &Skipped, took: Duration) {
        if let Some(reach) = look.skip {
            let skip = &mut self.stretches[look.purpose as usize].skip;
            skip.skipped(reach, skipped, took);
        }
        let looked = Looked {
            claimed: None,
            reached: skipped.reached,
            full: Vec::new(),
            now_micros: skipped.now_micros,
        };
        self.advance(look, &looked, &[], false, took);
    }

    fn advance(
        &mut self,
        look: &Look,
        looked: &Looked,
        taken: &[usize],
        is_cut: bool,
        took: Duration,
    ) {
        let now = Instant::now();
        self.clock = Some((looked.now_micros, now));
        self.is_careful &= looked.reached.is_some();
        let end = Position::behind(looked.now_micros);
        for &group in &look.groups {
            let full = looked.full.iter().find(|(full, _)| *full == group);
            let cursor = &mut self.groups[group];
            // The front walk may be ahead of a group that had no room when it passed: it has not
            // looked for events of this group in between.
            if look.after.is_behind(&cursor.position) {
                continue;
            }
            let has_more = full.is_some() || (is_cut && taken.contains(&group));
            cursor.is_at_end = looked.reached.is_none() && full.is_none();
            cursor.is_dense = has_more;
            let reached = full.map_or(looked.reached.unwrap_or(end), |&(_, position)| position);
            // A few late events behind the cursor do not move it back, so that the next look does
            // not read the same entries again. If the look found more of them than it could take,
            // the next one goes on behind the last that it took.
            if has_more || reached.is_behind(&cursor.position) {
                cursor.position = reached;
            }
            if cursor.is_at_end {
                cursor.not_before = now + END.pause(took).max(END_PAUSE);
            }
        }
        if self.groups[REST].is_dense && look.purpose == Purpose::Limited && taken.is_empty() {
            for &group in &look.groups {
                let cursor = &mut self.groups[group];
                cursor.not_before = cursor.not_before.max(now + PASSING.pause(took));
            }
        }
        if look.is_recent {
            self.recent_from = now + RECENT.pause(took);
        }
        if look.purpose == Purpose::Front {
            self.stepped(looked.reached, took, now);
        }
    }

    /// Notes that a look took longer than it may: the next one from there reads less, and other
    /// looks have precedence for as long as this one took.
    pub(in crate::worker) fn failed(&mut self, look: &Look, took: Duration) {
        let stretch = &mut self.stretches[look.purpose as usize];
        stretch.skip.failed(look.skip, took);
        if let (None, Some(entries)) = (look.skip, look.stretch) {
            stretch.failed(entries);
        }
        self.is_careful = true;
        let now = Instant::now();
        if look.is_recent {
            self.recent_from = now + RECENT.pause(took);
        }
        if look.purpose == Purpose::Front {
            self.front.not_before = now + FRONT.pause(took);
        } else {
            // A step over finished events is short, and the next one may be the last.
            let wait = match look.skip {
                Some(_) => Duration::ZERO,
                None => took.min(PAUSE_MAX),
            };
            for &group in &look.groups {
                self.groups[group].not_before = now + wait;
            }
        }
    }

    /// Makes the front walk begin at once, because events behind the cursors were given back.
    pub(in crate::worker) fn given_back(&mut self) {
        self.front.at = Position::FRONT;
        self.front.not_before = Instant::now();
    }

    /// Moves the front walk on; it begins anew where it has passed every cursor.
    fn stepped(&mut self, reached: Option<Position>, took: Duration, now: Instant) {
        let is_behind_a_cursor = |reached: &Position| {
            let mut cursors = self.groups.iter();
            cursors.any(|cursor| cursor.position.is_behind(reached))
        };
        self.front = Front {
            at: reached
                .filter(is_behind_a_cursor)
                .unwrap_or(Position::FRONT),
            not_before: now + FRONT.pause(took),
        };
        if self.front.at == Position::FRONT {
            self.stretches[Purpose::Front as usize].skip.begins_anew();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::skip::DEAR;
    use crate::worker::stretch::{EVENTS_FIRST, EVENTS_MAX};

    const DEAR_LOOK: Duration = Duration::from_hours(1);

    /// Cursors whose front was walked just now and is dear.
    fn behind_a_dear_front(n_limited: usize, reached: i64) -> Cursors {
        let mut cursors = Cursors::new(n_limited, n_limited > 0, Instant::now());
        let all: Vec<usize> = (0..=n_limited).collect();
        let look = next(&mut cursors, &all);
        assert_eq!(look.after, Position::FRONT);
        cursors.looked(&look, &reaching(reached), &[], false, DEAR_LOOK);
        cursors.recent_from = Instant::now() + DEAR_LOOK;
        cursors
    }

    fn next(cursors: &mut Cursors, runnable: &[usize]) -> Look {
        cursors
            .next(runnable, Instant::now())
            .expect("there is more to read")
    }

    fn before_an_event(micros: i64) -> Skipped {
        Skipped {
            reached: Some(Position::at(micros)),
            is_before_event: true,
            now_micros: 1_000,
        }
    }

    fn reaching(micros: i64) -> Looked {
        Looked {
            claimed: None,
            reached: Some(Position::at(micros)),
            full: Vec::new(),
            now_micros: 1_000_000_000,
        }
    }

    #[test]
    fn a_cheap_front_is_walked_by_each_look() {
        let mut cursors = Cursors::new(0, false, Instant::now());
        let look = next(&mut cursors, &[REST]);
        cursors.looked(&look, &reaching(5), &[REST], true, Duration::ZERO);

        let step = next(&mut cursors, &[REST]);
        assert_eq!(step.purpose, Purpose::Front);
    }

    #[test]
    fn a_dear_front_is_left_alone_while_the_cursors_go_on() {
        let mut cursors = behind_a_dear_front(0, 5);

        let look = next(&mut cursors, &[REST]);
        assert_eq!(look.after, Position::at(5));
        cursors.looked(&look, &reaching(9), &[REST], true, Duration::ZERO);

        assert_eq!(next(&mut cursors, &[REST]).after, Position::at(9));
    }

    #[test]
    fn a_look_that_found_nothing_moves_the_cursor_all_the_same() {
        let mut cursors = behind_a_dear_front(1, 5);

        let look = next(&mut cursors, &[REST, 1]);
        assert_eq!(look.groups, [REST, 1], "they stand at the same place");
        cursors.looked(&look, &reaching(7), &[], false, Duration::ZERO);

        assert_eq!(next(&mut cursors, &[REST, 1]).after, Position::at(7));
    }

    #[test]
    fn a_full_route_goes_on_at_the_last_event_it_took_and_the_others_pass_it() {
        let mut cursors = behind_a_dear_front(1, 5);

        let look = next(&mut cursors, &[REST, 1]);
        let looked = Looked {
            full: vec![(1, Position::at(6))],
            ..reaching(9)
        };
        cursors.looked(&look, &looked, &[1], false, Duration::ZERO);

        assert_eq!(next(&mut cursors, &[REST]).after, Position::at(9));
        assert_eq!(next(&mut cursors, &[1]).after, Position::at(6));
    }

    #[test]
    fn stragglers_in_front_send_no_other_cursor_back() {
        let mut cursors = behind_a_dear_front(1, 500);
        cursors.given_back();

        let step = next(&mut cursors, &[REST, 1]);
        assert_eq!(step.after, Position::FRONT);
        cursors.looked(&step, &reaching(2), &[REST], true, DEAR_LOOK);

        assert_eq!(
            next(&mut cursors, &[REST]).after,
            Position::at(2),
            "more stragglers may lie behind the last one"
        );
        assert_eq!(next(&mut cursors, &[1]).after, Position::at(500));
    }

    #[test]
    fn the_front_walk_goes_on_where_it_stopped_and_ends_at_the_last_cursor() {
        let mut cursors = behind_a_dear_front(0, 500);
        cursors.given_back();
        let mut starts = Vec::new();
        for reached in [100, 200, 500] {
            let step = next(&mut cursors, &[REST]);
            starts.push(step.after);
            cursors.looked(&step, &reaching(reached), &[], false, Duration::ZERO);
        }

        assert_eq!(
            starts,
            [Position::FRONT, Position::at(100), Position::at(200)]
        );
        assert_eq!(next(&mut cursors, &[REST]).after, Position::FRONT);
    }

    #[test]
    fn a_walk_that_passed_a_group_without_room_moves_no_cursor_of_it() {
        let mut cursors = behind_a_dear_front(1, 5);
        cursors.groups[1].position = Position::at(1_000);
        cursors.given_back();
        for reached in [10, 20] {
            let step = next(&mut cursors, &[1]);
            cursors.looked(&step, &reaching(reached), &[], false, Duration::ZERO);
        }

        let step = next(&mut cursors, &[REST, 1]);
        assert_eq!(step.after, Position::at(20));
        cursors.looked(&step, &reaching(2_000), &[], false, DEAR_LOOK);

        assert_eq!(next(&mut cursors, &[REST]).after, Position::at(5));
        assert!(cursors.has_more(&[REST]));
    }

    #[test]
    fn a_look_that_failed_is_made_again_over_less_and_from_the_same_place() {
        let mut cursors = behind_a_dear_front(1, 5);
        let first = next(&mut cursors, &[REST, 1]);

        cursors.failed(&first, Duration::ZERO);
        let skip = next(&mut cursors, &[REST, 1]);
        assert_eq!(skip.after, first.after);
        assert!(skip.skip.is_some());
        cursors.skipped(&skip, &before_an_event(5), Duration::ZERO);
        let second = next(&mut cursors, &[REST, 1]);

        assert_eq!(second.after, first.after);
        assert_eq!(second.skip, None);
        assert!(second.stretch < first.stretch);
    }

    #[test]
    fn a_look_that_took_long_keeps_no_cursor_waiting_for_long() {
        let mut cursors = behind_a_dear_front(0, 5);
        let look = next(&mut cursors, &[REST]);
        let looked = Looked {
            reached: None,
            ..reaching(0)
        };
        cursors.looked(&look, &looked, &[], false, DEAR_LOOK);

        let later = Instant::now() + PAUSE_MAX;
        assert!(cursors.next(&[REST], later).is_some());
    }

    #[test]
    fn where_no_route_has_a_limit_only_a_failure_bounds_a_look() {
        let mut cursors = behind_a_dear_front(0, 5);
        let first = next(&mut cursors, &[REST]);
        assert_eq!(first.stretch, None);

        cursors.failed(&first, Duration::ZERO);
        assert_eq!(next(&mut cursors, &[REST]).stretch, Some(EVENTS_FIRST));
    }

    #[test]
    fn what_is_finished_is_skipped_in_steps_up_to_the_next_event() {
        let mut cursors = behind_a_dear_front(0, 5);
        let failed = next(&mut cursors, &[REST]);
        cursors.failed(&failed, Duration::ZERO);
        let mut starts = Vec::new();
        for reached in [10, 20] {
            let skip = next(&mut cursors, &[REST]);
            starts.push((skip.after, skip.skip.is_some()));
            let skipped = Skipped {
                is_before_event: false,
                ..before_an_event(reached)
            };
            cursors.skipped(&skip, &skipped, Duration::ZERO);
        }
        let skip = next(&mut cursors, &[REST]);
        cursors.skipped(&skip, &before_an_event(30), Duration::ZERO);

        assert_eq!(starts, [(Position::at(5), true), (Position::at(10), true)]);
        let look = next(&mut cursors, &[REST]);
        assert_eq!((look.after, look.skip), (Position::at(30), None));
    }

    #[test]
    fn the_end_behind_what_was_skipped_is_the_end_of_what_is_due() {
        let mut cursors = behind_a_dear_front(0, 5);
        let failed = next(&mut cursors, &[REST]);
        cursors.failed(&failed, Duration::ZERO);
        let skip = next(&mut cursors, &[REST]);
        let skipped = Skipped {
            reached: None,
            is_before_event: false,
            now_micros: 100,
        };
        cursors.skipped(&skip, &skipped, Duration::ZERO);

        assert!(!cursors.has_more(&[REST]));
        let later = Instant::now() + PAUSE_MAX;
        let look = cursors.next(&[REST], later).expect("it is looked again");
        assert_eq!((look.skip, look.stretch), (None, None));
    }

    #[test]
    fn stretches_grow_while_looks_are_cheap_and_find_too_little() {
        let mut cursors = behind_a_dear_front(1, 5);
        let mut stretches = Vec::new();
        for reached in 6..12 {
            let look = next(&mut cursors, &[1]);
            stretches.extend(look.stretch);
            cursors.looked(&look, &reaching(reached), &[], false, Duration::ZERO);
        }
        assert_eq!(
            stretches,
            [1_000, 4_000, 16_000, 64_000, EVENTS_MAX, EVENTS_MAX]
        );

        let look = next(&mut cursors, &[1]);
        cursors.looked(&look, &reaching(20), &[], false, DEAR);
        let look = next(&mut cursors, &[1]);
        cursors.looked(&look, &reaching(21), &[], false, 2 * DEAR);
        assert_eq!(next(&mut cursors, &[1]).stretch, Some(EVENTS_MAX / 2));
    }
}
