//! A file of users, and who checks their passwords.

use std::sync::Arc;

use rpc_bus::auth::{AuthOptions, Authenticator, Users};
use user_server::UserServerOptions;

use super::runtime;

/// The password of `alice` in the recordings.
pub const PASSWORD: &str = "wonder";
/// `alice`, by SCRAM and PLAIN.
pub const SCRAM: &str = "alice:SCRAM-SHA-256$4096:AAECAwQFBgcICQoLDA0ODw==$CaLYHywcJJwGkxn3DQdeS8kbSBx2ohTghe9FMhLvNfY=:XNzVXxVNZtfGAF9/RGkkhwfZgP2xupySxCQaLqOHPe4=";
/// `alice`, by PLAIN only.
pub const BCRYPT: &str = "alice:$2y$04$abcdefghijklmnopqrstuuetGRvO6QNMBbbIoo5tpQkbPXg26U9Qu";

/// Options of a server that lets only `users` in.
pub fn only(users: &str) -> UserServerOptions {
    only_with(users, AuthOptions::default())
}

pub fn only_with(users: &str, options: AuthOptions) -> UserServerOptions {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(&file, users).expect("a file");
    let users = Arc::new(Users::from_file(file.path()).expect("users"));
    let authenticator = Authenticator::new(users, options, runtime()).expect("limits");
    UserServerOptions {
        authenticator: Some(Arc::new(authenticator)),
        ..UserServerOptions::default()
    }
}
