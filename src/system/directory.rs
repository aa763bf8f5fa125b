//! The private directory, which only processes of this user can reach.
//!
//! The in-hand files stay in it for the next supervisor. The socket behind the HTTP guard is in it
//! only while it is bound.
//!
//! The first place that is safe and writable is taken, in an order that every start of this user
//! finds again: the service manager's `$RUNTIME_DIRECTORY` itself, then a directory of our own
//! (mode 0700) in it, below the directory for temporary files, below `/run/user/UID` or `/dev/shm`.
//! A place is safe where no other user can replace it: links are not followed, an existing
//! directory must belong to this user, and a directory that other users may write to is accepted as
//! the parent of ours only with its sticky bit set.
//!
//! A place is writable where a file as large as those that will lie in it was just written: a full
//! file system would end each worker at its start. This holds for `$RUNTIME_DIRECTORY`, too: events
//! that flow, and a warning that names the full directory, are worth more at night than a daemon
//! that refuses to start. What a supervisor before left there is then found by its leases, once
//! they expire.

use std::env;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};

use crate::system::in_hand;

/// Mode bits that let other users than the owner write.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Only the owner of an entry may rename or remove it.
const STICKY: u32 = 0o1000;

/// The room that a place must have: that of the in-hand files of a dozen workers, of a page or two
/// each.
static ROOM: [u8; 64 * 1024] = [0; 64 * 1024];

/// The file that tries it. One that is left behind is removed as those of workers that were killed
/// before they could name theirs.
const TRIAL: &str = "room.tmp";

/// The remedy that helps in any case.
const REMEDY: &str =
    "RUNTIME_DIRECTORY names another one, which must belong to this user (mode 0700)";

/// The private directory. It is the same for the next supervisor on this host, so that it finds
/// what the one before left.
pub struct PrivateDirectory {
    /// Its path.
    pub path: PathBuf,
    /// It was made by us, and not by a service manager that also removes it.
    is_ours: bool,
    /// A warning for the log: the place that should have been taken, why it was not, and the
    /// remedy.
    pub warning: Option<String>,
}

/// A place where the private directory may be.
struct Place {
    path: PathBuf,
    /// The place is a directory of our own inside another one.
    is_ours: bool,
    /// The place is taken also where the directory around it is not safe. It is the last one: a
    /// daemon that does not start would be worse.
    is_last: bool,
}

impl PrivateDirectory {
    /// Finds the private directory, and makes it where nothing else does.
    pub fn find() -> Result<PrivateDirectory, String> {
        let user = rustix::process::geteuid().as_raw();
        let given = env::var_os("RUNTIME_DIRECTORY")
            .and_then(|list| env::split_paths(&list).next())
            .filter(|path| path.is_absolute())
            // Where the service has a dynamic user, systemd gives a link to the real directory.
            .map(|path| path.canonicalize().unwrap_or(path));
        let temporary = Some(env::temp_dir()).filter(|path| path.is_absolute());
        let temporary = temporary.unwrap_or_else(|| PathBuf::from("/tmp"));
        find_among(places(given, temporary, user))
    }

    /// Removes the directory when it is ours.
    pub fn leave(&self) {
        if self.is_ours {
            // It is removed only when it is empty: another supervisor of this user may use it, and
            // files for the next one may lie in it.
            let _ = fs::remove_dir(&self.path);
        }
    }
}

/// All places, the best first.
fn places(given: Option<PathBuf>, temporary: PathBuf, user: u32) -> Vec<Place> {
    let name = format!("dispatchbox-{user}");
    let below = |path: &Path| Place {
        path: path.join(&name),
        is_ours: true,
        is_last: false,
    };
    let mut places = Vec::new();
    if let Some(path) = given {
        let inside = below(&path);
        places.push(Place {
            path,
            is_ours: false,
            is_last: false,
        });
        places.push(inside);
    }
    places.push(below(&temporary));
    places.push(below(Path::new(&format!("/run/user/{user}"))));
    places.push(below(Path::new("/dev/shm")));
    places.push(Place {
        is_last: true,
        ..below(&temporary)
    });
    places
}

fn find_among(places: Vec<Place>) -> Result<PrivateDirectory, String> {
    let mut passed_over: Option<String> = None;
    for Place {
        path,
        is_ours,
        is_last,
    } in places
    {
        let why = match check(&path, is_ours && !is_last) {
            Ok(()) => {
                return Ok(PrivateDirectory {
                    warning: passed_over.map(|why| {
                        format!("{why}; `{}` is used instead; {REMEDY}", path.display())
                    }),
                    path,
                    is_ours,
                });
            }
            Err(error) => error,
        };
        // The first place is the one where a person meant the directory to be.
        passed_over.get_or_insert_with(|| {
            format!(
                "could not use `{}` as the private directory: {why}",
                path.display()
            )
        });
    }
    let why = passed_over.unwrap_or_default();
    Err(format!("{why}; no other place is usable; {REMEDY}"))
}

