//! Times of members, so that the same input gives the same bytes.

use ckptkit_core::{Error, Result};

const VARIABLE: &str = "SOURCE_DATE_EPOCH";

/// The time in `SOURCE_DATE_EPOCH`, in seconds since 1970: what members get that have no time of
/// their own. Nothing where the variable is not set.
///
/// # Errors
/// [`InvalidArgument`](ckptkit_core::ErrorKind::InvalidArgument) where it is no such number.
pub fn source_date_epoch() -> Result<Option<u64>> {
    let Some(text) = std::env::var_os(VARIABLE) else { return Ok(None) };
    parse(&text.to_string_lossy()).map(Some)
}

fn parse(text: &str) -> Result<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().ok_or_else(|| {
        Error::invalid(format!("{VARIABLE} is {text:?}, expected seconds since 1970"))
            .hint("set it to a whole number, or unset it")
    })
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn whole_seconds_only() {
        assert_eq!(parse("0").unwrap(), 0);
        assert_eq!(parse("1700000000").unwrap(), 1_700_000_000);
        for bad in ["", " 1", "-1", "+1", "1.5", "now", "99999999999999999999"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
