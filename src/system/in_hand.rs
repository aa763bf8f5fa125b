//! The in-hand file: what each runner of a worker is handling at this moment, readable after the
//! worker's death.
//!
//! A crash must charge an attempt to exactly the events that were being handled, not to their
//! neighbours in the same lease. A dead process cannot be asked, so each runner writes what it
//! starts into its slot of a small file: one `write_at` of 24 bytes when a handler starts, and one
//! when the runner finds nothing to handle after it. So under load a handler's end costs no write:
//! the note of the next start replaces it. (A handler that starts a program adds two notes.) An
//! event that has finished is in no slot a moment later, whether it is settled or not. The page
//! cache keeps the bytes when the process dies. The death of the host loses them, which is
//! accepted, since then no process on it survives that could read them.
//!
//! The worker holds a lock on the file while it lives. A process that gets the lock may act for the
//! dead worker: its supervisor, or another supervisor on the host, which finds what a killed one
//! left behind. The file appears under its final name only once it is locked, so a file without a
//! lock always belongs to a dead worker. A process removes a file only while it holds the lock and
//! after it has seen that the file still lies at its path, so a file that was just made is never
//! removed.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::domain::protocol::Owner;
use crate::system::pause::sleep_uninterruptibly;
use crate::system::process::{self, Stat};

/// The header's room in the file; slots start behind it.
const HEADER_BYTES: u64 = 2048;

/// One slot: event id, lease token, process group and the start time of its leader.
const SLOT_BYTES: usize = 24;

/// Largest file that is read back: more slots than any worker has runners.
const FILE_BYTES_MAX: u64 = HEADER_BYTES + SLOT_BYTES as u64 * 65_536;

/// How a file's name ends once it is locked.
const SUFFIX: &str = "in-hand";

/// The suffix of a file until it is locked.
const SUFFIX_UNNAMED: &str = "tmp";

/// One event that was being handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InHand {
    /// The event.
    pub event_id: i64,
    /// The lease that named it.
    pub token: i64,
    /// Process group of the program that handled it; 0 where there was none.
    pub group: u32,
    /// Start time of the group's leader in clock ticks, its low 32 bits; tells a reused number
    /// apart.
    pub started_ticks: u32,
}

/// The worker's end of the file.
pub struct InHandFile {
    file: File,
    path: PathBuf,
    /// The worker is being ended: the events that are in hand now stay so.
    is_final: AtomicBool,
}

/// Whether a process that led a group may have ended since its group was noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leader {
    /// The leader was alive a moment ago and may have ended: until its group is gone, too, no other
    /// process gets its number.
    MayBeGone,
    /// The time of the leader's end is not known: its number may have led another group since,
    /// whose leader may be gone by now.
    MustLive,
}

impl InHand {
    /// Kills the program that handled the event, with all its group, unless its number belongs to
    /// another process by now.
    pub fn kill_group(&self, leader: Leader) {
        let is_ours = match started_ticks(self.group) {
            Some(ticks) => ticks == self.started_ticks,
            None => leader == Leader::MayBeGone,
        };
        if self.group != 0 && is_ours {
            process::kill_group(self.group);
        }
    }
}

