//! Our tables, functions and indexes, and the rights to use them: as `migrate` and the start of the
//! daemon see them.

use serde_json::json;

use super::{Findings, Patient};
use crate::store::doctor::{Finding, Level};
use crate::store::{MissingPrerequisite, schema};

/// Says what is missing, of another version, or in another schema.
pub(super) fn look(patient: &mut Patient<'_>) -> Findings {
    if let Some(found) = patient.session.out_of_reach()? {
        return Ok(vec![
            Finding::new(Level::Error, found.fact())
                .remedy(found.remedy())
                .data(json!({ "schemas": found.schemas })),
        ]);
    }
    let found = schema::check(patient.session)?;
    let mut findings = Vec::new();
    if !found.flaws.missing.is_empty() {
        let data = json!({ "missing": found.flaws.missing });
        let missing = MissingPrerequisite::Schema(found.flaws.missing).to_string();
        let (_, lacks) = missing.split_once(": ").unwrap_or(("", &missing));
        findings.push(
            Finding::new(Level::Error, lacks)
                .remedy("dispatchbox migrate")
                .data(data),
        );
    }
    if !found.flaws.outdated.is_empty() {
        let text = format!("of another version: {}", found.flaws.outdated.join(", "));
        findings.push(
            Finding::new(Level::Warning, text)
                .remedy("dispatchbox migrate")
                .data(json!({ "outdated": found.flaws.outdated })),
        );
    }
    let errors = found.flaws.unfit.iter().chain(&found.flaws.hidden);
    findings.extend(errors.map(|text| split(Level::Error, text)));
    findings.extend(found.advice.iter().map(|text| split(Level::Warning, text)));
    Ok(findings)
}

/// Splits a text that ends in its remedy, behind the last colon.
fn split(level: Level, text: &str) -> Finding {
    match text.rsplit_once(": ") {
        Some((message, remedy)) => Finding::new(level, message).remedy(remedy),
        None => Finding::new(level, text),
    }
}

/// Says which rights the daemon's role lacks.
pub(super) fn privileges(patient: &mut Patient<'_>) -> Findings {
    let missing = patient.session.lacking_privileges()?;
    let Some(MissingPrerequisite::Privileges { role, lacking }) = missing else {
        return Ok(Vec::new());
    };
    let text = format!("the role {role} lacks {}", lacking.join(", "));
    Ok(vec![
        Finding::new(Level::Error, text)
            .remedy("grant what sql/roles.sql grants to dispatchbox_daemon")
            .data(json!({ "role": role, "lacking": lacking })),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remedy_stands_behind_the_last_colon() {
        let found = split(Level::Warning, "the table a: has b: ALTER TABLE a");
        assert_eq!(found.message, "the table a: has b");
        assert_eq!(found.remedy.as_deref(), Some("ALTER TABLE a"));

        let found = split(Level::Error, "column a.id is integer");
        assert_eq!(
            (found.message.as_str(), found.remedy),
            ("column a.id is integer", None)
        );
    }
}
