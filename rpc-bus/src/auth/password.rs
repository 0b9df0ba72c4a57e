//! A password: wiped when dropped, and never shown.

use std::fmt;

use zeroize::Zeroizing;

/// A password. Its `Debug` form is `***`.
#[derive(Clone)]
pub struct Password(Zeroizing<String>);

impl Password {
    /// The password itself: for proving and checking it, never for a log.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Password {
    fn from(password: String) -> Self {
        Self(Zeroizing::new(password))
    }
}

impl From<&str> for Password {
    fn from(password: &str) -> Self {
        password.to_owned().into()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use crate::auth::Credentials;

    #[test]
    fn debug_shows_nothing_of_it() {
        let credentials = Credentials::new("ann", "hunter2");
        let shown = format!("{credentials:#?}");
        assert!(shown.contains("ann") && shown.contains("***") && !shown.contains("hunter2"));
    }
}
