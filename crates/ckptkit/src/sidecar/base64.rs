//! Bytes from base64.

/// Reads RFC 4648 with padding; `None` for anything that is not how its encoder writes bytes.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    let text = text.as_bytes();
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let mut groups = text.chunks(4).peekable();
    while let Some(group) = groups.next() {
        let padding = group.iter().rev().take_while(|b| **b == b'=').count();
        if group.len() != 4 || padding > 2 || (padding > 0 && groups.peek().is_some()) {
            return None;
        }
        let bits = group[..4 - padding].iter().try_fold(0_u32, |bits, b| {
            let value = match b {
                b'A'..=b'Z' => b - b'A',
                b'a'..=b'z' => b - b'a' + 26,
                b'0'..=b'9' => b - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            Some(bits << 6 | u32::from(value))
        })? << (6 * padding);
        let [_, bytes @ ..] = bits.to_be_bytes();
        let (kept, dropped) = bytes.split_at(3 - padding);
        if dropped.iter().any(|b| *b != 0) {
            return None;
        }
        out.extend_from_slice(kept);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::decode;
    use crate::json::base64;

    #[test]
    fn what_was_written_is_read() {
        for len in 0..20_u8 {
            let bytes: Vec<u8> = (0..len).map(|i| i.wrapping_mul(83) ^ 0xA5).collect();
            assert_eq!(decode(&base64(&bytes)), Some(bytes));
        }
        for wrong in ["A", "AB", "AB=", "AB=A", "A===", "AB==AB==", "AB!=", "AC==", "AAB=", " AA="]
        {
            assert_eq!(decode(wrong), None, "{wrong}");
        }
        assert_eq!(decode("AA==").unwrap(), [0]);
    }
}
