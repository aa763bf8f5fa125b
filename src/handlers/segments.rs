//! Event types, cut into segments at the edges of the routes' patterns.
//!
//! All types between two neighbouring edges have the same route, so one binary search finds the
//! route of a type however many patterns there are: `outbox_claim_2` gets the edges and a number
//! for each segment, and never a pattern. Strings are compared byte by byte, as the collation "C"
//! does. `order.*` covers the types from `order.` up to, and without, `order/`, the next string
//! that does not begin with `order.`; an exact type covers what is smaller than itself and the
//! smallest character behind it, since PostgreSQL stores no NUL.

use crate::handlers::Routes;

/// The smallest character that a text in PostgreSQL can hold.
const SMALLEST: char = '\u{1}';

/// The segments of all event types, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segments {
    bounds: Vec<String>,
    /// The route of each segment. There is one segment more than there are bounds.
    routes: Vec<Option<usize>>,
}

impl Segments {
    /// Makes segments from the edges of all patterns.
    pub fn new(routes: &Routes) -> Segments {
        let patterns = (0..routes.len()).flat_map(|route| &routes.get(route).patterns);
        let mut bounds: Vec<String> = patterns.flat_map(|pattern| edges(pattern)).collect();
        bounds.sort_unstable();
        bounds.dedup();
        Segments::sorted(bounds, routes)
    }

    /// Makes segments from bounds in the order of a database whose encoding sorts them otherwise,
    /// without the bounds that the encoding lacks: no event type in that database can match their
    /// patterns.
    pub fn sorted(bounds: Vec<String>, routes: &Routes) -> Segments {
        // A segment begins with its lower bound, which has the route of all that follows up to the
        // next one.
        let firsts = [""].into_iter().chain(bounds.iter().map(String::as_str));
        let routes = firsts.map(|first| routes.find(first)).collect();
        Segments { bounds, routes }
    }

    /// The edges between the segments.
    pub fn bounds(&self) -> &[String] {
        &self.bounds
    }

    /// The route of each segment.
    pub fn routes(&self) -> &[Option<usize>] {
        &self.routes
    }
}

/// Where the types that a pattern matches begin and end; `*` matches from the first to the last.
fn edges(pattern: &str) -> Vec<String> {
    match pattern.strip_suffix('*') {
        Some("") => Vec::new(),
        Some(prefix) => {
            let stem = prefix.strip_suffix('.').unwrap_or(prefix);
            vec![prefix.to_owned(), format!("{stem}/")]
        }
        None => vec![pattern.to_owned(), format!("{pattern}{SMALLEST}")],
    }
}
