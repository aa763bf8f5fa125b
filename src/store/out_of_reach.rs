//! Tables that stand in a schema which the search_path does not reach: to the server they do not
//! exist, and a migration would make a second outbox beside them.

use std::fmt;

use crate::store::error::StoreError;
use crate::store::session::Session;

/// Schemas that are named: a person who has more of them knows which one is meant.
const SCHEMAS_MAX: usize = 5;

/// Where the tables stand, and where they were looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutOfReach {
    /// The setting, as the server shows it.
    pub search_path: String,
    /// The first schema of the search_path that exists: a migration would make the tables there.
    pub current: Option<String>,
    /// The connection itself named the schemas to look in, so that a migration may make an outbox
    /// there.
    pub is_asked_for: bool,
    /// The schema of a table of that name which the search_path reaches, and which is no outbox.
    pub other: Option<String>,
    /// Schemas with an outbox; never empty.
    pub schemas: Vec<String>,
}

impl OutOfReach {
    /// Says where the tables stand.
    pub fn fact(&self) -> String {
        let schemas: Vec<&str> = self.shown_schemas().collect();
        let schemas = schemas.join(", ");
        let (noun, more) = match self.schemas.len() {
            1 => ("schema", String::new()),
            n if n > SCHEMAS_MAX => ("schemas", format!(" and {} more", n - SCHEMAS_MAX)),
            _ => ("schemas", String::new()),
        };
        let path = &self.search_path;
        match &self.other {
            None => format!(
                "the table outbox_event stands in the {noun} {schemas}{more}, which the search_path ({path}) does not reach"
            ),
            Some(other) => format!(
                "the table outbox_event stands in the {noun} {schemas}{more}; \
                 the search_path ({path}) reaches another table of that name, in {other}"
            ),
        }
    }

    /// Says how a connection reaches them.
    pub fn remedy(&self) -> String {
        match self.schemas.as_slice() {
            [schema] => format!("name that schema in the DSN: {}", option(schema)),
            schemas => format!(
                "name one of these schemas in the DSN: {}, for example",
                option(schemas.first().map_or("", String::as_str))
            ),
        }
    }

    /// What a person who wants to migrate can do.
    pub fn remedy_of_migrate(&self) -> String {
        let current = self.current.as_ref().filter(|_| self.other.is_none());
        let second = current.map_or_else(String::new, |current| {
            format!(
                "; for a second outbox in the schema {current}: {}",
                option(current)
            )
        });
        format!("{}{second}", self.remedy())
    }

    fn shown_schemas(&self) -> impl Iterator<Item = &str> {
        self.schemas.iter().take(SCHEMAS_MAX).map(String::as_str)
    }
}

/// The remedy first, as for all that is missing.
impl fmt::Display for OutOfReach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.remedy(), self.fact())
    }
}

/// What is to be put into a DSN; a name that would have to be quoted several times over is left to
/// the person.
fn option(schema: &str) -> String {
    let is_plain = !schema.is_empty()
        && !schema.starts_with(|c: char| c.is_ascii_digit())
        && schema
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if is_plain {
        format!("`options=-csearch_path={schema}`")
    } else {
        format!("a search_path of \"{schema}\" in its `options`")
    }
}

impl Session {
    /// Looks for tables that the search_path does not reach; `None` where it reaches some, or where
    /// there are none.
    pub fn out_of_reach(&mut self) -> Result<Option<OutOfReach>, StoreError> {
        let found = self.query(
            "look for the tables in other schemas",
            include_str!("../../sql/out_of_reach.sql"),
            &[],
            |row| {
                Ok(OutOfReach {
                    search_path: row.try_get(0)?,
                    current: row.try_get(1)?,
                    is_asked_for: row.try_get(2)?,
                    other: row.try_get(3)?,
                    schemas: row.try_get(4)?,
                })
            },
        )?;
        Ok(found.into_iter().next())
    }

    /// Fails where a migration would make a second outbox beside one that the search_path does not
    /// reach, unless the connection itself asks for its schema; returns what is out of reach then.
    pub(super) fn check_reach(&mut self) -> Result<Option<OutOfReach>, StoreError> {
        match self.out_of_reach()? {
            // Where no schema of the search_path exists nothing can be made.
            Some(found) if !found.is_asked_for && found.current.is_some() => {
                Err(StoreError::out_of_reach(found.fact()))
            }
            found => Ok(found),
        }
    }

    /// Explains a table or function that a statement did not find; `None` where it is simply
    /// missing.
    pub fn why_missing(&mut self) -> Result<Option<String>, StoreError> {
        // A schema that the role may not use looks as if nothing were in it.
        match self.check_usage() {
            Err(error) if error.is_permission_denied() => {
                return Ok(Some(format!(
                    "grant what `sql/roles.sql` grants: {}",
                    error.cause()
                )));
            }
            result => result?,
        }
        Ok(self.out_of_reach()?.map(|found| found.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(schemas: &[&str]) -> OutOfReach {
        OutOfReach {
            search_path: "\"$user\", public".to_owned(),
            current: Some("public".to_owned()),
            is_asked_for: false,
            other: None,
            schemas: schemas.iter().map(|&name| name.to_owned()).collect(),
        }
    }

    #[test]
    fn the_schemas_are_named_behind_the_remedy() {
        assert_eq!(
            found(&["shop"]).to_string(),
            "name that schema in the DSN: `options=-csearch_path=shop`: the table outbox_event stands in the schema shop, \
             which the search_path (\"$user\", public) does not reach"
        );
        assert_eq!(
            found(&["billing", "shop"]).to_string(),
            "name one of these schemas in the DSN: `options=-csearch_path=billing`, for example: \
             the table outbox_event stands in the schemas billing, shop, \
             which the search_path (\"$user\", public) does not reach"
        );
        assert!(
            found(&["a", "b", "c", "d", "e", "f", "g"])
                .fact()
                .contains("the schemas a, b, c, d, e and 2 more, which")
        );
    }

    #[test]
    fn a_name_that_needs_quotes_is_left_to_the_person() {
        assert_eq!(
            found(&["My Shop"]).remedy(),
            "name that schema in the DSN: a search_path of \"My Shop\" in its `options`"
        );
    }

    #[test]
    fn a_second_outbox_has_to_be_asked_for() {
        assert_eq!(
            found(&["shop"]).remedy_of_migrate(),
            "name that schema in the DSN: `options=-csearch_path=shop`; \
             for a second outbox in the schema public: `options=-csearch_path=public`"
        );
    }
}
