//! The ways in which a file may hold a password, and the check of each. What one check may cost is bounded on reading.

use std::fmt;

use argon2::{Argon2, Params, PasswordHash, PasswordVerifier};
use base64::{Engine, engine::general_purpose::STANDARD};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA1_OUTPUT_LEN, digest};
use subtle::ConstantTimeEq;

use super::{htpasswd::LineError, scram::ScramKeys};

/// One more doubles the time; 14 takes about a second.
const BCRYPT_COST_MAX: u32 = 14;
const BCRYPT_COST_MIN: u32 = 4;
const BCRYPT_PREFIXES: [&str; 3] = ["$2a$", "$2b$", "$2y$"];
/// Salt and hash in bcrypt's own alphabet.
const BCRYPT_TEXT_CHARS: usize = 53;
/// Memory of one check, in KiB: 256 MiB.
const ARGON2_MEMORY_KIB_MAX: u32 = 256 * 1024;
/// Memory times passes, in KiB: 1 GiB takes about a second.
const ARGON2_WORK_KIB_MAX: u64 = 1024 * 1024;

const SHA: &str = "{SHA}";
const ARGON2: &str = "$argon2";

/// A password as the file holds it.
#[derive(Clone)]
pub(super) enum Hash {
    Sha1([u8; SHA1_OUTPUT_LEN]),
    Bcrypt(Box<str>),
    Argon2(Box<str>),
    Scram(ScramKeys),
}

impl Hash {
    /// Reads one; the scheme is told by how it begins.
    pub(super) fn parse(text: &str) -> Result<Self, LineError> {
        if let Some(digest) = text.strip_prefix(SHA) {
            return parse_sha1(digest);
        }
        if BCRYPT_PREFIXES
            .iter()
            .any(|prefix| text.starts_with(prefix))
        {
            return parse_bcrypt(text);
        }
        if text.starts_with(ARGON2) {
            return parse_argon2(text);
        }
        if text.starts_with(ScramKeys::PREFIX) {
            return ScramKeys::parse(text).map(Self::Scram);
        }
        Err(LineError::UnknownScheme)
    }

    /// Whether `password` is the one. Takes up to about a second: for the cpu pool.
    pub(super) fn verify(&self, password: &str) -> bool {
        match self {
            Self::Sha1(expected) => {
                let actual = digest(&SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes());
                actual.as_ref().ct_eq(expected).into()
            }
            Self::Bcrypt(hash) => bcrypt::verify(password, hash).unwrap_or(false),
            Self::Argon2(hash) => PasswordHash::new(hash).is_ok_and(|hash| {
                Argon2::default()
                    .verify_password(password.as_bytes(), &hash)
                    .is_ok()
            }),
            Self::Scram(keys) => keys.verify(password),
        }
    }

    /// Those of a user who has them.
    pub(super) fn scram_keys(&self) -> Option<&ScramKeys> {
        match self {
            Self::Scram(keys) => Some(keys),
            _ => None,
        }
    }

    /// About how long a check takes, in microseconds; only good for comparing.
    pub(super) fn cost_us(&self) -> u64 {
        match self {
            Self::Sha1(_) => 0,
            Self::Bcrypt(hash) => 60 << bcrypt_cost(hash).unwrap_or(0),
            Self::Argon2(hash) => argon2_work_kib(hash),
            Self::Scram(keys) => u64::from(keys.iterations()) / 2,
        }
    }
}

/// Names the scheme only.
impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sha1(_) => "{SHA}",
            Self::Bcrypt(_) => "bcrypt",
            Self::Argon2(_) => "argon2",
            Self::Scram(_) => "SCRAM-SHA-256",
        })
    }
}

fn parse_sha1(text: &str) -> Result<Hash, LineError> {
    let bytes = STANDARD.decode(text).ok();
    let digest = bytes.and_then(|bytes| bytes.try_into().ok());
    let malformed = LineError::Malformed {
        expected: "{SHA} and 20 bytes in base64",
    };
    digest.map(Hash::Sha1).ok_or(malformed)
}

fn parse_bcrypt(text: &str) -> Result<Hash, LineError> {
    let malformed = LineError::Malformed {
        expected: "bcrypt: $2y$, a cost of two digits, $, and 53 characters",
    };
    let Some(cost) = bcrypt_cost(text) else {
        return Err(malformed);
    };
    if !(BCRYPT_COST_MIN..=BCRYPT_COST_MAX).contains(&cost) {
        return Err(LineError::OutOfBounds {
            what: "the cost of bcrypt",
            min: BCRYPT_COST_MIN.into(),
            max: BCRYPT_COST_MAX.into(),
            actual: cost.into(),
        });
    }
    // The crate's own reader has the last word.
    match text.parse::<bcrypt::HashParts>() {
        Ok(_) => Ok(Hash::Bcrypt(text.into())),
        Err(_) => Err(malformed),
    }
}

