//! The TLS of one route: made of its certificate files, and made anew when one of them changes, so
//! that a renewed certificate needs no restart.
//!
//! The files are looked at when a connection is made, once a second at most. A connection that is
//! open lives on for its minute.

use std::sync::{Arc, PoisonError, RwLock};

use serde::{Deserialize, Serialize};

use crate::handlers::transport::trust::{Authorities, IdentityFiles, Roots, Trust};
use crate::system::file_watch::FileWatch;

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

    fn paths(&self) -> Vec<String> {
        let paths = [&self.ca, &self.certificate, &self.key];
        paths.into_iter().flatten().cloned().collect()
    }
}

/// What the connections of one route are encrypted with.
#[derive(Debug)]
pub struct Credentials {
    files: CertificateFiles,
    /// The host's authorities, where the route names none.
    of_host: Option<Arc<Authorities>>,
    current: RwLock<Arc<Trust>>,
    watch: FileWatch,
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
        let watch = FileWatch::read_now(files.paths());
        let trust = trust(&files, of_host.as_ref())?;
        Ok(Credentials {
            files,
            of_host,
            current: RwLock::new(Arc::new(trust)),
            watch,
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
        self.watch.look(|| {
            match trust(&self.files, self.of_host.as_ref()) {
                Ok(trust) => {
                    *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(trust);
                    ::log::info!("certificate files have changed and were read again");
                }
                Err(problem) => ::log::warn!(
                    "could not use the changed certificate files, those before stay in use: {problem}"
                ),
            }
            // Be it in vain: a file that is mended has changed again.
            true
        });
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
