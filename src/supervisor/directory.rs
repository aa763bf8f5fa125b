//! The directory of the in-hand files.

use std::path::PathBuf;

use crate::in_hand;
use crate::supervisor::Refusal;

/// Where the in-hand files go: the same place for the next supervisor on this host, so that it finds them.
pub(super) struct PrivateDirectory {
    /// Its path.
    pub(super) path: PathBuf,
    /// Made by us, and not by a service manager that also removes it.
    is_ours: bool,
}

impl PrivateDirectory {
    /// Finds it, and makes it where nobody else does.
    pub(super) fn find() -> Result<PrivateDirectory, Refusal> {
        let given = std::env::var_os("RUNTIME_DIRECTORY")
            .and_then(|list| std::env::split_paths(&list).next())
            .filter(|path| path.is_absolute())
            // Where the service has a dynamic user, systemd gives a link to the real directory.
            .map(|path| path.canonicalize().unwrap_or(path));
        let directory = if let Some(path) = given {
            PrivateDirectory {
                path,
                is_ours: false,
            }
        } else {
            let name = format!("dispatchbox-{}", rustix::process::geteuid().as_raw());
            PrivateDirectory {
                path: std::env::temp_dir().join(name),
                is_ours: true,
            }
        };
        in_hand::private_directory(&directory.path).map_err(|error| {
            let path = directory.path.display();
            Refusal::failed(format!(
                "could not use `{path}` for the in-hand files: {error}"
            ))
        })?;
        Ok(directory)
    }

    /// Removes it when it is ours.
    pub(super) fn leave(&self) {
        if self.is_ours {
            // Only when it is empty: another supervisor of this user may use it, and files for the next one may lie in it.
            let _ = std::fs::remove_dir(&self.path);
        }
    }
}
