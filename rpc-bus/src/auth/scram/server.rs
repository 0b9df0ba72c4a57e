//! The server's side: two messages in, two out.

use base64::{Engine, engine::general_purpose::STANDARD};
use subtle::ConstantTimeEq;

use super::{Key, ScramKeys, decode_key, digest_of, new_nonce, prepare, sign, text, value, xor};
use crate::auth::AuthError;

const NONCE_CHARS_MAX: usize = 256;

/// A client's first message.
#[derive(Debug)]
pub(in crate::auth) struct ClientFirst {
    /// Who it says to be.
    pub(in crate::auth) user: String,
    /// What it began with, to be repeated in its last message.
    header: String,
    bare: String,
    nonce: String,
}

impl ClientFirst {
    pub(in crate::auth) fn parse(message: &[u8]) -> Result<Self, AuthError> {
        parse_first(message).ok_or(AuthError::Malformed("a malformed first message of SCRAM"))
    }

    /// The answer, and what is left to check.
    pub(in crate::auth) fn challenge(self, keys: ScramKeys) -> (String, Challenged) {
        self.challenge_with(&new_nonce(), keys)
    }

    fn challenge_with(self, nonce: &str, keys: ScramKeys) -> (String, Challenged) {
        let nonce = format!("{}{nonce}", self.nonce);
        let (salt, iterations) = (STANDARD.encode(&keys.salt), keys.iterations);
        let challenge = format!("r={nonce},s={salt},i={iterations}");
        let challenged = Challenged {
            exchanged: format!("{},{challenge}", self.bare),
            header: STANDARD.encode(self.header),
            nonce,
            keys,
        };
        (challenge, challenged)
    }
}

/// A client whose proof is due.
#[derive(Debug)]
pub(in crate::auth) struct Challenged {
    /// The messages so far, as they are signed.
    exchanged: String,
    header: String,
    nonce: String,
    keys: ScramKeys,
}

impl Challenged {
    /// Checks the client's last message; the answer proves to the client who we are.
    pub(in crate::auth) fn finish(&self, message: &[u8]) -> Result<String, AuthError> {
        let malformed = AuthError::Malformed("a malformed last message of SCRAM");
        let (unproved, proof) = parse_last(message).ok_or(malformed)?;
        let mut attributes = unproved.split(',');
        let (header, nonce) = (attributes.next(), attributes.next());
        if value(header, "c") != Some(&self.header) || value(nonce, "r") != Some(&self.nonce) {
            return Err(AuthError::Malformed("a message of another SCRAM exchange"));
        }
        let signed = format!("{},{unproved}", self.exchanged);
        let client_key = xor(proof, &sign(&self.keys.stored, &signed));
        if !bool::from(digest_of(&client_key).ct_eq(&self.keys.stored)) {
            return Err(AuthError::Rejected);
        }
        Ok(format!(
            "v={}",
            STANDARD.encode(sign(&self.keys.server, &signed))
        ))
    }
}

/// `n,[a=name],n=user,r=nonce`; a client that could bind to the channel says `y` in place of `n`.
fn parse_first(message: &[u8]) -> Option<ClientFirst> {
    let message = text(message)?;
    let mut parts = message.splitn(3, ',');
    let (flag, authorized, bare) = (parts.next()?, parts.next()?, parts.next()?);
    let mut attributes = bare.split(',');
    // Something mandatory that we do not know would come first, and is no user.
    let user = unescape(value(attributes.next(), "n")?)?;
    let nonce = value(attributes.next(), "r")?;
    let as_self = authorized.is_empty()
        || value(Some(authorized), "a").and_then(unescape).as_deref() == Some(&user);
    let valid = matches!(flag, "n" | "y") && as_self && is_nonce(nonce) && !user.is_empty();
    valid.then(|| ClientFirst {
        header: format!("{flag},{authorized},"),
        bare: bare.to_owned(),
        nonce: nonce.to_owned(),
        user,
    })
}

/// The client's last message without its proof, and the proof.
fn parse_last(message: &[u8]) -> Option<(&str, Key)> {
    let (unproved, proof) = text(message)?.rsplit_once(",p=")?;
    Some((unproved, decode_key(proof)?))
}

