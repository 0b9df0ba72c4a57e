//! The users that a server knows: a htpasswd file, read again when asked to.

use std::{
    collections::HashMap,
    fmt,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use ring::{digest::SHA256, hmac};
use thiserror::Error;

use super::{
    htpasswd::{self, LineError, NAME_BYTES_MAX},
    scheme::Hash,
    scram::{self, ScramKeys},
};

/// Longest file, in bytes.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Why a file of users cannot be used. Never shows anything of a line.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum UsersError {
    /// The file cannot be read, or is not text.
    #[error("cannot read {}: {source}", .file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is too long.
    #[error("{} is too long, expected at most {bytes_max} bytes", .file.display())]
    TooLong {
        /// The file.
        file: PathBuf,
        /// Limit in bytes.
        bytes_max: u64,
    },
    /// A line is wrong.
    #[error("{}, line {line}: {error}", .file.display())]
    Line {
        /// The file.
        file: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong.
        error: LineError,
    },
    /// There is no user: nobody could come in.
    #[error("{} has no users, expected lines of name:hash", .file.display())]
    Empty {
        /// The file.
        file: PathBuf,
    },
}

/// Users and the hashes of their passwords, as `htpasswd` writes them: bcrypt, `{SHA}`, argon2, and SCRAM's own form
/// (see [`ScramKeys`]).
pub struct Users {
    file: PathBuf,
    table: RwLock<Arc<Table>>,
}

impl Users {
    /// Reads `file`.
    ///
    /// # Errors
    ///
    /// The file cannot be read, a line is wrong, or there is no user.
    pub fn from_file(file: impl Into<PathBuf>) -> Result<Self, UsersError> {
        let file = file.into();
        let table = RwLock::new(Arc::new(Table::read(&file)?));
        Ok(Self { file, table })
    }

    /// Reads the file again. Connections that are open stay so.
    ///
    /// # Errors
    ///
    /// As when it was first read; the users stay as they were.
    pub fn reload(&self) -> Result<(), UsersError> {
        let table = Arc::new(Table::read(&self.file)?);
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = table;
        Ok(())
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.table().by_name.len()
    }

    /// Whether there is such a user, by any form of their name that `SASLprep` (RFC 4013) makes the same.
    #[must_use]
    pub fn contains(&self, user: &str) -> bool {
        self.table().find(user).is_some()
    }

    pub(super) fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Names nobody.
impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Users")
            .field("file", &self.file)
            .field("count", &self.count())
            .finish_non_exhaustive()
    }
}

/// The users of one reading.
pub(super) struct Table {
    by_name: HashMap<Box<str>, Hash>,
    /// What unknown users are checked against, in vain: time must not tell that they are unknown.
    costliest: Hash,
    /// What the keys of unknown users look like: those with the most iterations.
    scram_like: Option<ScramKeys>,
    /// Makes the salts of unknown users. Made of the file, so that they stay the same as those of others do.
    decoy: hmac::Key,
}

impl Table {
    fn read(file: &Path) -> Result<Self, UsersError> {
        let text = read_text(file)?;
        let by_name = htpasswd::parse(&text).map_err(|(line, error)| UsersError::Line {
            file: file.to_owned(),
            line,
            error,
        })?;
        let costliest = by_name.values().max_by_key(|hash| hash.cost_us()).cloned();
        let costliest = costliest.ok_or_else(|| UsersError::Empty {
            file: file.to_owned(),
        })?;
        let scram_keys = by_name.values().filter_map(Hash::scram_keys);
        let scram_like = scram_keys.max_by_key(|keys| keys.iterations()).cloned();
        let secret = ring::digest::digest(&SHA256, text.as_bytes());
        let decoy = hmac::Key::new(hmac::HMAC_SHA256, secret.as_ref());
        Ok(Self {
            by_name,
            costliest,
            scram_like,
            decoy,
        })
    }

    /// Whether `user` exists and `password` is theirs. Takes up to about a second: for the cpu pool.
    pub(super) fn verify(&self, user: &str, password: &str) -> bool {
        let known = self.find(user);
        let matches = known.unwrap_or(&self.costliest).verify(password);
        known.is_some() & matches
    }

    /// Whether all users can come in by SCRAM-SHA-256.
    pub(super) fn all_have_scram_keys(&self) -> bool {
        let mut all = self.by_name.values();
        all.all(|hash| hash.scram_keys().is_some())
    }

