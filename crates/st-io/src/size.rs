//! Sizes as people write them.

use ckptkit_core::{Error, Result};

/// Reads a size such as `5GB`, `1.5GB`, `500MiB` or `1000` (bytes), as `max_shard_size` is
/// written: `KB` to `TB` are powers of 1000, `KiB` to `TiB` of 1024, in any case. A fraction of a
/// byte is dropped.
///
/// ```
/// assert_eq!(st_io::parse_size("1.5GB")?, 1_500_000_000);
/// assert_eq!(st_io::parse_size("500MiB")?, 500 << 20);
/// # Ok::<(), ckptkit_core::Error>(())
/// ```
///
/// # Errors
/// [`InvalidArgument`](ckptkit_core::ErrorKind::InvalidArgument) for anything else, for less than
/// one byte and for more than 2^64-1.
pub fn parse_size(text: &str) -> Result<u64> {
    let refuse = || {
        Error::invalid(format!("{text:?} is not a size"))
            .hint("write a number and a unit, such as 5GB, 1.5GB or 500MiB")
    };
    let trimmed = text.trim();
    let split = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(split);
    let unit: u128 = match unit.trim_start().to_ascii_uppercase().as_str() {
        "" | "B" => 1,
        "KB" => 1000,
        "MB" => 1000_u128.pow(2),
        "GB" => 1000_u128.pow(3),
        "TB" => 1000_u128.pow(4),
        "KIB" => 1 << 10,
        "MIB" => 1 << 20,
        "GIB" => 1 << 30,
        "TIB" => 1 << 40,
        _ => return Err(refuse()),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.len() > 18 || (number.ends_with('.')) {
        return Err(refuse());
    }
    let scale = 10_u128.pow(u32::try_from(fraction.len()).map_err(|_| refuse())?);
    let digits: u128 = format!("{whole}{fraction}").parse().map_err(|_| refuse())?;
    let bytes = digits.checked_mul(unit).map(|v| v / scale);
    bytes.and_then(|v| u64::try_from(v).ok()).filter(|v| *v > 0).ok_or_else(refuse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("5GB", 5_000_000_000),
            ("5gb", 5_000_000_000),
            ("1.5GB", 1_500_000_000),
            ("50 KB", 50_000),
            ("2TB", 2_000_000_000_000),
            ("500MiB", 524_288_000),
            ("0.5KiB", 512),
            ("1", 1),
            ("17B", 17),
            ("1.9B", 1),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_size(text).unwrap(), bytes, "{text}");
        }
        for bad in ["", "GB", "-1GB", "1.GB", ".5GB", "1.2.3GB", "5GX", "0GB", "0.5B", "1e3"]
            .iter()
            .chain(&["18446744073709551616", "99999999999TB", "1.0000000000000000001KB"])
        {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
