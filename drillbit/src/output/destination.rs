//! Where rendered bytes go: standard output, or a file that appears only when it is complete.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Takes bytes and counts them.
pub(crate) struct Destination {
    sink: Sink,
    bytes: u64,
}

enum Sink {
    Writer(Box<dyn Write + Send>),
    /// Written beside its final place and moved there by [`Destination::commit`].
    Part {
        file: File,
        part: PathBuf,
        path: PathBuf,
    },
}

impl Destination {
    /// Standard output.
    pub(crate) fn stdout() -> Self {
        Self::writer(Box::new(io::stdout()))
    }

    /// Any writer.
    pub(crate) fn writer(writer: Box<dyn Write + Send>) -> Self {
        Self {
            sink: Sink::Writer(writer),
            bytes: 0,
        }
    }

    /// A file. A regular or new file is replaced as a whole on commit and left as it was otherwise;
    /// anything else (a device, a pipe) is written to directly.
    ///
    /// # Errors
    /// The file cannot be created.
    pub(crate) fn file(path: &Path) -> io::Result<Self> {
        // Through a link, so that the link stays.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        match fs::metadata(&path) {
            Ok(known) if known.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
            Ok(known) if !known.is_file() => Ok(Self::writer(Box::new(
                OpenOptions::new().write(true).open(path)?,
            ))),
            _ => Self::part(path),
        }
    }

    fn part(path: PathBuf) -> io::Result<Self> {
        let part = part_path(&path);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&part)?;
        if let Ok(known) = fs::metadata(&path) {
            file.set_permissions(known.permissions())?;
        }
        Ok(Self {
            sink: Sink::Part { file, part, path },
            bytes: 0,
        })
    }

    /// Writes all of `bytes` and empties it.
    ///
    /// # Errors
    /// As the sink says; `BrokenPipe` when nobody reads any more.
    pub(crate) fn take(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        let sink: &mut dyn Write = match &mut self.sink {
            Sink::Writer(writer) => writer,
            Sink::Part { file, .. } => file,
        };
        sink.write_all(bytes)?;
        sink.flush()?;
        self.bytes += bytes.len() as u64;
        bytes.clear();
        Ok(())
    }

    /// Bytes written so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Puts a file in its place.
    ///
    /// # Errors
    /// The file cannot be renamed.
    pub(crate) fn commit(mut self) -> io::Result<()> {
        let writer: Box<dyn Write + Send> = Box::new(io::sink());
        let sink = std::mem::replace(&mut self.sink, Sink::Writer(writer));
        let Sink::Part { file, part, path } = sink else {
            return Ok(());
        };
        drop(file);
        fs::rename(&part, &path).inspect_err(|_| discard(&part))
    }
}

impl Drop for Destination {
    fn drop(&mut self) {
        if let Sink::Part { part, .. } = &self.sink {
            discard(part);
        }
    }
}

fn discard(part: &Path) {
    if let Err(error) = fs::remove_file(part) {
        tracing::warn!(part = %part.display(), %error, "cannot remove the unfinished file");
    }
}

/// `.NAME.PID.part` in the same folder, so that the rename stays within one file system.
fn part_path(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}.part", std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(destination: &mut Destination, text: &str) {
        destination.take(&mut text.as_bytes().to_vec()).unwrap();
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[test]
    fn a_file_appears_on_commit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.csv");
        let mut destination = Destination::file(&path).unwrap();
        write(&mut destination, "a,b\n");
        assert!(!path.exists());
        assert_eq!(destination.bytes(), 4);
        destination.commit().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "a,b\n");
        assert_eq!(names(folder.path()), ["out.csv"]);
    }

    #[test]
    fn without_commit_the_old_file_stays_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.csv");
        fs::write(&path, "old").unwrap();
        let mut destination = Destination::file(&path).unwrap();
        write(&mut destination, "half");
        drop(destination);
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(names(folder.path()), ["out.csv"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_a_link_and_permissions_stay() {
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        let folder = tempfile::tempdir().unwrap();
        let (target, link) = (folder.path().join("target"), folder.path().join("link"));
        fs::write(&target, "old").unwrap();
        fs::set_permissions(&target, fs::Permissions::from_mode(0o640)).unwrap();
        symlink(&target, &link).unwrap();
        let mut destination = Destination::file(&link).unwrap();
        write(&mut destination, "new");
        destination.commit().unwrap();
        assert!(link.is_symlink());
        assert_eq!(fs::read_to_string(&target).unwrap(), "new");
        assert_eq!(
            fs::metadata(&target).unwrap().permissions().mode() & 0o777,
            0o640
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_device_is_written_to_and_not_replaced() {
        let mut destination = Destination::file(Path::new("/dev/null")).unwrap();
        write(&mut destination, "gone");
        destination.commit().unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }

    #[test]
    fn a_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error = Destination::file(folder.path()).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::IsADirectory);
    }
}
