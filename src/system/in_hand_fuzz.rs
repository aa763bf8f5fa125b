//! Laws of the in-hand file, on generated histories and torn files. Only tests are built with it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;

use crate::domain::protocol::Owner;
use crate::system::fuzz;
use crate::system::in_hand::{self, InHand, InHandFile, Remains};

/// A directory of this process and test, removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let name = format!("dispatchbox-fuzz-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        in_hand::private_directory(&path).expect("a temporary directory can be made");
        Directory(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a runner notes: an event with its token, or nothing.
type Step = (usize, Option<(i64, i64)>);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let token = any::<i64>().prop_filter("a token is the id of a transaction", |token| *token != 0);
    prop::collection::vec((0..5_usize, prop::option::of((any::<i64>(), token))), 0..12)
}

fn owner() -> impl Strategy<Value = Owner> {
    ("[a-z0-9-]{0,20}", ".{0,20}", any::<String>()).prop_map(
        |(worker, application_name, database)| Owner {
            worker,
            application_name,
            database,
        },
    )
}

/// Writes the file of a worker that dies, and returns what its slots hold.
fn written(directory: &Directory, owner: &Owner, steps: &[Step]) -> BTreeMap<usize, (i64, i64)> {
    let file = InHandFile::create(&directory.0, "w", owner).expect("a file can be made");
    let mut slots = BTreeMap::new();
    for &(slot, noted) in steps {
        if let Some((event_id, token)) = noted {
            file.start(slot, event_id, token)
                .expect("a note can be written");
            slots.insert(slot, (event_id, token));
        } else {
            file.clear(slot).expect("a note can be written");
            slots.remove(&slot);
        }
    }
    slots
}

fn noted(in_hand: &[InHand]) -> Vec<(i64, i64)> {
    in_hand
        .iter()
        .map(|one| (one.event_id, one.token))
        .collect()
}

proptest! {
    #![proptest_config(fuzz::cases(500))]

    #[test]
    fn what_a_dead_worker_noted_is_read_back(owner in owner(), steps in steps()) {
        let directory = Directory::new("whole");
        let slots = written(&directory, &owner, &steps);
        let path = in_hand::path(&directory.0, "w");

        prop_assert_eq!(in_hand::files(&directory.0, &owner.database), vec![path.clone()]);
        let other = format!("{} ", owner.database);
        prop_assert!(in_hand::files(&directory.0, &other).is_empty());
        let remains = Remains::take(&path).ok_or_else(|| TestCaseError::fail("nothing was left"))?;

        prop_assert_eq!(&remains.owner, &owner);
        prop_assert_eq!(noted(&remains.in_hand), slots.into_values().collect::<Vec<_>>());
    }

    #[test]
    fn of_a_torn_file_the_whole_slots_are_read_and_no_others(
        owner in owner(), steps in steps(), cut: prop::sample::Index,
    ) {
        let directory = Directory::new("torn");
        let slots = written(&directory, &owner, &steps);
        let path = in_hand::path(&directory.0, "w");
        let bytes = fs::read(&path).map_err(|error| TestCaseError::fail(error.to_string()))?;
        let length = cut.index(bytes.len() + 1);
        fs::write(&path, &bytes[..length]).map_err(|error| TestCaseError::fail(error.to_string()))?;

        let found = Remains::take(&path);

        let n_whole = length.saturating_sub(2048) / 24;
        let whole: Vec<(i64, i64)> = slots.range(..n_whole).map(|(_, noted)| *noted).collect();
        let header = bytes.iter().position(|&byte| byte == b'\n').unwrap_or(0);
        if length >= header {
            let remains = found.ok_or_else(|| TestCaseError::fail("nothing was left"))?;
            prop_assert_eq!(noted(&remains.in_hand), whole);
        } else {
            prop_assert!(found.is_none());
        }
    }

    #[test]
    fn a_file_of_any_bytes_is_no_workers_or_is_read(bytes: Vec<u8>, owner in owner(), padding in 0..100_usize) {
        let directory = Directory::new("any");
        let path = in_hand::path(&directory.0, "w");
        let mut file = serde_json::to_vec(&owner).map_err(|error| TestCaseError::fail(error.to_string()))?;
        file.resize(2048, b'\n');
        file.extend(bytes.iter().cycle().take(bytes.len() * padding));
        for (content, is_worker) in [(&file, true), (&bytes, false)] {
            fs::write(&path, content).map_err(|error| TestCaseError::fail(error.to_string()))?;
            let found = Remains::take(&path);
            prop_assert_eq!(found.is_some(), is_worker);
            prop_assert!(found.is_none_or(|remains| remains.in_hand.len() <= content.len() / 24));
        }
    }
}
