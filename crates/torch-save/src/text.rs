//! Values as Python prints them: for keys that are not text, and for messages.

use crate::numpy::raw_bytes;
use crate::pickle::{Kind, NodeRef, decimal};

const MAX_DEPTH: usize = 8;
const MAX_LEN: usize = 200;

/// `repr(value)` for plain values, cut short where it would grow long.
pub(crate) fn repr(node: NodeRef<'_>) -> String {
    let mut out = String::new();
    push(node, 0, &mut out);
    out
}

/// Text of a key: the text itself where it is text, else as Python prints it.
pub(crate) fn key(node: NodeRef<'_>) -> ckptkit_core::Key {
    match node.kind() {
        Kind::Str(s) => ckptkit_core::Key::Str(match std::str::from_utf8(s) {
            Ok(text) => text.into(),
            Err(_) => lossy(s).into(),
        }),
        _ => ckptkit_core::Key::Other(repr(node).into()),
    }
}

/// The name of a class or function, `module.name`; also of one that is looked up in another, as
/// protocols below 4 say it: `getattr(Outer, 'Inner')`.
pub(crate) fn qualified(node: NodeRef<'_>) -> Option<String> {
    let mut inner: Vec<&str> = Vec::new();
    let mut at = node;
    loop {
        if let Some(g) = at.as_global() {
            let outer = g.to_string();
            return Some(inner.iter().rev().fold(outer, |name, part| format!("{name}.{part}")));
        }
        let (callable, _) = at.callable()?;
        let [of, name] = at.arguments(3)[..] else { return None };
        if inner.len() >= MAX_DEPTH || !callable.as_global()?.is("builtins", "getattr") {
            return None;
        }
        inner.push(name.as_str()?);
        at = of;
    }
}

/// Text with every lone surrogate written as an escape, so that no two texts become one.
pub(crate) fn lossy(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        for b in chunk.invalid() {
            out.push_str(&format!("\\x{b:02x}"));
        }
    }
    out
}

/// A float as Python prints it.
pub(crate) fn float(f: f64) -> String {
    if f.is_nan() {
        return "nan".into();
    }
    if f.is_infinite() {
        return if f > 0.0 { "inf".into() } else { "-inf".into() };
    }
    let magnitude = f.abs();
    if magnitude != 0.0 && !(1e-4..1e16).contains(&magnitude) {
        let s = format!("{f:e}");
        let (mantissa, exponent) = s.split_once('e').unwrap_or((&s, "0"));
        let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |d| ('-', d));
        return format!("{mantissa}e{sign}{digits:0>2}");
    }
    format!("{f:?}")
}

/// Bytes as Python prints them.
pub(crate) fn bytes(bytes: &[u8]) -> String {
    let quote = if bytes.contains(&b'\'') && !bytes.contains(&b'"') { '"' } else { '\'' };
    let mut out = format!("b{quote}");
    for &b in bytes {
        match b {
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            b'\'' if quote == '\'' => out.push_str("\\'"),
            b' '..=b'~' => out.push(char::from(b)),
            b => out.push_str(&format!("\\x{b:02x}")),
        }
    }
    out.push(quote);
    out
}

fn push(node: NodeRef<'_>, depth: usize, out: &mut String) {
    if depth > MAX_DEPTH || out.len() > MAX_LEN {
        out.push('…');
        return;
    }
    match node.kind() {
        Kind::None => out.push_str("None"),
        Kind::Bool(true) => out.push_str("True"),
        Kind::Bool(false) => out.push_str("False"),
        Kind::Int(i) => out.push_str(&i.to_string()),
        Kind::BigInt(b) => out.push_str(&decimal(b)),
        Kind::Float(f) => out.push_str(&float(f)),
        Kind::Str(s) => out.push_str(&format!("'{}'", lossy(s))),
        Kind::Bytes(s) => out.push_str(&bytes(s)),
        Kind::Tuple(items) => {
            out.push('(');
            for (i, &item) in items.iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                push(node.other(item), depth + 1, out);
                if out.len() > MAX_LEN {
                    break;
                }
            }
            out.push_str(if items.len() == 1 { ",)" } else { ")" });
        }
        Kind::Global(g) => out.push_str(&g.to_string()),
        // As the call that makes one below protocol 4.
        Kind::FrozenSet(_) => out.push_str("<builtins.frozenset>"),
        // Below protocol 3 bytes are a call that makes them.
        Kind::Reduce { .. } if raw_bytes(node).is_some() => {
            out.push_str(&bytes(&raw_bytes(node).unwrap_or_default()));
        }
        _ => match node.class() {
            Some(class) => out.push_str(&format!("<{class}>")),
            None => out.push_str("<object>"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_print_as_in_python() {
        // repr() of CPython 3.11.
        assert_eq!(bytes(b"a'\n\x00\xff\\"), r#"b"a'\n\x00\xff\\""#);
        assert_eq!(bytes(b"'\""), r#"b'\'"'"#);
    }

    #[test]
    fn floats_print_as_in_python() {
        // repr() of CPython 3.11.
        for (f, s) in [
            (1.0, "1.0"),
            (0.1, "0.1"),
            (1e-5, "1e-05"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (-0.0, "-0.0"),
            (123456.789, "123456.789"),
            (1e15, "1000000000000000.0"),
        ] {
            assert_eq!(float(f), s);
        }
    }
}
