//! Compressing bodies. The decoded size travels beside the body and is checked before anything is allocated.

use bytes::Bytes;

/// What a body is compressed with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Codec {
    /// Not at all.
    #[default]
    None,
    /// LZ4, one block.
    Lz4,
    /// ZSTD, one frame, level 1.
    Zstd,
    /// Snappy, one raw block.
    Snappy,
}

/// A body that does not decompress to what was announced.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// More than this side allows.
    #[error("{decoded_bytes} bytes announced, at most {bytes_max} allowed")]
    TooLarge {
        /// As announced.
        decoded_bytes: usize,
        /// As configured.
        bytes_max: usize,
    },
    /// More than the codec can make of so few bytes.
    #[error("{decoded_bytes} bytes announced from {encoded_bytes}, which {codec:?} cannot hold")]
    Implausible {
        /// The codec.
        codec: Codec,
        /// As announced.
        decoded_bytes: usize,
        /// Bytes that came.
        encoded_bytes: usize,
    },
    /// The bytes are not of the codec, or of another length.
    #[error("damaged {codec:?} data: {message}")]
    Damaged {
        /// The codec.
        codec: Codec,
        /// The codec's words.
        message: String,
    },
}

impl Codec {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::None, Self::Lz4, Self::Zstd, Self::Snappy];

    /// The level of ZSTD that keeps up with a network.
    const ZSTD_LEVEL: i32 = 1;

    /// Compresses the pieces of a body into one; without a codec they stay as they are.
    #[must_use]
    #[expect(
        clippy::missing_panics_doc,
        reason = "the codecs size their output themselves"
    )]
    pub fn compress(self, pieces: Vec<Bytes>) -> Vec<Bytes> {
        const ROOM: &str = "invariant: the output is sized for the worst case";
        let joined = || match pieces.as_slice() {
            [one] => one.clone(),
            many => Bytes::from(many.concat()),
        };
        let block = match self {
            Self::None => return pieces,
            Self::Lz4 => lz4_flex::block::compress(&joined()),
            Self::Zstd => zstd::bulk::compress(&joined(), Self::ZSTD_LEVEL).expect(ROOM),
            Self::Snappy => snap::raw::Encoder::new()
                .compress_vec(&joined())
                .expect(ROOM),
        };
        vec![Bytes::from(block)]
    }

    /// Decompresses a body that is announced to have `decoded_bytes`.
    ///
    /// # Errors
    ///
    /// The announcement is above `bytes_max` or cannot be true, the bytes are damaged, or they hold another number.
    pub fn decompress(
        self,
        body: &Bytes,
        decoded_bytes: usize,
        bytes_max: usize,
    ) -> Result<Bytes, CodecError> {
        if decoded_bytes > bytes_max {
            return Err(CodecError::TooLarge {
                decoded_bytes,
                bytes_max,
            });
        }
        if self == Self::None {
            self.expect_length(body.len(), decoded_bytes)?;
            return Ok(body.clone());
        }
        self.expect_plausible(body.len(), decoded_bytes)?;
        // Zeroed memory of this size is not touched before something is written into it.
        let mut decoded = vec![0; decoded_bytes];
        let actual = self.decompress_block(body, &mut decoded)?;
        self.expect_length(actual, decoded_bytes)?;
        Ok(Bytes::from(decoded))
    }

    fn decompress_block(self, bytes: &[u8], out: &mut [u8]) -> Result<usize, CodecError> {
        match self {
            Self::None => Ok(0),
            Self::Lz4 => {
                lz4_flex::block::decompress_into(bytes, out).map_err(|error| self.damaged(&error))
            }
            Self::Zstd => {
                zstd::bulk::decompress_to_buffer(bytes, out).map_err(|error| self.damaged(&error))
            }
            Self::Snappy => snap::raw::Decoder::new()
                .decompress(bytes, out)
                .map_err(|error| self.damaged(&error)),
        }
    }

    /// The most that a byte can become, where the format has such a limit.
    fn expansion_max(self) -> Option<usize> {
        match self {
            Self::None => Some(1),
            // A byte of length stands for 255 bytes.
            Self::Lz4 => Some(255),
            // A copy of three bytes stands for 64.
            Self::Snappy => Some(32),
            Self::Zstd => None,
        }
    }

    fn expect_plausible(
        self,
        encoded_bytes: usize,
        decoded_bytes: usize,
    ) -> Result<(), CodecError> {
        let max = self.expansion_max();
        let holds = |max: usize| decoded_bytes <= encoded_bytes.saturating_mul(max);
        if max.is_none_or(holds) {
            return Ok(());
        }
        let codec = self;
        Err(CodecError::Implausible {
            codec,
            decoded_bytes,
            encoded_bytes,
        })
    }

    fn expect_length(self, actual: usize, announced: usize) -> Result<(), CodecError> {
        if actual == announced {
            return Ok(());
        }
        Err(self.damaged(&format_args!("{actual} bytes, {announced} announced")))
    }

    fn damaged(self, message: &dyn std::fmt::Display) -> CodecError {
        CodecError::Damaged {
            codec: self,
            message: message.to_string(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const LIMIT: usize = 1 << 20;

    fn body() -> Bytes {
        (0..10_000_u32)
            .flat_map(|n| (n / 7).to_le_bytes())
            .collect()
    }

    fn compressed(codec: Codec, body: &Bytes) -> Bytes {
        let pieces = vec![body.slice(..999), body.slice(999..)];
        Bytes::from(codec.compress(pieces).concat())
    }

    #[test]
    fn bodies_come_back_and_shrink() {
        for codec in Codec::ALL {
            let encoded = compressed(codec, &body());
            assert_eq!(
                encoded.len() < body().len(),
                codec != Codec::None,
                "{codec:?}"
            );
            let decoded = codec.decompress(&encoded, body().len(), LIMIT);
            assert_eq!(decoded, Ok(body()), "{codec:?}");
        }
    }

    #[test]
    fn an_empty_body_comes_back() {
        for codec in Codec::ALL {
            let encoded = Bytes::from(codec.compress(vec![Bytes::new()]).concat());
            assert_eq!(
                codec.decompress(&encoded, 0, LIMIT),
                Ok(Bytes::new()),
                "{codec:?}"
            );
        }
    }

    #[test]
    fn what_repeats_most_is_still_plausible() {
        let zeros = Bytes::from(vec![0; LIMIT]);
        for codec in Codec::ALL {
            let encoded = Bytes::from(codec.compress(vec![zeros.clone()]).concat());
            let decoded = codec.decompress(&encoded, LIMIT, LIMIT);
            assert_eq!(decoded.as_ref(), Ok(&zeros), "{codec:?}");
        }
    }

    #[test]
    fn a_small_body_that_claims_a_gigabyte_is_refused() {
        let body = Bytes::from(vec![7; 1024]);
        for codec in Codec::ALL {
            let refused = codec.decompress(&body, 1 << 30, 256 << 20).unwrap_err();
            assert!(matches!(refused, CodecError::TooLarge { .. }), "{refused}");
        }
        for codec in [Codec::Lz4, Codec::Snappy] {
            let refused = codec.decompress(&body, 1 << 20, 256 << 20).unwrap_err();
            assert!(
                matches!(refused, CodecError::Implausible { .. }),
                "{refused}"
            );
        }
    }

    #[test]
    fn another_length_than_announced_is_damage() {
        for codec in Codec::ALL {
            let encoded = compressed(codec, &body());
            for announced in [body().len() - 1, body().len() + 1] {
                let refused = codec.decompress(&encoded, announced, LIMIT).unwrap_err();
                assert!(matches!(refused, CodecError::Damaged { .. }), "{refused}");
            }
        }
    }

    #[test]
    fn damaged_bodies_never_panic() {
        let body = body().slice(..1200);
        for codec in Codec::ALL {
            let encoded = Bytes::from(codec.compress(vec![body.clone()]).concat());
            for at in 0..encoded.len() {
                let mut damaged = encoded.to_vec();
                damaged[at] ^= 0x55;
                // Damage that no codec sees is the checksum's to find.
                let _ = codec.decompress(&damaged.into(), body.len(), LIMIT);
                let _ = codec.decompress(&encoded.slice(..at), body.len(), LIMIT);
            }
        }
    }
}
