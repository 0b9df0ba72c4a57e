//! Where the history of the shell lives.

use std::{
    env,
    path::{Path, PathBuf},
};

/// The history file in the user's data directory; `None` if there is no home.
pub(super) fn path() -> Option<PathBuf> {
    data_dir(&|name| env::var_os(name).map(PathBuf::from))
        .map(|dir| dir.join("drillbit").join("history"))
}

/// By the conventions of the platform.
fn data_dir(variable: &dyn Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    if cfg!(windows) {
        return variable("APPDATA");
    }
    // The XDG base directory rules: a relative path is to be ignored.
    if let Some(dir) = variable("XDG_DATA_HOME").filter(|dir| dir.is_absolute()) {
        return Some(dir);
    }
    let home = variable("HOME").filter(|home| home != Path::new(""))?;
    let dir = if cfg!(target_os = "macos") {
        "Library/Application Support"
    } else {
        ".local/share"
    };
    Some(home.join(dir))
}

#[cfg(all(test, unix, not(target_os = "macos")))]
mod tests {
    use super::*;

    fn dir(variables: &[(&str, &str)]) -> Option<PathBuf> {
        let value = |name: &str| variables.iter().find(|(known, _)| *known == name);
        data_dir(&|name| value(name).map(|(_, value)| PathBuf::from(value)))
    }

    #[test]
    fn the_data_directory_follows_the_conventions() {
        assert_eq!(
            dir(&[("HOME", "/home/ann")]),
            Some("/home/ann/.local/share".into())
        );
        assert_eq!(
            dir(&[("HOME", "/home/ann"), ("XDG_DATA_HOME", "/data")]),
            Some("/data".into())
        );
        assert_eq!(
            dir(&[("HOME", "/h"), ("XDG_DATA_HOME", "data")]),
            Some("/h/.local/share".into())
        );
        assert_eq!(dir(&[("HOME", "")]), None);
    }
}
