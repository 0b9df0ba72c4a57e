//! Lines of a htpasswd file: `name:hash`, comments, empty lines.

use std::collections::HashMap;

use thiserror::Error;

use super::{scheme::Hash, scram::prepare};

/// Most users of a file.
const USERS_MAX: usize = 20_000;
/// Longest name, in bytes.
pub(super) const NAME_BYTES_MAX: usize = 255;

/// What is wrong with a line. Never shows anything of it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LineError {
    /// There is no colon.
    #[error("expected name:hash")]
    NoColon,
    /// The name cannot be one.
    #[error("expected a name of 1 to {NAME_BYTES_MAX} bytes in the form that SASLprep gives it")]
    Name,
    /// The name was there already.
    #[error("a second line for the same name")]
    Duplicate,
    /// More users than a file may hold.
    #[error("expected at most {USERS_MAX} users")]
    TooManyUsers,
    /// The hash is of no scheme that is known.
    #[error(
        "expected a hash of bcrypt ($2y$, $2a$, $2b$), {{SHA}}, argon2 ($argon2id$, $argon2i$, $argon2d$) or \
         SCRAM-SHA-256$; MD5, crypt and clear text are not taken"
    )]
    UnknownScheme,
    /// The hash is of a known scheme, but broken.
    #[error("expected {expected}")]
    Malformed {
        /// Form of the scheme.
        expected: &'static str,
    },
    /// The hash would take too long to check, too much memory, or is too weak.
    #[error("{what} is {actual}, expected {min} to {max}")]
    OutOfBounds {
        /// Which parameter.
        what: &'static str,
        /// Smallest value.
        min: u64,
        /// Largest value.
        max: u64,
        /// The value.
        actual: u64,
    },
}

/// The users of a file, or the first line that is wrong, counted from 1.
pub(super) fn parse(text: &str) -> Result<HashMap<Box<str>, Hash>, (usize, LineError)> {
    let mut users = HashMap::new();
    for (index, line) in text.lines().enumerate() {
        parse_line(line.trim(), &mut users).map_err(|error| (index + 1, error))?;
    }
    Ok(users)
}

fn parse_line(line: &str, users: &mut HashMap<Box<str>, Hash>) -> Result<(), LineError> {
    if line.is_empty() || line.starts_with('#') {
        return Ok(());
    }
    let (name, hash) = line.split_once(':').ok_or(LineError::NoColon)?;
    // Names are looked up as SASLprep gives them: another form would never be found.
    let is_prepared = prepare(name).is_some_and(|prepared| prepared == name);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !is_prepared {
        return Err(LineError::Name);
    }
    if users.contains_key(name) {
        return Err(LineError::Duplicate);
    }
    if users.len() >= USERS_MAX {
        return Err(LineError::TooManyUsers);
    }
    users.insert(name.into(), Hash::parse(hash)?);
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::auth::scheme::tests::SECRETS;

    #[test]
    fn comments_empty_lines_and_line_ends_of_windows_are_taken() {
        let text = format!(
            "# users\r\n\r\nann:{}\r\n  \nbob:{}",
            SECRETS[0], SECRETS[4]
        );
        let users = parse(&text).unwrap();
        assert_eq!(users.len(), 2);
        assert!(users["ann"].verify("secret") && users["bob"].verify("secret"));
    }

    #[test]
    fn the_line_is_named_and_what_was_expected() {
        let error = |text: &str| parse(text).unwrap_err();
        assert_eq!(error("# users\nann"), (2, LineError::NoColon));
        assert_eq!(error(":{SHA}x"), (1, LineError::Name));
        assert_eq!(error("a\u{200d}b:{SHA}x"), (1, LineError::Name));
        assert_eq!(error("ann:hunter2"), (1, LineError::UnknownScheme));
        let twice = format!("ann:{0}\nann:{0}", SECRETS[0]);
        assert_eq!(error(&twice), (2, LineError::Duplicate));
    }

    #[test]
    fn more_users_than_the_limit_are_refused() {
        let lines: Vec<_> = (0..=USERS_MAX)
            .map(|i| format!("u{i}:{}", SECRETS[0]))
            .collect();
        let text = lines.join(
            "
",
        );
        assert_eq!(
            parse(&text).unwrap_err(),
            (USERS_MAX + 1, LineError::TooManyUsers)
        );
    }
}
