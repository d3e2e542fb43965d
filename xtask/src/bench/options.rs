//! The flags of `bench` and `bench scaling`.

use std::path::PathBuf;

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Options {
    pub(super) scaling: bool,
    pub(super) bytes: Option<u64>,
    pub(super) tensors: u64,
    pub(super) rounds: usize,
    pub(super) cold: bool,
    pub(super) fsync: bool,
    pub(super) case: Vec<String>,
    pub(super) peers: bool,
    pub(super) shared: Option<PathBuf>,
    pub(super) write_docs: bool,
}

pub(super) const HELP: &str = "\
cargo xtask bench [scaling] [OPTIONS]
  --bytes SIZE      bytes of the weights [1.6GB]; of the largest in `scaling` [6.4GB]
  --tensors N       tensors that share them [400]
  --rounds N        timed rounds, after a rehearsal that looks at memory [5]
  --cold            every source out of the page cache, for cp as well
  --fsync           every conversion forced to the disk, and cp as well
  --case GLOB       only cases whose names match (repeatable; * is any text)
  --peers           time the other programs too (the default)
  --no-peers        ours only
  --shared DIR      a folder on a file system that shares extents [a loop mount, if possible]
  --write-docs      write docs/benchmarks.md and docs/benchmarks.svg anew";

impl Options {
    pub(super) fn parse(args: &[String]) -> Result<Self, String> {
        let mut options = Self {
            scaling: false,
            bytes: None,
            tensors: 400,
            rounds: 5,
            cold: false,
            fsync: false,
            case: Vec::new(),
            peers: true,
            shared: None,
            write_docs: false,
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg} wants a value\n{HELP}"));
            match arg.as_str() {
                "scaling" => options.scaling = true,
                "--bytes" => options.bytes = Some(size(value()?)?),
                "--tensors" => options.tensors = number(value()?)?,
                "--rounds" => {
                    options.rounds = usize::try_from(number(value()?)?).unwrap_or(usize::MAX);
                }
                "--cold" => options.cold = true,
                "--fsync" => options.fsync = true,
                "--case" => options.case.push(value()?.clone()),
                "--peers" => options.peers = true,
                "--no-peers" => options.peers = false,
                "--shared" => options.shared = Some(PathBuf::from(value()?)),
                "--write-docs" => options.write_docs = true,
                _ => return Err(format!("{arg:?} is not known\n{HELP}")),
            }
        }
        Ok(options)
    }

    /// Whether a case of this name was asked for.
    pub(super) fn wants(&self, name: &str) -> bool {
        self.case.is_empty() || self.case.iter().any(|glob| matches(glob, name))
    }
}

fn number(text: &str) -> Result<u64, String> {
    let found = text.parse().ok().filter(|n| *n > 0);
    found.ok_or_else(|| format!("{text:?} is no number above zero"))
}

/// `1.6GB`, `100MB`, `4096`.
fn size(text: &str) -> Result<u64, String> {
    let units = [("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1000), ("", 1)];
    let (digits, unit) = units
        .iter()
        .find_map(|(name, unit)| text.strip_suffix(name).map(|digits| (digits, *unit)))
        .ok_or_else(|| format!("{text:?} is no size"))?;
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let bad = || format!("{text:?} is no size, as 1.6GB is one");
    let mut bytes = whole.parse::<u64>().map_err(|_| bad())?.checked_mul(unit).ok_or_else(bad)?;
    let mut worth = unit;
    for digit in part.chars() {
        worth /= 10;
        bytes += u64::from(digit.to_digit(10).ok_or_else(bad)?) * worth;
    }
    if bytes == 0 { Err(bad()) } else { Ok(bytes) }
}

fn matches(glob: &str, name: &str) -> bool {
    let mut parts = glob.split('*');
    let first = parts.next().unwrap_or("");
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_and_fractions() {
        assert_eq!(size("1.6GB"), Ok(1_600_000_000));
        assert_eq!(size("100MB"), Ok(100_000_000));
        assert_eq!(size("4096"), Ok(4096));
        for bad in ["", "GB", "0MB", "1.xGB", "-1MB", "99999999999999GB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn globs_match_any_text_at_stars() {
        assert!(matches("ckpt-*", "ckpt-to-safetensors"));
        assert!(matches("*-cold", "rows-to-safetensors-cold"));
        assert!(matches("*to*", "rows-to-ckpt"));
        assert!(matches("digest-ckpt", "digest-ckpt"));
        assert!(!matches("digest", "digest-ckpt"));
        assert!(!matches("*-cold", "cold-source"));
        assert!(!matches("a*a", "a"));
    }

    #[test]
    fn flags_that_are_not_known_are_refused() {
        let parse = |args: &[&str]| {
            Options::parse(&args.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>())
        };
        let options = parse(&["--bytes", "100MB", "--rounds", "1", "--no-peers"]).unwrap();
        assert_eq!((options.bytes, options.rounds, options.peers), (Some(100_000_000), 1, false));
        assert!(parse(&["--round", "1"]).is_err());
        assert!(parse(&["--rounds", "0"]).is_err());
        assert!(parse(&["--bytes"]).is_err());
    }
}