fn is_nonce(nonce: &str) -> bool {
    (1..=NONCE_CHARS_MAX).contains(&nonce.len())
        && nonce.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A name as it was meant: commas and equals signs travel as `=2C` and `=3D`.
fn unescape(name: &str) -> Option<String> {
    let mut parts = name.split('=');
    let mut plain = parts.next()?.to_owned();
    for part in parts {
        let (code, rest) = part.split_at_checked(2)?;
        plain.push(match code {
            "2C" => ',',
            "3D" => '=',
            _ => return None,
        });
        plain.push_str(rest);
    }
    prepare(&plain).map(Into::into)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::auth::scram::tests::{
        CLIENT_FIRST, CLIENT_LAST, SERVER_FIRST, SERVER_LAST, SERVER_NONCE, keys,
    };

    fn challenged() -> Challenged {
        let first = ClientFirst::parse(CLIENT_FIRST.as_bytes()).unwrap();
        assert_eq!(first.user, "user");
        let (challenge, challenged) = first.challenge_with(SERVER_NONCE, keys());
        assert_eq!(challenge, SERVER_FIRST);
        challenged
    }

    #[test]
    fn the_exchange_of_the_rfc_ends_well() {
        let answer = challenged().finish(CLIENT_LAST.as_bytes());
        assert_eq!(answer.as_deref(), Ok(SERVER_LAST));
    }

    #[test]
    fn a_proof_that_is_changed_anywhere_is_rejected() {
        let (unproved, proof) = CLIENT_LAST.rsplit_once("p=").unwrap();
        let proof = decode_key(proof).unwrap();
        for index in 0..proof.len() {
            let mut changed = proof;
            changed[index] ^= 1;
            let message = format!("{unproved}p={}", STANDARD.encode(changed));
            assert_eq!(
                challenged().finish(message.as_bytes()),
                Err(AuthError::Rejected)
            );
        }
    }

    #[test]
    fn another_nonce_or_header_is_of_another_exchange() {
        for (from, to) in [
            ("r=rOprNGfwEbeRWgbNEkqO", "r=sOprNGfwEbeRWgbNEkqO"),
            ("c=biws", "c=eSws"),
        ] {
            let message = CLIENT_LAST.replace(from, to);
            assert_ne!(message, CLIENT_LAST);
            assert!(matches!(
                challenged().finish(message.as_bytes()),
                Err(AuthError::Malformed(_))
            ));
        }
    }

    #[test]
    fn a_truncated_last_message_never_passes() {
        for end in 0..CLIENT_LAST.len() {
            assert!(
                challenged().finish(&CLIENT_LAST.as_bytes()[..end]).is_err(),
                "{end}"
            );
        }
    }

    #[test]
    fn first_messages_that_ask_for_more_than_we_have_are_refused() {
        for message in [
            "p=tls-unique,,n=user,r=abc",
            "n,a=root,n=user,r=abc",
            "n,,m=more,n=user,r=abc",
            "n,,n=,r=abc",
            "n,,n=user,r=",
            "n,,n=us=er,r=abc",
            "n,,n=user",
            "n,,r=abc,n=user",
            "n,,n=user,r=a\u{7f}c",
            "",
        ] {
            assert!(ClientFirst::parse(message.as_bytes()).is_err(), "{message}");
        }
        for message in [
            "y,,n=user,r=abc",
            "n,a=user,n=user,r=abc",
            "n,,n=user,r=abc,x=1",
        ] {
            assert!(ClientFirst::parse(message.as_bytes()).is_ok(), "{message}");
        }
    }

    #[test]
    fn names_are_unescaped_and_prepared() {
        assert_eq!(unescape("a=2Cb=3Dc").as_deref(), Some("a,b=c"));
        assert_eq!(unescape("\u{2168}").as_deref(), Some("IX"));
        assert_eq!(
            (unescape("a="), unescape("=2c"), unescape("a\u{7}")),
            (None, None, None)
        );
    }
}
