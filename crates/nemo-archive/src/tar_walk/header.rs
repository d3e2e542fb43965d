//! One 512-byte tar header: its checksum, its numbers, its name.
//!
//! `tar::Header` knows where the fields of each dialect lie. Its numbers are not used: it takes a
//! negative base-256 size for a positive one and drops the high bytes of an over-long one.

use ckptkit_core::{Error, Result};

/// The unit in which tar archives are laid out, in bytes.
pub(crate) const BLOCK: u64 = BLOCK_LEN as u64;
pub(crate) const BLOCK_LEN: usize = 512;
/// Where the checksum lies, which is summed as if it were spaces.
const CHECKSUM: std::ops::Range<usize> = 148..156;

/// The fields of a header that matter here.
pub(crate) struct Fields {
    /// The name as stored, prefix included.
    pub(crate) name: Vec<u8>,
    pub(crate) kind: u8,
    pub(crate) size: u64,
    /// Seconds since 1970; zero where the field cannot be read, since nothing depends on it.
    pub(crate) mtime: u64,
}

/// Whether the block holds nothing but zeros, which ends an archive.
pub(crate) fn is_end(block: &[u8]) -> bool {
    block.iter().all(|&b| b == 0)
}

/// Whether the bytes start with a header whose checksum matches.
pub(crate) fn is_header(head: &[u8]) -> bool {
    head.get(..BLOCK_LEN).is_some_and(|block| !is_end(block) && checksum_matches(block))
}

/// Decodes a block that is no end marker; errors do not yet say where it lies.
pub(crate) fn decode(block: &[u8; BLOCK_LEN]) -> Result<Fields> {
    if !checksum_matches(block) {
        let name = tar::Header::from_byte_slice(block).path_bytes();
        return Err(Error::malformed("the checksum of the tar header does not match")
            .within(format_args!("member {}", shown(&name)))
            .hint("the file is damaged or cut short: copy it again"));
    }
    let header = tar::Header::from_byte_slice(block);
    let old = header.as_old();
    let name = header.path_bytes().into_owned();
    let size = number(&old.size).map_err(|e| e.within(format_args!("member {}", shown(&name))))?;
    Ok(Fields { kind: old.linkflag[0], size, mtime: number(&old.mtime).unwrap_or(0), name })
}

/// A stored name for messages.
pub(crate) fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).escape_debug().collect()
}

fn checksum_matches(block: &[u8]) -> bool {
    let Ok(stored) = number(&block[CHECKSUM]) else { return false };
    let field = 8 * u64::from(b' ');
    let rest = || block[..CHECKSUM.start].iter().chain(&block[CHECKSUM.end..]);
    let unsigned = field + rest().map(|&b| u64::from(b)).sum::<u64>();
    // Some old writers summed signed characters; Python's tarfile takes both.
    let signed = field.checked_add_signed(rest().map(|&b| i64::from(i8::from_ne_bytes([b]))).sum());
    stored == unsigned || Some(stored) == signed
}

/// An octal number, or a base-256 one with the top bit of its first byte set.
fn number(field: &[u8]) -> Result<u64> {
    let bad = |why: &str| {
        Err(Error::malformed(format!("the number {} of the tar header {why}", shown(field))))
    };
    match field[0] {
        0x80 => {
            let (high, low) = field[1..].split_at((field.len() - 1).saturating_sub(8));
            if high.iter().any(|&b| b != 0) {
                return bad("is larger than any file");
            }
            Ok(low.iter().fold(0, |n, &b| n << 8 | u64::from(b)))
        }
        0xff => bad("is negative"),
        0x81..=0xfe => bad("is larger than any file"),
        _ => {
            let text = field.split(|&b| b == 0).next().unwrap_or(&[]);
            let digits = text.trim_ascii();
            digits
                .iter()
                .try_fold(0_u64, |n, &b| match b {
                    b'0'..=b'7' => n.checked_mul(8)?.checked_add(u64::from(b - b'0')),
                    _ => None,
                })
                .map_or_else(|| bad("is not octal"), Ok)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_dialect() {
        assert_eq!(number(b"0000644\0").unwrap(), 0o644);
        assert_eq!(number(b" 644 \0\0\0").unwrap(), 0o644);
        assert_eq!(number(b"\0\0\0\0\0\0\0\0\0\0\0\0").unwrap(), 0);
        assert_eq!(number(b"\x80\0\0\0\0\0\0\x02\0\0\0\0").unwrap(), 8 << 30);
        assert_eq!(number(b"77777777777\0").unwrap(), (8 << 30) - 1);
        for bad in [
            &b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"[..],
            b"\x80\0\0\x01\0\0\0\0\0\0\0\0",
            b"\x81\0\0\0\0\0\0\0\0\0\0\0",
            b"-0000000001\0",
            b"00000000008\0",
            b"0x000000000\0",
        ] {
            assert!(number(bad).is_err(), "{bad:?}");
        }
    }
}
