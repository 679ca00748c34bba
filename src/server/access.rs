//! Who may come in: the users and the certificate, read at the start and again at each HUP.
//!
//! Invariant: what is in force was read as a whole without a fault. Should a HUP find one, what
//! was in force stays.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;
use rustls::ServerConfig;

use super::files::{self, FileError};
use super::tls;
use crate::config::{Config, ListenAddr};
use crate::users::{Users, UsersError};

/// Why users or certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// A file cannot be read, or too many may read it.
    #[error(transparent)]
    File(#[from] FileError),
    /// The users file is none.
    #[error("{}: {source}", path.display())]
    Users {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: UsersError,
    },
    /// A certificate or key that is not PEM.
    #[error("{} is not what it must be, in PEM: {problem}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A certificate that cannot be used, alone or with its key.
    #[error("{} cannot be used for TLS: {problem}", path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

impl AccessError {
    pub(super) fn not_pem(path: &Path, problem: &dyn Display) -> Self {
        Self::Pem {
            path: path.to_owned(),
            problem: problem.to_string(),
        }
    }

    pub(super) fn tls(path: &Path, problem: &dyn Display) -> Self {
        Self::Tls {
            path: path.to_owned(),
            problem: problem.to_string(),
        }
    }
}

/// What is in force. `None` where the configuration asks for nothing of the kind.
pub struct Access {
    users: Option<RwLock<Arc<Users>>>,
    tls: Option<RwLock<Arc<ServerConfig>>>,
}

impl Access {
    /// Reads what the configuration names.
    pub fn load(config: &Config) -> Result<Self, AccessError> {
        let users = config.users.as_deref().map(load_users).transpose()?;
        let tls = load_tls(config)?;
        Ok(Self {
            users: users.map(RwLock::new),
            tls: tls.map(RwLock::new),
        })
    }

    /// Reads it again; what has a fault stays as it is.
    pub fn reload(&self, config: &Config) -> Result<(), AccessError> {
        let users = match (&self.users, &config.users) {
            (Some(users), Some(path)) => load_users(path).map(|new| *users.write() = new),
            (Some(_) | None, _) => Ok(()),
        };
        let tls = match &self.tls {
            Some(tls) => load_tls(config).map(|new| {
                if let Some(new) = new {
                    *tls.write() = new;
                }
            }),
            None => Ok(()),
        };
        users.and(tls)
    }

    /// The users, if clients must be one of them.
    pub fn users(&self) -> Option<Arc<Users>> {
        self.users.as_ref().map(|users| Arc::clone(&users.read()))
    }

    /// What TLS addresses speak.
    pub fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.tls.as_ref().map(|tls| Arc::clone(&tls.read()))
    }
}

fn load_users(path: &Path) -> Result<Arc<Users>, AccessError> {
    let bytes = files::read_secret(path)?;
    // What is not text is no line of a user: the error names the line.
    let users = Users::parse(&String::from_utf8_lossy(&bytes));
    users.map(Arc::new).map_err(|source| AccessError::Users {
        path: path.to_owned(),
        source,
    })
}

fn load_tls(config: &Config) -> Result<Option<Arc<ServerConfig>>, AccessError> {
    let (Some(cert), Some(key)) = (&config.tls_cert, &config.tls_key) else {
        return Ok(None);
    };
    if !config.listen.iter().any(ListenAddr::is_tls) {
        return Ok(None);
    }
    tls::load(cert, key, config.tls_client_ca.as_deref()).map(Some)
}
