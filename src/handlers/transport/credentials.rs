//! The TLS of one route: made of its certificate files, and made anew when one of them changes, so
//! that a renewed certificate needs no restart.
//!
//! The files are looked at when a connection is made, once a second at most. A connection that is
//! open lives on for its minute.

use std::fs;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::handlers::transport::trust::{Authorities, IdentityFiles, Roots, Trust};
use crate::system::stamp::Stamp;

/// How long a look at the files counts: long beside a busy route's pace, short beside the time in
/// which a certificate is renewed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The certificate files of a route.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateFiles {
    /// The certificates that the receiver's is checked against; `None`: those that the host trusts.
    pub ca: Option<String>,
    /// The certificate that the receiver is shown, with its chain.
    pub certificate: Option<String>,
    /// The key of that certificate; `None`: it stands in the same file.
    pub key: Option<String>,
}

impl CertificateFiles {
    fn identity(&self) -> Option<IdentityFiles<'_>> {
        let certificate = self.certificate.as_deref()?;
        Some(IdentityFiles {
            certificate,
            key: self.key.as_deref().unwrap_or(certificate),
        })
    }

    /// The files as they are now; a file that cannot be looked at has no stamp.
    fn stamps(&self) -> Vec<Option<Stamp>> {
        let stamp = |path: &String| Some(Stamp::of(&fs::metadata(path).ok()?));
        let paths = [&self.ca, &self.certificate, &self.key];
        paths.into_iter().flatten().map(stamp).collect()
    }
}

/// What the connections of one route are encrypted with.
#[derive(Debug)]
pub struct Credentials {
    files: CertificateFiles,
    /// The host's authorities, where the route names none.
    of_host: Option<Arc<Authorities>>,
    current: RwLock<Arc<Trust>>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    looked_at: Instant,
    /// The files as they were when they were last read, be it in vain.
    seen: Vec<Option<Stamp>>,
}

impl Credentials {
    /// Reads the files; those that the host trusts through `roots`.
    pub(in crate::handlers) fn read(
        files: CertificateFiles,
        roots: &mut Roots,
    ) -> Result<Credentials, String> {
        let of_host = match &files.ca {
            Some(_) => None,
            None => Some(roots.get()?),
        };
        // Taken before the files are read: what changes meanwhile is read again.
        let seen = files.stamps();
        let trust = trust(&files, of_host.as_ref())?;
        Ok(Credentials {
            files,
            of_host,
            current: RwLock::new(Arc::new(trust)),
            state: Mutex::new(State {
                looked_at: Instant::now(),
                seen,
            }),
        })
    }

    /// What the next connection is encrypted with.
    pub(super) fn current(&self) -> Arc<Trust> {
        if self.files != CertificateFiles::default() {
            self.look();
        }
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&current)
    }

    /// Reads files that have changed. Such as cannot be used change nothing: a certificate comes a
    /// moment before its key.
    fn look(&self) {
        // Another runner is looking.
        let Ok(mut state) = self.state.try_lock() else {
            return;
        };
        if state.looked_at.elapsed() < LOOK_EVERY {
            return;
        }
        state.looked_at = Instant::now();
        let stamps = self.files.stamps();
        if stamps == state.seen {
            return;
        }
        match trust(&self.files, self.of_host.as_ref()) {
            Ok(trust) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(trust);
                ::log::info!("certificate files have changed and were read again");
            }
            Err(problem) => ::log::warn!(
                "could not use the changed certificate files, those before stay in use: {problem}"
            ),
        }
        state.seen = stamps;
    }
}

fn trust(files: &CertificateFiles, of_host: Option<&Arc<Authorities>>) -> Result<Trust, String> {
    let authorities = match (&files.ca, of_host) {
        (Some(path), _) => Arc::new(Authorities::of_file(path)?),
        (None, Some(of_host)) => Arc::clone(of_host),
        (None, None) => unreachable!("the host's are read where the route names none"),
    };
    Trust::new(authorities, files.identity())
}
