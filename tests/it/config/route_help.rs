//! `help routes` and the reader of routes know the same keys.

use std::collections::{BTreeMap, BTreeSet};

use super::from_file;
use crate::support::cli::Cli;

/// The names below each title of the help: an entry begins after two blanks.
fn names_by_title(help: &str) -> BTreeMap<&str, BTreeSet<&str>> {
    let sections = help
        .split("\n\n")
        .filter_map(|section| section.split_once(":\n"));
    sections
        .map(|(title, lines)| {
            let entries = lines.lines().filter_map(|line| line.strip_prefix("  "));
            let names = entries.filter(|line| !line.starts_with(' '));
            (
                title,
                names.filter_map(|line| line.split(' ').next()).collect(),
            )
        })
        .collect()
}

/// The keys that the refusal of an unknown key says are known.
fn known(route: &str) -> BTreeSet<String> {
    let refusal = from_file(route).unwrap_err().to_string();
    let (_, known) = refusal.split_once("; known are ").unwrap();
    let (known, _) = known.split_once(" (in").unwrap();
    known.split(", ").map(str::to_owned).collect()
}

#[test]
fn the_help_lists_every_key_that_is_read_and_no_other() {
    let help = Cli::new(["help", "routes"]).run().stdout;
    let names = names_by_title(&help);
    let owned = |names: &BTreeSet<&str>| names.iter().map(|&name| name.to_owned()).collect();
    let route = "[[route]]\nevent_type = '*'\nhandler = 'log'\n";

    let of_retry: BTreeSet<String> = owned(&names["Keys of a [route.retry] table"]);
    assert_eq!(known(&format!("{route}[route.retry]\nzzz = 1\n")), of_retry);

    let further = names
        .iter()
        .filter(|(title, _)| title.starts_with("Further keys with "));
    let further: BTreeSet<&str> = further.flat_map(|(_, names)| names).copied().collect();
    let of_route = owned(&(&names["Keys of a [[route]] table"] | &further));
    assert_eq!(known(&format!("{route}zzz = 1\n")), of_route);
}

#[test]
fn a_handler_takes_the_keys_that_the_help_lists_below_it_and_no_other() {
    let help = Cli::new(["help", "routes"]).run().stdout;
    let names = names_by_title(&help);
    let title = |handler: &str| format!("Further keys with handler = \"{handler}\"");
    let handlers = names["Handlers"].iter().filter(|name| **name != "NAME");
    let all = names
        .iter()
        .filter(|(title, _)| title.starts_with("Further keys with "));
    let all: BTreeSet<&str> = all.flat_map(|(_, names)| names).copied().collect();
    let mut n_checked = 0;
    for handler in handlers {
        let own = names.get(title(handler).as_str());
        let own: Vec<&str> = own.into_iter().flatten().copied().collect();
        let complete = match *handler {
            "exec" => vec!["command = ['/bin/true']".to_owned()],
            "http" => vec!["url = 'http://x/'".to_owned()],
            _ => own.iter().map(|key| format!("{key} = 'x'")).collect(),
        };
        for key in &all {
            let mut lines = complete.clone();
            if !lines
                .iter()
                .any(|line| line.starts_with(&format!("{key} ")))
            {
                lines.push(format!("{key} = 0"));
            }
            let text = format!(
                "[[route]]\nevent_type = '*'\nhandler = '{handler}'\n{}",
                lines.join("\n")
            );
            let refusal = from_file(&text).err().map(|error| error.to_string());
            let refusal = refusal.unwrap_or_default();
            let foreign = format!("has `{key}`, which the handler `{handler}` does not take");
            assert_eq!(!refusal.contains(&foreign), own.contains(key), "{refusal}");
            n_checked += 1;
        }
    }
    assert!(n_checked >= 3 * 5, "{help}");
}
