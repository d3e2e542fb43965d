//! Objects whose plain form is their text: paths, dates, numbers of any precision.

use crate::numpy::raw_bytes;
use crate::pickle::{Global, Kind, NodeRef};
use crate::text;

/// A date, a time, a decimal, a fraction or a UUID in its usual text, as `str()` or `isoformat()`
/// gives it; a timedelta as `str()` gives it.
pub(crate) fn moment(node: NodeRef<'_>, g: Global<'_>, args: &[NodeRef<'_>]) -> Option<String> {
    match (g.module, g.name) {
        ("decimal", "Decimal") => Some(args.first()?.as_str()?.to_owned()),
        ("fractions", "Fraction") => match args {
            [text] => Some(text.as_str()?.to_owned()),
            [above, below] if below.as_int() == Some(1) => Some(text::repr(*above)),
            [above, below] => {
                above.as_int().or(below.as_int())?;
                Some(format!("{}/{}", text::repr(*above), text::repr(*below)))
            }
            _ => None,
        },
        ("uuid", "UUID") if args.is_empty() => uuid(node),
        ("datetime", "timedelta") => timedelta(args),
        ("datetime", "date") => {
            let [raw] = args else { return None };
            let [y1, y0, m, d] = raw_bytes(*raw)?[..] else { return None };
            Some(format!("{:04}-{m:02}-{d:02}", u16::from_be_bytes([y1, y0])))
        }
        ("datetime", "datetime") => {
            let b = raw_bytes(*args.first()?)?;
            let [y1, y0, m, d, hour, minute, second, u2, u1, u0] = b[..] else { return None };
            // The highest bit of the month says which of two equal times it was.
            let day = format!("{:04}-{:02}-{d:02}", u16::from_be_bytes([y1, y0]), m & 0x7F);
            let clock = clock(hour, minute, second, [u2, u1, u0]);
            Some(format!("{day}T{clock}{}", zone(args.get(1))?))
        }
        ("datetime", "time") => {
            let b = raw_bytes(*args.first()?)?;
            let [hour, minute, second, u2, u1, u0] = b[..] else { return None };
            Some(format!(
                "{}{}",
                clock(hour & 0x7F, minute, second, [u2, u1, u0]),
                zone(args.get(1))?
            ))
        }
        _ => None,
    }
}

/// `isoformat()`: microseconds only where there are some.
fn clock(hour: u8, minute: u8, second: u8, micros: [u8; 3]) -> String {
    let micros = u32::from_be_bytes([0, micros[0], micros[1], micros[2]]);
    let base = format!("{hour:02}:{minute:02}:{second:02}");
    if micros == 0 { base } else { format!("{base}.{micros:06}") }
}

/// `+01:00` for a fixed offset; `[Europe/Berlin]` for a zone whose rules are not in the file.
fn zone(tz: Option<&NodeRef<'_>>) -> Option<String> {
    let Some(tz) = tz.filter(|tz| !tz.is_none()) else { return Some(String::new()) };
    let (callable, args) = tz.call()?;
    let is_fixed = callable.as_global().is_some_and(|g| g.is("datetime", "timezone"));
    if !is_fixed {
        let name = args.iter().find_map(|a| a.as_str());
        let name = name.map(str::to_owned).or_else(|| Some(callable.as_global()?.to_string()))?;
        return Some(format!("[{name}]"));
    }
    let delta = args.first()?;
    delta.class().filter(|g| g.is("datetime", "timedelta"))?;
    let [days, seconds, micros] = units(&delta.call()?.1)?;
    let total = days.checked_mul(86_400)?.checked_add(seconds)?;
    let (sign, total, micros) = match (total < 0, micros) {
        (false, micros) => ('+', total, micros),
        (true, 0) => ('-', total.checked_neg()?, 0),
        (true, micros) => ('-', total.checked_neg()?.checked_sub(1)?, 1_000_000 - micros),
    };
    let mut out = format!("{sign}{:02}:{:02}", total / 3600, total / 60 % 60);
    if total % 60 != 0 || micros != 0 {
        out.push_str(&format!(":{:02}", total % 60));
    }
    if micros != 0 {
        out.push_str(&format!(".{micros:06}"));
    }
    Some(out)
}

/// Days, seconds and microseconds.
fn units(args: &[NodeRef<'_>]) -> Option<[i64; 3]> {
    let unit = |i: usize| args.get(i).map_or(Some(0), |n| n.as_int());
    Some([unit(0)?, unit(1)?, unit(2)?])
}

fn timedelta(args: &[NodeRef<'_>]) -> Option<String> {
    let [days, seconds, micros] = units(args)?;
    if !(0..86_400).contains(&seconds) || !(0..1_000_000).contains(&micros) {
        return None;
    }
    let mut out = match days {
        0 => String::new(),
        1 | -1 => format!("{days} day, "),
        _ => format!("{days} days, "),
    };
    out.push_str(&format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60));
    if micros != 0 {
        out.push_str(&format!(".{micros:06}"));
    }
    Some(out)
}

fn uuid(node: NodeRef<'_>) -> Option<String> {
    let int = node.attribute("int")?;
    let mut le = match int.kind() {
        Kind::BigInt(b) => b.to_vec(),
        _ => int.as_u64()?.to_le_bytes().to_vec(),
    };
    le.resize(16, 0);
    let hex: String = le.iter().rev().map(|b| format!("{b:02x}")).collect();
    let groups = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
    Some(groups.join("-"))
}

/// A path of `pathlib` as `str()` gives it: parts, or the text that it was made of.
pub(crate) fn path(g: Global<'_>, args: &[NodeRef<'_>]) -> Option<String> {
    let is_path = matches!(g.module, "pathlib" | "pathlib._local")
        && matches!(
            g.name,
            "PosixPath" | "WindowsPath" | "PurePosixPath" | "PureWindowsPath" | "Path" | "PurePath"
        );
    if !is_path {
        return None;
    }
    let windows = g.name.ends_with("WindowsPath");
    let separator = if windows { '\\' } else { '/' };
    let mut joined = String::new();
    for arg in args {
        let mut part = arg.as_str()?.to_owned();
        if windows {
            part = part.replace('/', "\\");
        }
        let is_drive = windows && part.as_bytes().get(1) == Some(&b':');
        if joined.is_empty() || part.starts_with(separator) || is_drive {
            joined = part;
        } else {
            if !joined.ends_with(separator) {
                joined.push(separator);
            }
            joined.push_str(&part);
        }
    }
    let (drive, rest) = match joined.as_bytes() {
        [_, b':', ..] if windows => joined.split_at(2),
        _ => ("", joined.as_str()),
    };
    // Two separators in front mean something else than one; three mean one.
    let lead = rest.len() - rest.trim_start_matches(separator).len();
    let root: String =
        std::iter::repeat_n(separator, if lead == 2 { 2 } else { lead.min(1) }).collect();
    let names: Vec<&str> = rest.split(separator).filter(|n| !n.is_empty() && *n != ".").collect();
    let path = format!("{drive}{root}{}", names.join(&separator.to_string()));
    Some(if path.is_empty() { ".".into() } else { path })
}
