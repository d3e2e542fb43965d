//! `count`: the instructions that each parser takes for an input that is always the same, held
//! against `xtask/counts.txt`. Counts do not depend on what else the machine does.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Outcome, python, root};

mod valgrind;

/// Percent that a count may grow where everything that makes code is as it was when it was taken.
const MORE: f64 = 3.0;
/// Percent that it may shrink before it guards nothing any more.
const FEWER: f64 = 10.0;
/// Percent that it may grow with another compiler, C library or valgrind.
const ELSEWHERE: f64 = 15.0;

const FILE: &str = "xtask/counts.txt";
const ABOUT: &str = "\
# Instructions of each parser: `cargo xtask count` compares, `cargo xtask count --write` writes.
# The first line below says what they were counted with; elsewhere the bound is wider.
";

pub(crate) fn run(args: &[String]) -> Outcome {
    let write = match args {
        [] => false,
        [flag] if flag == "--write" => true,
        _ => return Err("usage: cargo xtask count [--write]".to_owned()),
    };
    let valgrind = valgrind::Valgrind::find()?;
    let program = build()?;
    let with = valgrind.surroundings()?;
    let names = output(Command::new(&program))?;
    let mut counts = BTreeMap::new();
    for name in names.lines() {
        counts.insert(name.to_owned(), valgrind.count(&program, name)?);
    }
    if write {
        let lines: Vec<String> = counts.iter().map(|(n, count)| format!("{n} {count}\n")).collect();
        let text = format!("{ABOUT}with {with}\n{}", lines.concat());
        fs::write(root().join(FILE), text).map_err(|e| format!("{FILE}: {e}"))?;
    }
    let marks = Marks::parse(&python::read(&root().join(FILE))?)?;
    let same = marks.with == with;
    if !same {
        println!("counted with {with}; {FILE} with {}: up to {ELSEWHERE} % more pass", marks.with);
    }
    let wrong = marks.compare(&counts, same);
    for (name, count) in &counts {
        let mark = marks.counts.get(name).copied();
        println!("{name:<20} {count:>12} {}", mark.map_or_else(String::new, |m| change(*count, m)));
    }
    if wrong.is_empty() { Ok(()) } else { Err(format!("\n{}", wrong.join("\n"))) }
}

/// The counts of the file, and what they were taken with.
struct Marks {
    with: String,
    counts: BTreeMap<String, u64>,
}

impl Marks {
    fn parse(text: &str) -> Result<Self, String> {
        let mut lines = text.lines().filter(|l| !l.is_empty() && !l.starts_with('#'));
        let with = lines.next().and_then(|line| line.strip_prefix("with "));
        let with = with.ok_or_else(|| format!("{FILE} does not say what it was counted with"))?;
        let mut counts = BTreeMap::new();
        for line in lines {
            let bad = || format!("{FILE}: {line:?} is no name and count");
            let (name, count) = line.split_once(' ').ok_or_else(bad)?;
            counts.insert(name.to_owned(), count.parse().ok().filter(|n| *n > 0).ok_or_else(bad)?);
        }
        Ok(Self { with: with.to_owned(), counts })
    }

    /// What is wrong with `counts`; `same` where they were taken with what these were.
    fn compare(&self, counts: &BTreeMap<String, u64>, same: bool) -> Vec<String> {
        let mut wrong = Vec::new();
        for (name, count) in counts {
            let Some(&mark) = self.counts.get(name) else {
                wrong.push(format!("{name} has no mark: cargo xtask count --write"));
                continue;
            };
            let percent = percent(*count, mark);
            if percent > if same { MORE } else { ELSEWHERE } {
                wrong
                    .push(format!("{name} takes {count} instructions, {percent:.1} % over {mark}"));
            } else if same && percent < -FEWER {
                wrong.push(format!(
                    "{name} takes {count} instructions, {:.1} % under {mark}, which guards nothing \
                     any more: cargo xtask count --write",
                    -percent
                ));
            }
        }
        let gone = self.counts.keys().filter(|name| !counts.contains_key(*name));
        wrong.extend(gone.map(|name| format!("{name} is not counted any more")));
        wrong
    }
}

fn percent(count: u64, mark: u64) -> f64 {
    // Exact enough: no parser takes 2^32 thousand instructions.
    let thousands = |n: u64| u32::try_from(n / 1000).map_or(f64::MAX, f64::from);
    (thousands(count) / thousands(mark).max(1.0) - 1.0) * 100.0
}

fn change(count: u64, mark: u64) -> String {
    format!("{:+.2} %", percent(count, mark))
}

fn build() -> Result<PathBuf, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["build", "--quiet", "--release", "-p", "ckptkit-tests", "--example", "counted"])
        .current_dir(root());
    python::call(&mut command)?;
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    Ok(target.join("release/examples/counted"))
}

fn output(mut command: Command) -> Result<String, String> {
    let shown = Path::new(command.get_program()).display().to_string();
    let out = command.output().map_err(|e| format!("{shown} did not start: {e}"))?;
    if !out.status.success() {
        let said = String::from_utf8_lossy(&out.stderr);
        return Err(format!("{shown} ended with {}: {}", out.status, said.trim()));
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare(mark: u64, count: u64, same: bool) -> usize {
        let marks = Marks::parse(&format!("# about\nwith x\nzip {mark}\n")).unwrap();
        marks.compare(&BTreeMap::from([("zip".to_owned(), count)]), same).len()
    }

    #[test]
    fn counts_stay_within_their_bounds() {
        assert_eq!(compare(1_000_000, 1_000_000, true), 0);
        assert_eq!(compare(1_000_000, 1_029_000, true), 0);
        assert_eq!(compare(1_000_000, 1_031_000, true), 1);
        assert_eq!(compare(1_000_000, 1_031_000, false), 0);
        assert_eq!(compare(1_000_000, 1_160_000, false), 1);
        assert_eq!(compare(1_000_000, 910_000, true), 0);
        assert_eq!(compare(1_000_000, 890_000, true), 1);
        assert_eq!(compare(1_000_000, 890_000, false), 0);
    }

    #[test]
    fn what_is_counted_is_what_is_marked() {
        let marks = Marks::parse("with x\nzip 5000\n").unwrap();
        let other = BTreeMap::from([("tar".to_owned(), 5000)]);
        assert_eq!(marks.compare(&other, true).len(), 2);
        assert!(Marks::parse("zip 5000\n").is_err());
        assert!(Marks::parse("with x\nzip\n").is_err());
        assert!(Marks::parse("with x\nzip 0\n").is_err());
    }
}
