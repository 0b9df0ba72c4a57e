//! SCRAM-SHA-256 (RFC 5802, RFC 7677) without channel binding: keys, and what both sides compute.
//!
//! Each side is a value that turns messages into messages; see `server.rs` and `client.rs`.

pub(super) mod client;
pub(super) mod server;

use std::{borrow::Cow, fmt, num::NonZeroU32};

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::{
    digest::{SHA256, digest},
    hmac,
    pbkdf2::{self, PBKDF2_HMAC_SHA256},
};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{Password, htpasswd::LineError};

const KEY_BYTES: usize = 32;
const SALT_BYTES: usize = 16;
const SALT_BYTES_MAX: usize = 64;
/// Random bytes of a nonce.
const NONCE_BYTES: usize = 24;
/// Longest message, in bytes.
const MESSAGE_BYTES_MAX: usize = 4096;
/// "No channel binding, no other name", and the same in base64.
const HEADER: &str = "n,,";
const HEADER_BASE64: &str = "biws";

type Key = [u8; KEY_BYTES];

/// What a server keeps in place of a password: enough to check a client, not enough to be one.
///
/// Its `Display` form is the hash of a line in a file of users, as `PostgreSQL` writes it:
/// `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`.
#[derive(Clone)]
pub struct ScramKeys {
    iterations: NonZeroU32,
    salt: Vec<u8>,
    stored: Key,
    server: Key,
}

impl ScramKeys {
    /// Fewest iterations; what RFC 7677 asks for.
    pub const ITERATIONS_MIN: u32 = 4096;
    /// Most iterations, about half a second: a server must not make a client compute for ever.
    pub const ITERATIONS_MAX: u32 = 1_000_000;
    /// Iterations of keys that are made here.
    const ITERATIONS: u32 = 100_000;
    pub(super) const PREFIX: &str = "SCRAM-SHA-256$";

    /// Keys of `password` with a salt of their own; `None` if `SASLprep` does not allow the password. Takes some 50 ms.
    #[must_use]
    pub fn derive(password: &Password) -> Option<Self> {
        let salt: [u8; SALT_BYTES] = rand::random();
        let iterations = checked(Self::ITERATIONS)?;
        let salted = Salted::new(password.expose(), &salt, iterations)?;
        Some(salted.keys(salt.to_vec(), iterations))
    }

    pub(super) fn parse(text: &str) -> Result<Self, LineError> {
        let malformed = || LineError::Malformed {
            expected: "SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey, the last three in base64",
        };
        let (iterations, salt, stored, server) = fields(text).ok_or_else(malformed)?;
        let iterations: u32 = iterations.parse().map_err(|_| malformed())?;
        let salt = STANDARD.decode(salt).map_err(|_| malformed())?;
        if salt.is_empty() || salt.len() > SALT_BYTES_MAX {
            return Err(malformed());
        }
        Ok(Self {
            iterations: checked(iterations).ok_or_else(|| LineError::OutOfBounds {
                what: "the iterations of SCRAM-SHA-256",
                min: Self::ITERATIONS_MIN.into(),
                max: Self::ITERATIONS_MAX.into(),
                actual: iterations.into(),
            })?,
            salt,
            stored: decode_key(stored).ok_or_else(malformed)?,
            server: decode_key(server).ok_or_else(malformed)?,
        })
    }

    /// Keys of nobody: always the same for `user`, and fit by no password.
    pub(super) fn decoy(secret: &hmac::Key, user: &str, like: &Self) -> Self {
        let sign = |what: &str| hmac::sign(secret, format!("{what} {user}").as_bytes());
        let mut salt = sign("salt").as_ref().to_vec();
        salt.truncate(like.salt.len());
        Self {
            iterations: like.iterations,
            salt,
            stored: key_of(sign("stored").as_ref()),
            server: key_of(sign("server").as_ref()),
        }
    }

    /// Whether they were made of `password`.
    pub(super) fn verify(&self, password: &str) -> bool {
        let salted = Salted::new(password, &self.salt, self.iterations);
        salted.is_some_and(|salted| {
            digest_of(&salted.client_key()[..])
                .ct_eq(&self.stored)
                .into()
        })
    }

    pub(super) fn iterations(&self) -> u32 {
        self.iterations.get()
    }
}

impl fmt::Display for ScramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (prefix, iterations) = (Self::PREFIX, self.iterations);
        let [salt, stored, server] =
            [&self.salt[..], &self.stored, &self.server].map(|bytes| STANDARD.encode(bytes));
        write!(f, "{prefix}{iterations}:{salt}${stored}:{server}")
    }
}

/// Shows none of the keys.
impl fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramKeys")
            .field("iterations", &self.iterations)
            .finish_non_exhaustive()
    }
}

