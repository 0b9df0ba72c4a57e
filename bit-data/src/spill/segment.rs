//! One spill file: records one after the other, each at a multiple of 64 bytes, as is each body.

use std::{
    fs::{self, File},
    io::{self, IoSlice, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use record_batch::Checksum;
use rpc_bus::ledger::Charge;

use super::{SpillError, SpillRecord};

/// Arrow's buffers are at multiples of this in a body, and so must the body be.
pub(super) const ALIGNMENT: usize = 64;
/// Pieces that one call writes at most; the limit of the kernel is 1,024.
const PIECES_MAX: usize = 512;
static PADDING: [u8; ALIGNMENT] = [0; ALIGNMENT];

/// Creates the file of a segment; tests have other files.
pub(super) type CreateFile = fn(&Path) -> io::Result<File>;

/// Creates a new file that can be written and read back.
pub(super) fn create_file(path: &Path) -> io::Result<File> {
    File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)
}

/// A file; deleted when dropped.
#[derive(Debug)]
pub(super) struct Segment {
    path: PathBuf,
    file: File,
    /// An open file.
    _open: Charge,
}

/// Where a record is.
#[derive(Clone, Debug)]
pub(super) struct Span {
    pub(super) segment: Arc<Segment>,
    pub(super) offset: u64,
    header_bytes: usize,
    body_bytes: usize,
    crc: u32,
}

/// Bytes that `record` takes in a file.
pub(super) fn disk_bytes(record: &SpillRecord) -> usize {
    padded(record.header.len()) + padded(record.body_bytes())
}

fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGNMENT)
}

impl Segment {
    pub(super) fn create(
        path: PathBuf,
        create: CreateFile,
        open: Charge,
    ) -> Result<Self, SpillError> {
        match create(&path) {
            Ok(file) => Ok(Self {
                path,
                file,
                _open: open,
            }),
            Err(source) => Err(failed("create", &path, source)),
        }
    }

    /// Writes `records` at `offset`, which is the end of the file, and says where each of them is.
    pub(super) fn append(
        self: &Arc<Self>,
        mut offset: u64,
        records: &[SpillRecord],
    ) -> Result<Vec<Span>, SpillError> {
        let pieces: Vec<_> = records.iter().flat_map(pieces).map(IoSlice::new).collect();
        let mut file = &self.file;
        for pieces in pieces.chunks(PIECES_MAX) {
            write_all(&mut file, &mut pieces.to_vec())
                .map_err(|error| failed("write", &self.path, error))?;
        }
        let span = |record: &SpillRecord| {
            let span = self.span(offset, record);
            offset += disk_bytes(record) as u64;
            span
        };
        Ok(records.iter().map(span).collect())
    }

    fn span(self: &Arc<Self>, offset: u64, record: &SpillRecord) -> Span {
        Span {
            segment: Arc::clone(self),
            offset,
            header_bytes: record.header.len(),
            body_bytes: record.body_bytes(),
            crc: checksum(record),
        }
    }

    /// Reads records that follow each other in the file, into memory that `charge` stands for.
    pub(super) fn read(spans: &[Span], charge: Charge) -> Result<Vec<SpillRecord>, SpillError> {
        let Some(first) = spans.first() else {
            return Ok(Vec::new());
        };
        let bytes = spans.iter().map(Span::disk_bytes).sum();
        let mut buffer = Aligned::new(bytes, charge);
        let segment = &first.segment;
        let read = segment.file.read_exact_at(buffer.as_mut(), first.offset);
        read.map_err(|error| failed("read", &segment.path, error))?;
        let mut rest = Bytes::from_owner(buffer);
        let cut = |span: &Span| segment.checked(span, &rest.split_to(span.disk_bytes()));
        spans.iter().map(cut).collect()
    }

    fn checked(&self, span: &Span, bytes: &Bytes) -> Result<SpillRecord, SpillError> {
        let body = padded(span.header_bytes);
        let record = SpillRecord {
            header: bytes.slice(..span.header_bytes),
            body: vec![bytes.slice(body..body + span.body_bytes)],
        };
        let actual = checksum(&record);
        if actual != span.crc {
            return Err(SpillError::Damaged {
                path: self.path.clone(),
                offset: span.offset,
                expected: span.crc,
                actual,
            });
        }
        Ok(record)
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // The next start deletes what cannot be deleted now.
        let _ = fs::remove_file(&self.path);
    }
}

impl Span {
    pub(super) fn disk_bytes(&self) -> usize {
        padded(self.header_bytes) + padded(self.body_bytes)
    }

    /// Whether `next` is what follows it in the same file.
    pub(super) fn is_followed_by(&self, next: &Self) -> bool {
        Arc::ptr_eq(&self.segment, &next.segment)
            && self.offset + self.disk_bytes() as u64 == next.offset
    }
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> SpillError {
    SpillError::File {
        action,
        path: path.to_owned(),
        source: Arc::new(source),
    }
}

fn checksum(record: &SpillRecord) -> u32 {
    let mut sum = Checksum::new();
    sum.update(&record.header);
    record.body.iter().for_each(|piece| sum.update(piece));
    sum.finish()
}

fn pieces(record: &SpillRecord) -> impl Iterator<Item = &[u8]> {
    let padding = |bytes: usize| &PADDING[..padded(bytes) - bytes];
    let header = [&record.header[..], padding(record.header.len())];
    let body = record.body.iter().map(|piece| &piece[..]);
    header
        .into_iter()
        .chain(body)
        .chain([padding(record.body_bytes())])
}

fn write_all(file: &mut impl Write, mut pieces: &mut [IoSlice<'_>]) -> io::Result<()> {
    // Leaves out empty pieces at the front: a write of nothing must be told from a write that gets nowhere.
    IoSlice::advance_slices(&mut pieces, 0);
    while !pieces.is_empty() {
        match file.write_vectored(pieces) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut pieces, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Memory that begins at a multiple of 64 bytes, and what it is charged to.
struct Aligned {
    memory: Vec<u8>,
    start: usize,
    _charge: Charge,
}

impl Aligned {
    fn new(bytes: usize, charge: Charge) -> Self {
        let memory = vec![0; bytes + ALIGNMENT];
        let start = memory.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        Self {
            memory,
            start,
            _charge: charge,
        }
    }

    fn end(&self) -> usize {
        self.start + self.memory.len() - ALIGNMENT
    }
}

impl AsRef<[u8]> for Aligned {
    fn as_ref(&self) -> &[u8] {
        &self.memory[self.start..self.end()]
    }
}

impl AsMut<[u8]> for Aligned {
    fn as_mut(&mut self) -> &mut [u8] {
        let end = self.end();
        &mut self.memory[self.start..end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes at most so many bytes a call, and now and then is interrupted.
    struct Slow(usize, Vec<u8>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += 1;
            if self.0.is_multiple_of(3) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let bytes = &bytes[..bytes.len().min(7)];
            self.1.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn all_pieces_are_written_however_few_bytes_a_call_takes() {
        let pieces: [&[u8]; 5] = [b"", b"0123456789", b"", b"abc", b""];
        let mut slow = Slow(0, Vec::new());
        write_all(&mut slow, &mut pieces.map(IoSlice::new)).unwrap();
        assert_eq!(slow.1, b"0123456789abc");
    }

    #[test]
    fn a_file_that_takes_nothing_is_an_error() {
        let error = write_all(&mut &mut [][..], &mut [IoSlice::new(b"abc")]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WriteZero);
    }
}
