//! PAX records: `LENGTH KEY=VALUE\n`, where the length counts the whole record.
//!
//! Parsed here because `tar::PaxExtensions` splits at newlines, so that a value may hide a record.

use ckptkit_core::{Error, Result};

use super::header::shown;

/// What records say about the member they precede.
#[derive(Default, Debug, PartialEq, Eq)]
pub(crate) struct Overrides {
    pub(crate) path: Option<Vec<u8>>,
    pub(crate) size: Option<u64>,
    pub(crate) linkpath: bool,
}

/// The records of an `x` header.
pub(crate) fn local(data: &[u8]) -> Result<Overrides> {
    let mut out = Overrides::default();
    for record in records(data) {
        let (key, value) = record?;
        match key {
            b"path" => out.path = Some(value.to_vec()),
            b"linkpath" => out.linkpath = true,
            b"size" => out.size = Some(decimal(value)?),
            key => harmless(key, value)?,
        }
    }
    Ok(out)
}

/// Checks the records of a `g` header, which would hold for every later member.
pub(crate) fn global(data: &[u8]) -> Result<()> {
    for record in records(data) {
        let (key, value) = record?;
        if matches!(key, b"path" | b"size" | b"linkpath") {
            return Err(Error::denied(format!(
                "a global header sets the {} of every later member",
                shown(key)
            )));
        }
        harmless(key, value)?;
    }
    Ok(())
}

fn harmless(key: &[u8], value: &[u8]) -> Result<()> {
    if key.starts_with(b"GNU.sparse.") {
        return Err(super::sparse());
    }
    if key == b"hdrcharset" && value != b"ISO-IR 10646 2000 UTF-8" {
        return Err(Error::unsupported(format!(
            "the names are in the character set {}, expected UTF-8",
            shown(value)
        )));
    }
    Ok(())
}

fn decimal(value: &[u8]) -> Result<u64> {
    std::str::from_utf8(value)
        .ok()
        .filter(|v| v.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|v| v.parse().ok())
        .ok_or_else(|| {
            Error::malformed(format!("the size record holds {}, expected a size", shown(value)))
        })
}

fn records(mut data: &[u8]) -> impl Iterator<Item = Result<(&[u8], &[u8])>> {
    std::iter::from_fn(move || {
        if data.is_empty() {
            return None;
        }
        let Some((record, rest)) = first(data) else {
            let start = &data[..data.len().min(40)];
            data = &[];
            return Some(Err(Error::malformed(format!(
                "the PAX records are malformed from {}",
                shown(start)
            ))));
        };
        data = rest;
        Some(Ok(record))
    })
}

type Record<'a> = (&'a [u8], &'a [u8]);

/// The first record, and what follows it.
fn first(data: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let digits = data.iter().take(20).position(|&b| b == b' ')?;
    let text = std::str::from_utf8(&data[..digits]).ok()?;
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let len: usize = text.parse().ok()?;
    let body = data.get(digits + 1..len)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|&b| b == b'=').filter(|&i| i > 0)?;
    Some(((&body[..equals], &body[equals + 1..]), &data[len..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_hold_newlines_and_hide_nothing() {
        let found = local(b"20 comment=a\n9 path=b\n12 path=x/y\n").unwrap_err();
        assert!(found.to_string().contains("malformed"), "{found}");
        let found = local(b"24 comment=a\n9 path=bcd\n12 path=x/y\n").unwrap();
        assert_eq!(found.path.as_deref(), Some(&b"x/y"[..]));
        for bad in
            [&b"x"[..], b"99 path=a\n", b"3 =\n", b"10 path=ab", b"-9 path=a\n", b" 8 path=\n"]
        {
            assert!(local(bad).is_err(), "{bad:?}");
        }
    }
}
