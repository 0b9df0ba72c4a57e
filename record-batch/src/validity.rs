//! Validity: Arrow has a bit per row, Drill's `$bits$` vector a byte per row.
// wire: drill@051b164 exec/vector/src/main/codegen/templates/NullableValueVectors.java

use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer};

/// The eight bytes, 0 or 1, that stand for the eight bits of a byte.
const SPREAD: [[u8; 8]; 256] = spread_table();

/// How many bytes are looked at together for a null among them.
const BLOCK_BYTES: usize = 64;

const fn spread_table() -> [[u8; 8]; 256] {
    let mut table = [[0; 8]; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut bit = 0;
        while bit < 8 {
            table[byte][bit] = if byte & (1 << bit) == 0 { 0 } else { 1 };
            bit += 1;
        }
        byte += 1;
    }
    table
}

/// Packs Drill's bytes into bits. Every byte but 0 means present, as Drill's readers take it.
/// `None` when no row is null.
pub(crate) fn pack(bytes: &[u8]) -> Option<NullBuffer> {
    let all_present = |block: &[u8]| block.iter().copied().fold(u8::MAX, u8::min) != 0;
    // In blocks: where there are nulls, the first is soon found.
    if bytes.chunks(BLOCK_BYTES).all(all_present) {
        return None;
    }
    let (words, rest) = bytes.as_chunks::<8>();
    let mut packed: Vec<u8> = Vec::with_capacity(bytes.len().div_ceil(8));
    packed.extend(words.iter().map(|&word| pack_word(word)));
    if !rest.is_empty() {
        let mut word = [0; 8];
        word[..rest.len()].copy_from_slice(rest);
        packed.push(pack_word(word));
    }
    let bits = BooleanBuffer::new(Buffer::from_vec(packed), 0, bytes.len());
    Some(NullBuffer::new(bits))
}

/// Eight bytes into eight bits: first every byte to 0 or 1, then a multiplication moves the eight
/// low bits into the top byte, where none of the partial products meet.
fn pack_word(word: [u8; 8]) -> u8 {
    const LOW_7: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    const GATHER: u64 = 0x0102_0408_1020_4080;
    let word = u64::from_le_bytes(word);
    let set = ((((word & LOW_7) + LOW_7) | word) & HIGH) >> 7;
    set.wrapping_mul(GATHER).to_be_bytes()[0]
}

/// Unpacks bits into Drill's bytes, 1 for present.
pub(crate) fn unpack(nulls: &NullBuffer) -> Vec<u8> {
    let bits = nulls.inner();
    let chunks = bits.bit_chunks();
    let mut bytes = Vec::with_capacity(bits.len().next_multiple_of(64));
    for word in chunks.iter() {
        push_word(&mut bytes, word);
    }
    push_word(&mut bytes, chunks.remainder_bits());
    bytes.truncate(bits.len());
    bytes
}

fn push_word(bytes: &mut Vec<u8>, word: u64) {
    let mut spread = [[0; 8]; 8];
    for (spread, byte) in spread.iter_mut().zip(word.to_le_bytes()) {
        *spread = SPREAD[usize::from(byte)];
    }
    bytes.extend_from_slice(spread.as_flattened());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_packs_and_unpacks() {
        for pattern in 0..=255_u8 {
            let bytes: Vec<u8> = (0..8).map(|bit| (pattern >> bit) & 1).collect();
            let nulls = pack(&bytes);
            let valid: Vec<bool> = bytes.iter().map(|&byte| byte == 1).collect();
            match nulls {
                Some(nulls) => {
                    assert_eq!(nulls, NullBuffer::from(valid));
                    assert_eq!(unpack(&nulls), bytes);
                }
                None => assert_eq!(pattern, 255),
            }
        }
    }

    #[test]
    fn any_byte_but_zero_is_present() {
        for byte in 1..=255 {
            let nulls = pack(&[0, byte, 0, byte, byte, 0, 0, 0, 0, byte]).unwrap();
            let expected = [
                false, true, false, true, true, false, false, false, false, true,
            ];
            assert_eq!(nulls, NullBuffer::from(expected.to_vec()));
        }
    }

    #[test]
    fn slices_of_every_offset_and_length_unpack() {
        let valid: Vec<bool> = (0..200).map(|row| row % 3 != 0 && row % 7 != 1).collect();
        let nulls = NullBuffer::from(valid.clone());
        for offset in 0..70 {
            for len in [0, 1, 7, 8, 63, 64, 65, 130] {
                let expected: Vec<u8> = valid[offset..offset + len]
                    .iter()
                    .map(|&v| u8::from(v))
                    .collect();
                assert_eq!(unpack(&nulls.slice(offset, len)), expected);
            }
        }
    }
}
