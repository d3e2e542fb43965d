//! The text forms of protocols 0 and 1.

/// Decodes `raw-unicode-escape`: Latin-1 with `\uXXXX` and `\UXXXXXXXX`. Surrogates stay as they
/// are, in the three bytes that UTF-8 would give them.
pub(super) fn raw_unicode_escape(line: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let mut i = 0;
    while i < line.len() {
        // An even number of backslashes before the `u` means that it is no escape; Python's
        // encoder writes every backslash as an escape itself, so one is always the start.
        let digits = match (line[i], line.get(i + 1)) {
            (b'\\', Some(b'u')) => 4,
            (b'\\', Some(b'U')) => 8,
            _ => {
                push_code_point(u32::from(line[i]), out)?;
                i += 1;
                continue;
            }
        };
        let hex = std::str::from_utf8(line.get(i + 2..i + 2 + digits)?).ok()?;
        push_code_point(u32::from_str_radix(hex, 16).ok()?, out)?;
        i += 2 + digits;
    }
    Some(())
}

/// Decodes the quoted string of the opcode STRING, as Python 2's `repr` writes it.
pub(super) fn quoted_string(line: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let (&quote, rest) = line.split_first()?;
    let body = rest.strip_suffix(&[quote])?;
    if quote != b'\'' && quote != b'"' {
        return None;
    }
    let mut i = 0;
    while i < body.len() {
        if body[i] != b'\\' {
            out.push(body[i]);
            i += 1;
            continue;
        }
        let escape = *body.get(i + 1)?;
        i += 2;
        match escape {
            b'\n' => {}
            b'\\' | b'\'' | b'"' => out.push(escape),
            b'a' => out.push(7),
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'v' => out.push(11),
            b'x' => {
                let hex = std::str::from_utf8(body.get(i..i + 2)?).ok()?;
                out.push(u8::from_str_radix(hex, 16).ok()?);
                i += 2;
            }
            b'0'..=b'7' => {
                let end = (i..body.len().min(i + 2))
                    .find(|&k| !(b'0'..=b'7').contains(&body[k]))
                    .unwrap_or(body.len().min(i + 2));
                let value =
                    body[i - 1..end].iter().fold(0_u32, |v, &d| v * 8 + u32::from(d - b'0'));
                out.push((value & 0xFF) as u8);
                i = end;
            }
            other => out.extend_from_slice(&[b'\\', other]),
        }
    }
    Some(())
}

/// Whether text is UTF-8 in which lone surrogates may stand, as Python's `surrogatepass` writes it.
#[inline]
pub(super) fn is_wtf8(bytes: &[u8]) -> bool {
    bytes.is_ascii() || is_wide_wtf8(bytes)
}

fn is_wide_wtf8(mut bytes: &[u8]) -> bool {
    loop {
        match std::str::from_utf8(bytes) {
            Ok(_) => return true,
            Err(e) => match bytes[e.valid_up_to()..] {
                [0xED, 0xA0..=0xBF, 0x80..=0xBF, ref rest @ ..] => bytes = rest,
                _ => return false,
            },
        }
    }
}

fn push_code_point(c: u32, out: &mut Vec<u8>) -> Option<()> {
    if let Some(c) = char::from_u32(c) {
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    } else if (0xD800..0xE000).contains(&c) {
        let low = |shift: u32| 0x80 | ((c >> shift) & 0x3F) as u8;
        out.extend_from_slice(&[0xED, low(6), low(0)]);
    } else {
        return None;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn surrogates_are_text() {
        assert!(is_wtf8("a€😀".as_bytes()));
        assert!(is_wtf8(b"a\xED\xA0\x80b\xED\xBF\xBF"));
        assert!(!is_wtf8(b"\xED\xA0"));
        assert!(!is_wtf8(b"\xF8"));
    }

    #[test]
    fn escapes() {
        let decode = |f: fn(&[u8], &mut Vec<u8>) -> Option<()>, s: &[u8]| {
            let mut out = Vec::new();
            f(s, &mut out).map(|()| out)
        };
        assert_eq!(
            decode(raw_unicode_escape, b"a\\u20ac\xe9\\U0001f600").unwrap(),
            "a€é😀".as_bytes()
        );
        assert_eq!(decode(raw_unicode_escape, b"\\ud800").unwrap(), [0xED, 0xA0, 0x80]);
        assert_eq!(decode(raw_unicode_escape, b"\\u12"), None);
        assert_eq!(decode(quoted_string, br"'a\x00\n\'\\\101\0'").unwrap(), b"a\0\n'\\A\0");
        assert_eq!(decode(quoted_string, b"'open"), None);
    }
}
