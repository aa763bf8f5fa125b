//! The kinds of events: how the handler treats each, and what must come of it.
//!
//! The event type names the kind, and the attempt decides the rest, so that the checker knows what
//! each event must come to without having seen how it was handled.

use std::time::Duration;

/// The lease of the daemons: short, so that a frozen worker loses its leases within seconds.
pub(super) const LEASE: Duration = Duration::from_secs(4);

/// Attempts of the kinds that never succeed. They end dead with exactly so many.
pub(super) const DOOMED_ATTEMPTS: u32 = 3;

/// Attempts of the other kinds: more than the faults of an hour can charge to one event.
pub(super) const ATTEMPTS_MAX: u32 = 100;

/// One kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Delivered within milliseconds.
    Plain,
    /// Fails twice, then is delivered.
    Retried,
    /// Panics once, then is delivered.
    Panics,
    /// Takes longer than the lease.
    Slow,
    /// Delivered by a program.
    Program,
    /// Refused for good.
    Refused,
    /// Fails at each attempt.
    Hopeless,
    /// Kills its worker at each attempt.
    Poison,
}

/// What must come of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Done, by a run that ended well.
    Done,
    /// Dead, by a run that refused it.
    Refused,
    /// Dead, when it was out of attempts.
    Exhausted,
}

impl Kind {
    /// All of them.
    pub(super) const ALL: [Kind; 8] = [
        Kind::Plain,
        Kind::Retried,
        Kind::Panics,
        Kind::Slow,
        Kind::Program,
        Kind::Refused,
        Kind::Hopeless,
        Kind::Poison,
    ];

    /// The event type.
    pub(super) fn event_type(self) -> &'static str {
        match self {
            Kind::Plain => "chaos.plain",
            Kind::Retried => "chaos.retried",
            Kind::Panics => "chaos.panics",
            Kind::Slow => "chaos.slow",
            Kind::Program => "chaos.program",
            Kind::Refused => "chaos.refused",
            Kind::Hopeless => "chaos.hopeless",
            Kind::Poison => "chaos.poison",
        }
    }

    /// The kind that an event type names.
    pub(super) fn of(event_type: &str) -> Option<Kind> {
        Kind::ALL
            .into_iter()
            .find(|kind| kind.event_type() == event_type)
    }

    /// What must come of its events.
    pub(super) fn fate(self) -> Fate {
        match self {
            Kind::Plain | Kind::Retried | Kind::Panics | Kind::Slow | Kind::Program => Fate::Done,
            Kind::Refused => Fate::Refused,
            Kind::Hopeless | Kind::Poison => Fate::Exhausted,
        }
    }

    /// The most attempts of its events.
    pub(super) fn attempts_max(self) -> u32 {
        match self.fate() {
            Fate::Exhausted => DOOMED_ATTEMPTS,
            Fate::Done | Fate::Refused => ATTEMPTS_MAX,
        }
    }

    /// How many of a hundred events are of this kind. Slow and poison ones are not drawn: each
    /// holds a runner or costs a worker, so the producer spaces them out.
    pub(super) fn percent(self) -> u32 {
        match self {
            Kind::Plain => 71,
            Kind::Retried => 12,
            Kind::Panics | Kind::Program => 4,
            Kind::Refused => 6,
            Kind::Hopeless => 3,
            Kind::Slow | Kind::Poison => 0,
        }
    }

    /// Draws a kind; `random` is a number below 100.
    pub(super) fn drawn(random: u32) -> Kind {
        let mut upto = 0;
        Kind::ALL
            .into_iter()
            .find(|kind| {
                upto += kind.percent();
                random < upto
            })
            .unwrap_or(Kind::Plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_make_a_hundred_and_each_type_names_its_kind() {
        let sum: u32 = Kind::ALL.into_iter().map(Kind::percent).sum();
        assert_eq!(sum, 100);
        for kind in Kind::ALL {
            assert_eq!(Kind::of(kind.event_type()), Some(kind));
            let drawn = (0..100).filter(|&n| Kind::drawn(n) == kind).count();
            assert_eq!(u32::try_from(drawn), Ok(kind.percent()));
        }
    }
}