    /// The keys of `user`; for one without, keys that nothing fits. `None` if no user has any.
    pub(super) fn scram_keys(&self, user: &str) -> Option<ScramKeys> {
        match self.find(user) {
            Some(Hash::Scram(keys)) => Some(keys.clone()),
            _ => Some(ScramKeys::decoy(
                &self.decoy,
                user,
                self.scram_like.as_ref()?,
            )),
        }
    }

    fn find(&self, user: &str) -> Option<&Hash> {
        // No longer name is in the file, and preparing one would cost what the peer likes.
        let user = (user.len() <= NAME_BYTES_MAX).then_some(user)?;
        self.by_name.get(&*scram::prepare(user)?)
    }
}

fn read_text(file: &Path) -> Result<zeroize::Zeroizing<String>, UsersError> {
    let mut text = zeroize::Zeroizing::new(String::new());
    let read = File::open(file).and_then(|opened| {
        // One byte above the limit tells that there is more.
        opened.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)
    });
    match read {
        Ok(bytes) if bytes as u64 > FILE_BYTES_MAX => Err(UsersError::TooLong {
            file: file.to_owned(),
            bytes_max: FILE_BYTES_MAX,
        }),
        Ok(_) => Ok(text),
        Err(source) => Err(UsersError::Read {
            file: file.to_owned(),
            source,
        }),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;

    use super::*;
    use crate::auth::scheme::tests::SECRETS;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(&file, text).unwrap();
        file
    }

    #[test]
    fn a_user_needs_to_exist_and_to_know_the_password() {
        let file = file(&format!("ann:{}\nbob:{}", SECRETS[0], SECRETS[1]));
        let table = Users::from_file(file.path()).unwrap().table();
        assert!(table.verify("ann", "secret") && table.verify("bob", "secret"));
        assert!(!table.verify("ann", "wrong") && !table.verify("bob", ""));
        // Checked against bob's hash, whose password this is, and still nobody.
        assert!(matches!(table.costliest, Hash::Bcrypt(_)));
        assert!(!table.verify("carl", "secret"));
    }

    #[test]
    fn reloading_takes_new_users_and_keeps_the_old_ones_on_an_error() {
        let file = file(&format!("ann:{}", SECRETS[0]));
        let users = Users::from_file(file.path()).unwrap();
        fs::write(&file, format!("bob:{}", SECRETS[0])).unwrap();
        users.reload().unwrap();
        assert!(users.table().verify("bob", "secret") && !users.table().verify("ann", "secret"));
        fs::write(&file, "bob:hunter2").unwrap();
        let error = users.reload().unwrap_err().to_string();
        assert!(error.contains("line 1: expected a hash"), "{error}");
        assert!(error.contains(&*file.path().to_string_lossy()) && !error.contains("hunter2"));
        assert!(users.table().verify("bob", "secret"));
    }

    #[test]
    fn a_file_without_users_and_one_that_is_too_long_are_refused() {
        let none = Users::from_file(file("# nobody\n").path()).unwrap_err();
        assert!(matches!(none, UsersError::Empty { .. }));
        let long = "#".repeat(usize::try_from(FILE_BYTES_MAX).unwrap() + 1);
        let long = Users::from_file(file(&long).path()).unwrap_err();
        assert!(matches!(long, UsersError::TooLong { .. }));
        let missing = Users::from_file("/nowhere/htpasswd").unwrap_err();
        assert!(matches!(missing, UsersError::Read { .. }));
    }

    #[test]
    fn users_without_keys_get_some_that_stay_the_same_and_fit_nothing() {
        let file = file(&format!("ann:{}\nbob:{}", SECRETS[0], SECRETS[4]));
        let table = Users::from_file(file.path()).unwrap().table();
        let keys = |user: &str| table.scram_keys(user).unwrap().to_string();
        assert_eq!(keys("carl"), keys("carl"));
        assert_ne!(keys("carl"), keys("carla"));
        assert_eq!(keys("bob"), SECRETS[4]);
        for nobody in ["carl", "ann"] {
            assert_eq!(keys(nobody).len(), keys("bob").len());
            assert!(!table.scram_keys(nobody).unwrap().verify("secret"));
        }
        assert!(!table.all_have_scram_keys());
    }
}