impl InHandFile {
    /// Creates, locks and then names the file in `directory`.
    pub fn create(directory: &Path, name: &str, owner: &Owner) -> io::Result<InHandFile> {
        let path = path(directory, name);
        let unnamed = directory.join(format!("{name}.{SUFFIX_UNNAMED}"));
        let mut file = loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&unnamed)?;
            file.lock()?;
            // A supervisor that looks for what dead workers left may have removed it before it was
            // locked.
            if lies_at(&file, &unnamed) {
                break file;
            }
        };
        let mut header = serde_json::to_vec(owner)?;
        header.push(b'\n');
        if header.len() as u64 > HEADER_BYTES {
            return Err(io::Error::other(
                "the worker's id and database name are too long",
            ));
        }
        file.write_all(&header)?;
        fs::rename(&unnamed, &path)?;
        Ok(InHandFile {
            file,
            path,
            is_final: AtomicBool::new(false),
        })
    }

    /// Notes that runner `slot` starts to handle an event.
    pub fn start(&self, slot: usize, event_id: i64, token: i64) -> io::Result<()> {
        self.write(
            slot,
            InHand {
                event_id,
                token,
                group: 0,
                started_ticks: 0,
            },
        )
    }

    /// Notes that runner `slot` handles nothing, unless the worker is being ended.
    pub fn clear(&self, slot: usize) -> io::Result<()> {
        if self.is_final.load(Ordering::SeqCst) {
            return Ok(());
        }
        self.start(slot, 0, 0)
    }

    /// Notes the process group that handles the event of runner `slot`; 0 once it has ended.
    pub fn note_group(&self, slot: usize, event_id: i64, token: i64, group: u32) -> io::Result<()> {
        let started_ticks = if group == 0 {
            0
        } else {
            started_ticks(group).unwrap_or(0)
        };
        self.write(
            slot,
            InHand {
                event_id,
                token,
                group,
                started_ticks,
            },
        )
    }

    fn write(&self, slot: usize, in_hand: InHand) -> io::Result<()> {
        let mut bytes = [0; SLOT_BYTES];
        bytes[..8].copy_from_slice(&in_hand.event_id.to_ne_bytes());
        bytes[8..16].copy_from_slice(&in_hand.token.to_ne_bytes());
        bytes[16..20].copy_from_slice(&in_hand.group.to_ne_bytes());
        bytes[20..].copy_from_slice(&in_hand.started_ticks.to_ne_bytes());
        self.file
            .write_all_at(&bytes, HEADER_BYTES + (SLOT_BYTES * slot) as u64)
    }

    /// Kills the programs that handle events now; a worker does this when its drain runs out of
    /// time. Their events stay in hand: a handler that ends by this has not finished, and its
    /// runner may go on for a moment.
    pub fn kill_groups(&self) {
        self.is_final.store(true, Ordering::SeqCst);
        for in_hand in read_slots(&self.file).unwrap_or_default() {
            in_hand.kill_group(Leader::MayBeGone);
        }
    }

    /// Removes the file: every lease of this worker is settled.
    pub fn remove(&self) {
        // A file that is left behind costs the next supervisor one look at a worker that has no
        // lease.
        let _ = fs::remove_file(&self.path);
    }
}

/// A dead worker's file. This process holds the lock, so no other process acts on it.
#[derive(Debug)]
pub struct Remains {
    /// The worker that wrote the file.
    pub owner: Owner,
    /// The events that were in hand.
    pub in_hand: Vec<InHand>,
    path: PathBuf,
    _lock: File,
}

impl Remains {
    /// Takes over the file at `path`; `None` while its worker lives, when the file is gone, or when
    /// its content makes no sense.
    pub fn take(path: &Path) -> Option<Remains> {
        let file = OpenOptions::new().read(true).write(true).open(path).ok()?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => return None,
        }
        if !lies_at(&file, path) {
            // The process that had the file before has finished with it.
            return None;
        }
        let owner = read_owner(&file).ok()?;
        let in_hand = read_slots(&file).ok()?;
        Some(Remains {
            owner,
            in_hand,
            path: path.to_owned(),
            _lock: file,
        })
    }

    /// Takes over the file of a worker that is known to be dead, waiting up to `limit` for its
    /// lock.
    pub fn take_within(path: &Path, limit: Duration) -> Option<Remains> {
        let deadline = Instant::now() + limit;
        loop {
            let remains = Remains::take(path);
            if remains.is_some() || !path.exists() || Instant::now() >= deadline {
                return remains;
            }
            sleep_uninterruptibly(Duration::from_millis(2));
        }
    }

    /// Kills the programs that the worker's handlers had running.
    pub fn kill_groups(&self, leader: Leader) {
        for in_hand in &self.in_hand {
            in_hand.kill_group(leader);
        }
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file: the worker has no lease left.
    pub fn remove(self) {
        // A file that is left behind costs the next supervisor one look at a worker that has no
        // lease.
        let _ = fs::remove_file(&self.path);
    }
}

