//! How ZooKeeper writes values: numbers with the high byte first, bytes and text after their length.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::error::Error;

/// Reads the values of one message, and never beyond its end.
#[derive(Debug)]
pub(super) struct Reader(Bytes);

impl Reader {
    pub(super) fn new(message: Bytes) -> Self {
        Self(message)
    }

    pub(super) fn i32(&mut self) -> Result<i32, Error> {
        self.0.try_get_i32().map_err(|_| Error::Malformed)
    }

    pub(super) fn i64(&mut self) -> Result<i64, Error> {
        self.0.try_get_i64().map_err(|_| Error::Malformed)
    }

    /// Bytes; a length of -1 is written for none.
    pub(super) fn bytes(&mut self) -> Result<Bytes, Error> {
        let length = match self.i32()? {
            -1 => 0,
            length => usize::try_from(length).map_err(|_| Error::Malformed)?,
        };
        if length > self.0.len() {
            return Err(Error::Malformed);
        }
        Ok(self.0.split_to(length))
    }

    pub(super) fn text(&mut self) -> Result<String, Error> {
        String::from_utf8(self.bytes()?.into()).map_err(|_| Error::Malformed)
    }

    /// A list of texts. Room for them is made as they come.
    pub(super) fn texts(&mut self) -> Result<Vec<String>, Error> {
        let count = self.i32()?.max(0);
        (0..count).map(|_| self.text()).collect()
    }
}

/// Writes bytes after their length.
pub(super) fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    let length = i32::try_from(bytes.len()).expect("invariant: what is written here is short");
    out.put_i32(length);
    out.put_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_off_anywhere_is_an_error() {
        let mut whole = BytesMut::new();
        whole.put_i32(2);
        put_bytes(&mut whole, b"one");
        put_bytes(&mut whole, b"two");
        let whole = whole.freeze();
        assert_eq!(Reader::new(whole.clone()).texts().unwrap(), ["one", "two"]);
        for end in 0..whole.len() {
            assert!(Reader::new(whole.slice(..end)).texts().is_err(), "{end}");
        }
    }

    #[test]
    fn a_length_that_cannot_be_allocates_nothing() {
        for length in [-2, i32::MIN, i32::MAX] {
            let mut odd = BytesMut::new();
            odd.put_i32(length);
            assert!(Reader::new(odd.clone().freeze()).bytes().is_err());
        }
        let mut many = BytesMut::new();
        many.put_i32(i32::MAX);
        assert!(Reader::new(many.freeze()).texts().is_err());
        let mut none = BytesMut::new();
        none.put_i32(-1);
        assert_eq!(Reader::new(none.freeze()).bytes().unwrap(), Bytes::new());
    }
}