/// A password after its iterations.
struct Salted(Zeroizing<Key>);

impl Salted {
    fn new(password: &str, salt: &[u8], iterations: NonZeroU32) -> Option<Self> {
        let password = prepare(password)?;
        let mut salted = Zeroizing::new([0; KEY_BYTES]);
        pbkdf2::derive(
            PBKDF2_HMAC_SHA256,
            iterations,
            salt,
            password.as_bytes(),
            &mut salted[..],
        );
        Some(Self(salted))
    }

    fn client_key(&self) -> Zeroizing<Key> {
        Zeroizing::new(sign(&self.0[..], "Client Key"))
    }

    fn server_key(&self) -> Key {
        sign(&self.0[..], "Server Key")
    }

    fn keys(&self, salt: Vec<u8>, iterations: NonZeroU32) -> ScramKeys {
        ScramKeys {
            iterations,
            salt,
            stored: digest_of(&self.client_key()[..]),
            server: self.server_key(),
        }
    }
}

/// The form in which names and passwords are compared (`SASLprep`, RFC 4013); `None` if it does not allow them.
pub(super) fn prepare(text: &str) -> Option<Cow<'_, str>> {
    stringprep::saslprep(text).ok()
}

/// Iterations within the bounds.
fn checked(iterations: u32) -> Option<NonZeroU32> {
    let bounds = ScramKeys::ITERATIONS_MIN..=ScramKeys::ITERATIONS_MAX;
    NonZeroU32::new(iterations).filter(|iterations| bounds.contains(&iterations.get()))
}

fn fields(text: &str) -> Option<(&str, &str, &str, &str)> {
    let (head, keys) = text.strip_prefix(ScramKeys::PREFIX)?.split_once('$')?;
    let ((iterations, salt), (stored, server)) = (head.split_once(':')?, keys.split_once(':')?);
    Some((iterations, salt, stored, server))
}

/// A message as text.
fn text(message: &[u8]) -> Option<&str> {
    let message = (message.len() <= MESSAGE_BYTES_MAX).then_some(message)?;
    std::str::from_utf8(message).ok()
}

/// The value of `name=value`.
fn value<'a>(attribute: Option<&'a str>, name: &str) -> Option<&'a str> {
    attribute?.strip_prefix(name)?.strip_prefix('=')
}

fn new_nonce() -> String {
    STANDARD.encode(rand::random::<[u8; NONCE_BYTES]>())
}

fn sign(key: &[u8], message: &str) -> Key {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message.as_bytes());
    key_of(tag.as_ref())
}

fn digest_of(bytes: &[u8]) -> Key {
    key_of(digest(&SHA256, bytes).as_ref())
}

fn key_of(bytes: &[u8]) -> Key {
    bytes.try_into().expect("invariant: SHA-256 makes 32 bytes")
}

fn decode_key(text: &str) -> Option<Key> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

fn xor(mut left: Key, right: &Key) -> Key {
    for (left, right) in left.iter_mut().zip(right) {
        *left ^= right;
    }
    left
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::*;

    // The exchange of RFC 7677, section 3.
    pub(super) const PASSWORD: &str = "pencil";
    pub(super) const CLIENT_NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
    pub(super) const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    pub(super) const CLIENT_FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    pub(super) const SERVER_FIRST: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
         s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    pub(super) const CLIENT_LAST: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
         p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    pub(super) const SERVER_LAST: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    /// Those of the RFC's user.
    pub(super) fn keys() -> ScramKeys {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let iterations = checked(4096).unwrap();
        let salted = Salted::new(PASSWORD, &salt, iterations).unwrap();
        salted.keys(salt, iterations)
    }

    #[test]
    fn keys_are_written_and_read_as_a_line() {
        let line = keys().to_string();
        // As `CREATE ROLE` of PostgreSQL stores this password with this salt.
        assert!(line.starts_with("SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:"));
        let read = ScramKeys::parse(&line).unwrap();
        assert_eq!(read.to_string(), line);
        assert!(read.verify(PASSWORD) && !read.verify("Pencil"));
    }

    #[test]
    fn derived_keys_fit_their_password_and_have_a_salt_of_their_own() {
        let [one, other] = [(); 2].map(|()| ScramKeys::derive(&"secret".into()).unwrap());
        assert!(one.verify("secret") && !one.verify("wrong"));
        assert_ne!(one.to_string(), other.to_string());
        assert!(ScramKeys::derive(&"\u{7}".into()).is_none());
    }

    #[test]
    fn debug_shows_no_key() {
        let shown = format!("{:?}", keys());
        assert!(
            !shown.contains("WG5d8o") && !shown.contains("stored"),
            "{shown}"
        );
    }
}