/// Makes a directory where there is none, and says why it cannot be used.
fn check(path: &Path, is_around_checked: bool) -> io::Result<()> {
    if is_around_checked && let Some(around) = path.parent() {
        check_around(around)?;
    }
    in_hand::private_directory(path)?;
    // The mode says nothing of a file system that can only be read.
    accessat(
        CWD,
        path,
        Access::WRITE_OK | Access::EXEC_OK,
        AtFlags::EACCESS,
    )?;
    try_room(path)
}

/// Says whether there is room for what will lie in this directory.
fn try_room(directory: &Path) -> io::Result<()> {
    let path = directory.join(TRIAL);
    let written = File::create(&path).and_then(|mut file| file.write_all(&ROOM));
    // Another process of this user may have removed it, which tried the same.
    let _ = fs::remove_file(&path);
    written
}

/// Says whether another user could put something else in the place of an entry of this directory.
fn check_around(directory: &Path) -> io::Result<()> {
    let found = fs::metadata(directory)?;
    let user = rustix::process::geteuid().as_raw();
    let is_trusted = found.uid() == 0 || found.uid() == user;
    let is_shut = found.mode() & WRITABLE_BY_OTHERS == 0 || found.mode() & STICKY != 0;
    if is_trusted && is_shut {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "another user could replace what is in `{}`",
        directory.display()
    )))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
    }

    /// Where a daemon with these two variables puts it, and whether it says why not elsewhere.
    fn found(given: Option<&Path>, temporary: &Path) -> Result<(PathBuf, Option<String>), String> {
        let user = rustix::process::geteuid().as_raw();
        let mut places = places(given.map(Path::to_owned), temporary.to_owned(), user);
        // Without the places of this machine.
        places.retain(|place| !place.path.starts_with("/run") && !place.path.starts_with("/dev"));
        let directory = find_among(places)?;
        Ok((directory.path, directory.warning))
    }

    /// Goal: a place on a full file system is passed over, and the warning says which and why.
    /// Method: what is written to the file of the trial goes to a device that is always full.
    #[test]
    fn a_place_without_room_is_passed_over() -> Result<(), Box<dyn std::error::Error>> {
        let user = rustix::process::geteuid().as_raw();
        let root = env::temp_dir().join(format!("dbx-full-{}", std::process::id()));
        let (given, temporary) = (root.join("given"), root.join("temporary"));
        let own = temporary.join(format!("dispatchbox-{user}"));
        for directory in [&given, &temporary, &own] {
            fs::create_dir_all(directory)?;
            set_mode(directory, 0o700)?;
        }
        let inside = given.join(format!("dispatchbox-{user}"));
        fs::create_dir(&inside)?;
        set_mode(&inside, 0o700)?;
        for full in [&given, &inside] {
            symlink("/dev/full", full.join(TRIAL))?;
        }

        let (path, warning) = found(Some(&given), &temporary)?;

        assert_eq!(path, own);
        let warning = warning.unwrap_or_default();
        let why = format!("`{}` as the private directory: No space", given.display());
        assert!(warning.contains(&why), "{warning}");
        assert!(warning.ends_with(REMEDY), "{warning}");
        assert!(fs::read_dir(&own)?.next().is_none());
        assert_eq!(fs::read_dir(&inside)?.count(), 0);
        fs::remove_dir_all(&root)?;
        Ok(())
    }

    #[test]
    fn what_is_safe_is_used_and_what_is_not_names_its_remedy()
    -> Result<(), Box<dyn std::error::Error>> {
        let user = rustix::process::geteuid().as_raw();
        let root = env::temp_dir().join(format!("dbx-private-{}", std::process::id()));
        let (given, temporary) = (root.join("given"), root.join("temporary"));
        let own = format!("dispatchbox-{user}");
        fs::create_dir_all(&given)?;
        fs::create_dir_all(&temporary)?;
        set_mode(&given, 0o700)?;
        set_mode(&temporary, 0o1777)?;
        assert_eq!(found(Some(&given), &temporary)?, (given.clone(), None));
        assert_eq!(found(None, &temporary)?, (temporary.join(&own), None));

        // Others may write to it: with the sticky bit ours is safe in it, without it is not.
        set_mode(&given, 0o1777)?;
        let (path, warning) = found(Some(&given), &temporary)?;
        assert_eq!(path, given.join(&own));
        assert!(warning.is_some_and(|text| text.contains("chmod go-w")));
        fs::remove_dir(&path)?;
        set_mode(&given, 0o777)?;
        assert_eq!(found(Some(&given), &temporary)?.0, temporary.join(&own));

        // It is no directory, or a link that another process has put there.
        fs::remove_dir(temporary.join(&own))?;
        fs::create_dir(root.join("elsewhere"))?;
        symlink(root.join("elsewhere"), temporary.join(&own))?;
        let refused = found(None, &temporary).expect_err("a link is not followed");
        assert!(refused.ends_with(REMEDY), "{refused}");
        assert!(fs::read_dir(root.join("elsewhere"))?.next().is_none());

        // There is no directory for temporary files.
        fs::remove_dir_all(&temporary)?;
        let refused = found(None, &temporary).expect_err("there is none");
        assert!(refused.contains("No such file"), "{refused}");
        set_mode(&given, 0o700)?;
        assert_eq!(found(Some(&given), &temporary)?, (given, None));
        fs::remove_dir_all(&root)?;
        Ok(())
    }
}
