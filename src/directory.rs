//! The private directory: what only this user's processes may reach.
//!
//! The in-hand files stay in it for the next supervisor; the socket behind the HTTP guard is in it for the moment of its making.

use std::path::PathBuf;

use crate::in_hand;

/// The same place for the next supervisor on this host, so that it finds what the one before left.
pub struct PrivateDirectory {
    /// Its path.
    pub path: PathBuf,
    /// Made by us, and not by a service manager that also removes it.
    is_ours: bool,
}

impl PrivateDirectory {
    /// Finds it, and makes it where nobody else does.
    pub fn find() -> Result<PrivateDirectory, String> {
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
            format!("could not use `{path}` as the private directory: {error}")
        })?;
        Ok(directory)
    }

    /// Removes it when it is ours.
    pub fn leave(&self) {
        if self.is_ours {
            // Only when it is empty: another supervisor of this user may use it, and files for the next one may lie in it.
            let _ = std::fs::remove_dir(&self.path);
        }
    }
}
