//! The client's side: two messages out, two in.

use base64::{Engine, engine::general_purpose::STANDARD};
use subtle::ConstantTimeEq;

use super::{
    HEADER, HEADER_BASE64, Key, SALT_BYTES_MAX, Salted, checked, decode_key, digest_of, new_nonce,
    prepare, sign, text, value, xor,
};
use crate::auth::{Credentials, LoginError};

/// A client that has begun.
#[derive(Debug)]
pub(in crate::auth) struct Begun {
    bare: String,
    nonce: String,
    credentials: Credentials,
}

/// A client that has sent its proof and waits for the server's.
pub(in crate::auth) struct Proved {
    expected: Key,
}

impl Begun {
    /// Begins; returns the first message.
    pub(in crate::auth) fn new(credentials: Credentials) -> Result<(String, Self), LoginError> {
        Self::with_nonce(credentials, new_nonce())
    }

    fn with_nonce(credentials: Credentials, nonce: String) -> Result<(String, Self), LoginError> {
        let user = prepare(&credentials.user).ok_or(LoginError::NotPreparable)?;
        let user = user.replace('=', "=3D").replace(',', "=2C");
        let bare = format!("n={user},r={nonce}");
        let first = format!("{HEADER}{bare}");
        let begun = Self {
            bare,
            nonce,
            credentials,
        };
        Ok((first, begun))
    }

    /// Answers the server's first message. Takes up to about half a second, as the server asks: for the cpu pool.
    pub(in crate::auth) fn prove(self, challenge: &[u8]) -> Result<(String, Proved), LoginError> {
        let malformed = || LoginError::Server("a malformed first message of SCRAM");
        let challenge = text(challenge).ok_or_else(malformed)?;
        let mut attributes = challenge.split(',');
        let nonce = value(attributes.next(), "r").ok_or_else(malformed)?;
        let salt = value(attributes.next(), "s").and_then(|salt| STANDARD.decode(salt).ok());
        let salt = salt.filter(|salt| salt.len() <= SALT_BYTES_MAX);
        let iterations = value(attributes.next(), "i").and_then(|count| count.parse().ok());
        let (Some(salt), Some(iterations)) = (salt, iterations) else {
            return Err(malformed());
        };
        if nonce.len() <= self.nonce.len() || !nonce.starts_with(&self.nonce) {
            return Err(LoginError::Server("a nonce that is not ours"));
        }
        let iterations =
            checked(iterations).ok_or(LoginError::Server("iterations out of bounds"))?;
        let password = self.credentials.password.expose();
        let salted = Salted::new(password, &salt, iterations).ok_or(LoginError::NotPreparable)?;
        let unproved = format!("c={HEADER_BASE64},r={nonce}");
        let signed = format!("{},{challenge},{unproved}", self.bare);
        Ok(proof(&salted, &unproved, &signed))
    }
}

fn proof(salted: &Salted, unproved: &str, signed: &str) -> (String, Proved) {
    let client_key = salted.client_key();
    let signature = sign(&digest_of(&client_key[..]), signed);
    let proof = STANDARD.encode(xor(*client_key, &signature));
    let proved = Proved {
        expected: sign(&salted.server_key(), signed),
    };
    (format!("{unproved},p={proof}"), proved)
}

impl Proved {
    /// Checks the server's last message: only who has our keys can make it.
    pub(in crate::auth) fn check(&self, message: &[u8]) -> Result<(), LoginError> {
        let signature = value(text(message), "v").and_then(decode_key);
        let genuine = signature.is_some_and(|signature| signature.ct_eq(&self.expected).into());
        genuine.then_some(()).ok_or(LoginError::NotGenuine)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::auth::scram::tests::{
        CLIENT_FIRST, CLIENT_LAST, CLIENT_NONCE, PASSWORD, SERVER_FIRST, SERVER_LAST,
    };

    fn begun() -> Begun {
        let credentials = Credentials::new("user", PASSWORD);
        let (first, begun) = Begun::with_nonce(credentials, CLIENT_NONCE.to_owned()).unwrap();
        assert_eq!(first, CLIENT_FIRST);
        begun
    }

    fn refused(challenge: &str) -> LoginError {
        begun().prove(challenge.as_bytes()).err().unwrap()
    }

    #[test]
    fn the_exchange_of_the_rfc_ends_well() {
        let (last, proved) = begun().prove(SERVER_FIRST.as_bytes()).unwrap();
        assert_eq!(last, CLIENT_LAST);
        assert_eq!(proved.check(SERVER_LAST.as_bytes()), Ok(()));
    }

    #[test]
    fn a_server_that_does_not_know_the_keys_is_not_genuine() {
        let (_, proved) = begun().prove(SERVER_FIRST.as_bytes()).unwrap();
        let tampered = SERVER_LAST.replace("v=6", "v=7");
        for message in [&*tampered, "v=", "", "e=invalid-proof", &SERVER_LAST[..20]] {
            assert_eq!(
                proved.check(message.as_bytes()),
                Err(LoginError::NotGenuine)
            );
        }
    }

    #[test]
    fn a_nonce_that_does_not_continue_ours_is_refused() {
        for nonce in [CLIENT_NONCE, "other", ""] {
            let challenge = format!("r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096");
            assert_eq!(
                refused(&challenge),
                LoginError::Server("a nonce that is not ours")
            );
        }
    }

    #[test]
    fn a_server_cannot_make_us_compute_for_ever_or_too_little() {
        for iterations in ["1", "4095", "1000001", "4294967295"] {
            let challenge = SERVER_FIRST.replace("i=4096", &format!("i={iterations}"));
            assert_eq!(
                refused(&challenge),
                LoginError::Server("iterations out of bounds")
            );
        }
        for iterations in ["4294967296", "-1", ""] {
            let challenge = SERVER_FIRST.replace("i=4096", &format!("i={iterations}"));
            assert!(matches!(refused(&challenge), LoginError::Server(_)));
        }
    }

    #[test]
    fn names_with_commas_and_equals_signs_are_escaped() {
        let credentials = Credentials::new("a,b=c", "");
        let (first, _) = Begun::new(credentials).unwrap();
        assert!(first.starts_with("n,,n=a=2Cb=3Dc,r="));
        let error = Begun::new(Credentials::new("a\u{7}", "")).err();
        assert_eq!(error, Some(LoginError::NotPreparable));
    }
}