/// `None` if `text` is not of the form of a bcrypt hash.
fn bcrypt_cost(text: &str) -> Option<u32> {
    let (cost, rest) = text.get(4..)?.split_once('$')?;
    let own = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'/';
    let whole = rest.len() == BCRYPT_TEXT_CHARS && rest.bytes().all(own);
    let digits = cost.len() == 2 && cost.bytes().all(|byte| byte.is_ascii_digit());
    (whole && digits).then(|| cost.parse().ok()).flatten()
}

fn parse_argon2(text: &str) -> Result<Hash, LineError> {
    let expected = "argon2: $argon2id$v=19$m=..,t=..,p=..$salt$hash";
    let malformed = || LineError::Malformed { expected };
    let hash = PasswordHash::new(text).map_err(|_| malformed())?;
    let params = Params::try_from(&hash).map_err(|_| malformed())?;
    if hash.salt.is_none() || hash.hash.is_none() {
        return Err(malformed());
    }
    let bounds = [
        (
            "the memory of argon2 in KiB",
            u64::from(ARGON2_MEMORY_KIB_MAX),
            u64::from(params.m_cost()),
        ),
        (
            "memory in KiB times passes of argon2",
            ARGON2_WORK_KIB_MAX,
            work_kib(&params),
        ),
    ];
    for (what, max, actual) in bounds {
        if actual > max {
            return Err(LineError::OutOfBounds {
                what,
                min: u64::from(Params::MIN_M_COST),
                max,
                actual,
            });
        }
    }
    Ok(Hash::Argon2(text.into()))
}

fn argon2_work_kib(text: &str) -> u64 {
    let hash = PasswordHash::new(text).ok();
    let params = hash.and_then(|hash| Params::try_from(&hash).ok());
    params.as_ref().map_or(0, work_kib)
}

fn work_kib(params: &Params) -> u64 {
    u64::from(params.m_cost()) * u64::from(params.t_cost())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The hashes of `secret`, one of each scheme, as other tools write them.
    pub(in crate::auth) const SECRETS: [&str; 5] = [
        // openssl dgst -sha1 -binary | base64
        "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=",
        "$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW",
        "$2a$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW",
        "$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW",
        "SCRAM-SHA-256$4096:AAECAwQFBgcICQoLDA0ODw==$THoPhoTAuqyoQsK4dUHncUzgfD8fdmhsgKZhWVqNP5U=:7YiHMMi2OcXGRogub03Ek06JRZ9bkhTOdCzHa5iPLiQ=",
    ];

    /// From the tests of the reference implementation.
    const ARGON2_OF_PASSWORD: &str =
        "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";

    #[test]
    fn argon2_of_the_reference_implementation_is_understood() {
        let hash = Hash::parse(ARGON2_OF_PASSWORD).expect("argon2");
        assert!(hash.verify("password") && !hash.verify("secret"));
    }

    #[test]
    fn every_scheme_knows_the_right_password_from_a_wrong_one() {
        for text in SECRETS {
            let hash = Hash::parse(text).expect(text);
            assert!(hash.verify("secret"), "{text}");
            assert!(!hash.verify("Secret") && !hash.verify(""), "{text}");
        }
    }

    #[test]
    fn what_would_take_too_long_or_too_much_is_refused_by_name() {
        let costly = |text: &str| match Hash::parse(text) {
            Err(LineError::OutOfBounds { what, .. }) => what,
            other => panic!("{text}: {other:?}"),
        };
        let bcrypt = SECRETS[1].replace("$04$", "$31$");
        assert_eq!(costly(&bcrypt), "the cost of bcrypt");
        let argon2 =
            |m, t| format!("$argon2id$v=19$m={m},t={t},p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(costly(&argon2(4_000_000, 1)), "the memory of argon2 in KiB");
        assert_eq!(
            costly(&argon2(262_144, 1000)),
            "memory in KiB times passes of argon2"
        );
        let scram = SECRETS[4].replace("$4096:", "$4000000000:");
        assert_eq!(costly(&scram), "the iterations of SCRAM-SHA-256");
    }

    #[test]
    fn other_schemes_and_broken_hashes_are_refused() {
        for text in [
            "",
            "secret",
            "$apr1$PrwDfXy9$ajkhotQW6RFnoVQtPKoW4/",
            "$6$x$y",
        ] {
            assert!(
                matches!(Hash::parse(text), Err(LineError::UnknownScheme)),
                "{text}"
            );
        }
        let short = &SECRETS[1][..50];
        let cut = &SECRETS[4][..60];
        for text in [
            "{SHA}AAAA",
            "{SHA}?",
            short,
            "$2y$xx$",
            "$argon2id$",
            "$argon2id$v=19$m=8,t=1,p=1",
            cut,
        ] {
            assert!(
                matches!(Hash::parse(text), Err(LineError::Malformed { .. })),
                "{text}"
            );
        }
    }

    #[test]
    fn debug_names_the_scheme_only() {
        let shown = format!("{:?}", Hash::parse(ARGON2_OF_PASSWORD).expect("argon2"));
        assert_eq!(shown, "argon2");
    }
}