/// Lists the files in `directory` that belong to `database` and may be a dead worker's. Removes the
/// files of workers that were killed before they could name theirs: these workers never claimed
/// anything.
pub fn files(directory: &Path, database: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut named = Vec::new();
    for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
        match path.extension() {
            Some(extension) if extension == SUFFIX => named.push(path),
            Some(extension) if extension == SUFFIX_UNNAMED => remove_if_left(&path),
            Some(_) | None => {}
        }
    }
    named.retain(|path| belongs_to(path, database));
    named
}

/// The path of the file that a worker creates under this name.
pub fn path(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.{SUFFIX}"))
}

/// Makes `directory` if it is not there, and refuses a directory that other users could write to.
pub fn private_directory(directory: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(directory)?;
    let ours = rustix::process::geteuid().as_raw();
    let (owner, mode) = (found.uid(), found.mode() & 0o7777);
    let refused = |why: String| Err(io::Error::other(why));
    if !found.is_dir() {
        return refused("it is no directory".to_owned());
    }
    if owner != ours {
        return refused(format!(
            "it belongs to user {owner} and not to user {ours}, who runs this: `chown {ours}` it"
        ));
    }
    if mode & 0o022 != 0 {
        return refused(format!(
            "other users may write to it (mode {mode:04o}): `chmod go-w` it"
        ));
    }
    Ok(())
}

/// Reads when the process `pid` started, in clock ticks since boot, low 32 bits.
pub fn started_ticks(pid: u32) -> Option<u32> {
    let ticks = Stat::of(pid)?.started_ticks;
    u32::try_from(ticks & u64::from(u32::MAX)).ok()
}

/// Removes a file that is not locked. Its worker may have made it this moment; the worker then
/// finds it gone when it has the lock.
fn remove_if_left(path: &Path) {
    let Ok(file) = File::open(path) else { return };
    if file.try_lock().is_ok() && lies_at(&file, path) {
        let _ = fs::remove_file(path);
    }
}

/// Says whether the path still leads to this file, and not to another one, or to none.
fn lies_at(file: &File, path: &Path) -> bool {
    let (Ok(ours), Ok(there)) = (file.metadata(), fs::symlink_metadata(path)) else {
        return false;
    };
    (ours.dev(), ours.ino()) == (there.dev(), there.ino())
}

fn belongs_to(path: &Path, database: &str) -> bool {
    File::open(path)
        .and_then(|file| read_owner(&file))
        .is_ok_and(|owner| owner.database == database)
}

fn read_owner(file: &File) -> io::Result<Owner> {
    let mut header = vec![0; usize::try_from(HEADER_BYTES).unwrap_or(0)];
    let read = file.read_at(&mut header, 0)?;
    let line = header[..read]
        .split(|&byte| byte == b'\n')
        .next()
        .unwrap_or_default();
    Ok(serde_json::from_slice(line)?)
}

fn read_slots(file: &File) -> io::Result<Vec<InHand>> {
    let mut bytes = Vec::new();
    let mut reader = file;
    io::Seek::seek(&mut reader, io::SeekFrom::Start(HEADER_BYTES))?;
    reader.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    let (slots, _torn) = bytes.as_chunks::<SLOT_BYTES>();
    Ok(slots
        .iter()
        .map(|slot| InHand {
            event_id: i64::from_ne_bytes(part(slot, 0)),
            token: i64::from_ne_bytes(part(slot, 8)),
            group: u32::from_ne_bytes(part(slot, 16)),
            started_ticks: u32::from_ne_bytes(part(slot, 20)),
        })
        .filter(|slot| slot.token != 0)
        .collect())
}

fn part<const N: usize>(slot: &[u8; SLOT_BYTES], at: usize) -> [u8; N] {
    let mut part = [0; N];
    part.copy_from_slice(&slot[at..at + N]);
    part
}
