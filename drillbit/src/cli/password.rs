//! `drillbit password`: a line for the file of users.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};

use argon2::{
    Argon2,
    password_hash::{PasswordHasher as _, SaltString},
};
use bcrypt::Version;
use clap::{Args, ValueEnum};
use rpc_bus::auth::{Password, ScramKeys};

use super::{Exit, Failure};
use crate::shell;

const AFTER_HELP: &str = "\
Asks twice for the password, or reads it from the first line of standard input if that is no
terminal. Clients can use SCRAM-SHA-256, where the password does not travel, if all lines of the
file have that scheme; PLAIN, which Drill's JDBC driver speaks, works with all schemes.

Example:
  drillbit password ann >> users";

/// Each doubling of the work is one more; 12 takes about a quarter of a second.
const BCRYPT_COST: u32 = 12;
/// What follows is ignored by bcrypt.
const BCRYPT_PASSWORD_BYTES_MAX: usize = 72;
/// Longest password, in bytes.
const PASSWORD_BYTES_MAX: u64 = 1024;
const SALT_BYTES: usize = 16;

/// Arguments of `password`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct PasswordArguments {
    /// Name of the user
    name: String,
    /// How the password is kept
    #[arg(long, value_enum, default_value_t = Scheme::ScramSha256)]
    scheme: Scheme,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scheme {
    Bcrypt,
    Argon2,
    #[value(name = "scram-sha-256")]
    ScramSha256,
}

/// Prints the line.
pub(super) fn run(arguments: &PasswordArguments) -> Result<(), Failure> {
    let name = &arguments.name;
    if name.is_empty() || name.contains([':', '\n', '\r']) || name.trim() != name {
        let message = format_args!("a name without colon and outer spaces is needed, not {name:?}");
        return Err(Failure::new(Exit::Usage, message));
    }
    let password = ask()?;
    let hash = hash(arguments.scheme, &password)?;
    writeln!(io::stdout(), "{name}:{hash}").map_err(|error| Failure::write(&error))
}

fn ask() -> Result<Password, Failure> {
    let password = if io::stdin().is_terminal() {
        let password = shell::ask_password("Password: ")?;
        let again = shell::ask_password("Again: ")?;
        if password.expose() != again.expose() {
            return Err(Failure::new(Exit::Failed, "the passwords differ"));
        }
        password
    } else {
        first_line(io::stdin().lock().take(PASSWORD_BYTES_MAX))
            .map_err(|error| Failure::new(Exit::Failed, format_args!("standard input: {error}")))?
    };
    if password.expose().is_empty() {
        return Err(Failure::new(Exit::Failed, "an empty password is none"));
    }
    Ok(password)
}

/// The first line of `source`, without its end.
pub(crate) fn first_line(source: impl io::Read) -> io::Result<Password> {
    let mut line = String::new();
    io::BufReader::new(source).read_line(&mut line)?;
    line.truncate(line.trim_end_matches(['\r', '\n']).len());
    Ok(line.into())
}

fn hash(scheme: Scheme, password: &Password) -> Result<String, Failure> {
    let salt: [u8; SALT_BYTES] = rand::random();
    let failed = |error: &dyn std::fmt::Display| Failure::new(Exit::Failed, error);
    match scheme {
        Scheme::Bcrypt if password.expose().len() > BCRYPT_PASSWORD_BYTES_MAX => {
            let message = format_args!("bcrypt takes at most {BCRYPT_PASSWORD_BYTES_MAX} bytes");
            Err(Failure::new(Exit::Failed, message))
        }
        Scheme::Bcrypt => bcrypt::hash_with_salt(password.expose(), BCRYPT_COST, salt)
            .map(|parts| parts.format_for_version(Version::TwoY))
            .map_err(|error| failed(&error)),
        Scheme::Argon2 => SaltString::encode_b64(&salt)
            .and_then(|salt| {
                let hash = Argon2::default().hash_password(password.expose().as_bytes(), &salt)?;
                Ok(hash.to_string())
            })
            .map_err(|error| failed(&error)),
        Scheme::ScramSha256 => ScramKeys::derive(password)
            .map(|keys| keys.to_string())
            .ok_or_else(|| failed(&"SCRAM-SHA-256 does not allow characters of this password")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rpc_bus::auth::Users;

    use super::*;

    #[test]
    fn every_scheme_gives_a_line_that_a_file_of_users_may_have() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("users");
        let password = Password::from("open sesame");
        let mut lines = String::new();
        for (scheme, name) in Scheme::value_variants().iter().zip(["a", "b", "c"]) {
            lines += &[name, ":", &hash(*scheme, &password).unwrap(), "\n"].concat();
        }
        fs::write(&file, &lines).unwrap();
        assert_eq!(Users::from_file(&file).unwrap().count(), 3, "{lines}");
        assert!(!lines.contains("sesame"));
    }

    #[test]
    fn only_the_end_of_the_first_line_is_cut_off() {
        let read = |text: &str| first_line(text.as_bytes()).unwrap().expose().to_owned();
        assert_eq!(read(" a b \r\nsecond\n"), " a b ");
        assert_eq!(read("no end"), "no end");
        assert_eq!(read(""), "");
    }

    #[test]
    fn what_bcrypt_would_ignore_is_refused() {
        let long = Password::from("x".repeat(73));
        assert!(hash(Scheme::Bcrypt, &long).is_err());
        assert!(hash(Scheme::ScramSha256, &long).is_ok());
    }
}
