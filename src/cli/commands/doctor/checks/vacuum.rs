//! What keeps the tables small and the transaction ids young.

use serde_json::json;

use super::{Findings, Patient};
use crate::domain::figure::grouped;
use crate::store::doctor::facts::{Age, VacuumedTable};
use crate::store::doctor::{Finding, Level, statements};

/// So many dead rows are never mentioned: reading past them costs some milliseconds.
const DEAD_ROWS_FEW: i64 = 100_000;

/// Autovacuum that begins before so many dead rows is early enough for a table of any size.
const BEGINS_EARLY: i64 = 500_000;

/// This part of a table may be dead, one in so many: the server's default.
const DEAD_PART: i64 = 5;

/// Ids of this age are on the way to 2 billion, where the server takes no more writes.
const AGE_HIGH: i64 = 1_000_000_000;

/// Ids of this age are close to it.
const AGE_CRITICAL: i64 = 1_500_000_000;

/// What to do about vacuum that cannot remove anything.
const FREE_VACUUM: &str =
    "find what holds vacuum back (transactions, prepared transactions and slots, above)";

/// Names the tables with many dead rows.
pub(super) fn dead_rows(patient: &mut Patient<'_>) -> Findings {
    Ok(patient.tables()?.iter().filter_map(dead).collect())
}

/// Says where autovacuum is off, or begins late.
pub(super) fn autovacuum(patient: &mut Patient<'_>) -> Findings {
    let mut findings = patient.session.findings(statements::AUTOVACUUM, None)?;
    findings.extend(patient.tables()?.iter().filter_map(late));
    Ok(findings)
}

/// Says where the oldest transaction ids come near to their end.
pub(super) fn wraparound(patient: &mut Patient<'_>) -> Findings {
    let ages = patient.session.ages()?;
    let freezes_at = ages.first().map_or(AGE_HIGH, |age| age.freezes_at);
    let mut findings: Vec<_> = ages.iter().filter_map(old).collect();
    findings.extend(
        patient
            .tables()?
            .iter()
            .filter_map(|table| old_table(table, freezes_at)),
    );
    Ok(findings)
}

fn dead(table: &VacuumedTable) -> Option<Finding> {
    if table.dead_rows <= DEAD_ROWS_FEW + table.rows / DEAD_PART {
        return None;
    }
    let vacuumed = table.vacuumed.as_deref();
    let text = format!(
        "{} has {} dead rows beside {}; its last vacuum was {}",
        table.name,
        grouped(table.dead_rows),
        grouped(table.rows),
        vacuumed.unwrap_or("never, since the statistics begin"),
    );
    let remedy = format!("{FREE_VACUUM}; then VACUUM {}", table.name);
    let data = json!({
        "table": table.name, "dead_rows": table.dead_rows, "rows": table.rows, "vacuumed": vacuumed,
    });
    Some(Finding::new(Level::Warning, text).remedy(remedy).data(data))
}

fn late(table: &VacuumedTable) -> Option<Finding> {
    let name = &table.name;
    let data = json!({ "table": name, "rows": table.rows, "begins_at": table.begins_at });
    if !table.is_enabled {
        let text = format!("autovacuum is off for {name}, so it grows for ever");
        let remedy = format!("ALTER TABLE {name} RESET (autovacuum_enabled)");
        return Some(Finding::new(Level::Error, text).remedy(remedy).data(data));
    }
    if table.begins_at <= BEGINS_EARLY.max(table.rows / DEAD_PART) {
        return None;
    }
    let text = format!(
        "autovacuum begins on {name} at {} dead rows, and it has {} rows",
        grouped(table.begins_at),
        grouped(table.rows),
    );
    let remedy = format!(
        "ALTER TABLE {name} SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000)"
    );
    Some(Finding::new(Level::Warning, text).remedy(remedy).data(data))
}

fn old(found: &Age) -> Option<Finding> {
    let level = level(found.age, found.freezes_at)?;
    let text = format!(
        "the database has {} that are {} old; at 2 billion the server takes no more writes",
        found.what,
        grouped(found.age)
    );
    let remedy = format!("{FREE_VACUUM}, and run VACUUM (FREEZE) on the oldest tables");
    let data = json!({ "what": found.what, "age": found.age });
    Some(Finding::new(level, text).remedy(remedy).data(data))
}

fn old_table(table: &VacuumedTable, freezes_at: i64) -> Option<Finding> {
    let level = level(table.age, freezes_at)?;
    let name = &table.name;
    let text = format!(
        "{name} has transaction ids that are {} old; at 2 billion the server takes no more writes",
        grouped(table.age)
    );
    let remedy = format!("{FREE_VACUUM}, and run VACUUM (FREEZE) {name}");
    let data = json!({ "table": name, "age": table.age });
    Some(Finding::new(level, text).remedy(remedy).data(data))
}

/// Autovacuum freezes what is older than `freezes_at`; at twice that age it does not get on.
fn level(age: i64, freezes_at: i64) -> Option<Level> {
    if age > AGE_CRITICAL {
        Some(Level::Error)
    } else if age > freezes_at.saturating_mul(2) || age > AGE_HIGH {
        Some(Level::Warning)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> VacuumedTable {
        VacuumedTable {
            name: "outbox_event".to_owned(),
            rows: 10_000_000,
            dead_rows: 0,
            vacuumed: None,
            is_enabled: true,
            begins_at: 205_000,
            age: 0,
        }
    }

    #[test]
    fn dead_rows_matter_beside_the_living_ones() {
        let check = |dead_rows, rows, is_found| {
            let found = dead(&VacuumedTable {
                rows,
                dead_rows,
                ..table()
            });
            assert_eq!(found.is_some(), is_found, "{dead_rows} beside {rows}");
        };

        check(100_000, 0, false);
        check(100_001, 0, true);
        check(2_000_000, 10_000_000, false);
        check(2_200_000, 10_000_000, true);
    }

    #[test]
    fn autovacuum_is_late_by_the_size_of_the_table() {
        let check = |begins_at, rows, expected| {
            let found = late(&VacuumedTable {
                rows,
                begins_at,
                ..table()
            });
            assert_eq!(found.map(|it| it.level), expected, "{begins_at} of {rows}");
        };

        check(500_000, 0, None);
        check(2_000_000, 10_000_000, None);
        check(2_000_050, 10_000_000, Some(Level::Warning));
        check(500_001, 100, Some(Level::Warning));
        let off = late(&VacuumedTable {
            is_enabled: false,
            ..table()
        });
        assert_eq!(off.map(|it| it.level), Some(Level::Error));
    }

    #[test]
    fn ids_are_old_where_freezing_does_not_get_on() {
        let check = |age, expected| assert_eq!(level(age, 200_000_000), expected, "{age}");

        check(0, None);
        check(400_000_000, None);
        check(400_000_001, Some(Level::Warning));
        check(1_500_000_001, Some(Level::Error));
        assert_eq!(level(1_000_000_001, 2_000_000_000), Some(Level::Warning));
    }
}
