//! PLAIN (RFC 4616): `authzid NUL authcid NUL password` in one message.

use zeroize::Zeroizing;

use super::Credentials;

/// Longest message, in bytes; names and passwords are far below.
const MESSAGE_BYTES_MAX: usize = 4096;

/// The message of a client. It asks to be nobody else.
pub(super) fn message(credentials: &Credentials) -> Zeroizing<Vec<u8>> {
    let (user, password) = (&credentials.user, credentials.password.expose());
    Zeroizing::new([b"\0", user.as_bytes(), b"\0", password.as_bytes()].concat())
}

/// Reads a client's message.
///
/// # Errors
///
/// What is wrong with it.
// wire: drill@051b164 exec/java-exec/.../rpc/security/plain/PlainServer.java: the authorization id is empty or the user
pub(super) fn parse(message: &[u8]) -> Result<Credentials, &'static str> {
    if message.len() > MESSAGE_BYTES_MAX {
        return Err("a PLAIN message that is too long");
    }
    let message = std::str::from_utf8(message).map_err(|_| "a PLAIN message that is not UTF-8")?;
    let parts: Vec<_> = message.split('\0').collect();
    let &[authorized, user, password] = &*parts else {
        return Err("a PLAIN message without exactly three parts");
    };
    if user.is_empty() {
        return Err("a PLAIN message without a user");
    }
    if !authorized.is_empty() && authorized != user {
        return Err("a PLAIN message that asks to be somebody else");
    }
    Ok(Credentials::new(user, password))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_client_message_is_read_by_the_server() {
        // golden/auth/auth_ok frame 2
        let credentials = Credentials::new("alice", "wonder");
        assert_eq!(&**message(&credentials), b"\0alice\0wonder");
        let read = parse(&message(&credentials)).unwrap();
        assert_eq!((&*read.user, read.password.expose()), ("alice", "wonder"));
    }

    #[test]
    fn the_authorization_id_is_empty_or_the_user() {
        assert!(parse(b"ann\0ann\0secret").is_ok());
        assert!(parse(b"bob\0ann\0secret").is_err());
    }

    #[test]
    fn everything_else_is_malformed() {
        let long = [b"\0ann\0".as_slice(), &[b'x'; MESSAGE_BYTES_MAX]].concat();
        for message in [
            b"".as_slice(),
            b"ann",
            b"ann\0secret",
            b"\0\0secret",
            b"\0ann\0secret\0",
            b"\0ann\0\xff",
            &long,
        ] {
            assert!(parse(message).is_err(), "{message:?}");
        }
    }
}
