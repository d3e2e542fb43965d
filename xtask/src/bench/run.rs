//! The rounds: every case once in each, beside what it is held against, in an order that moves on
//! from round to round.
//!
//! Round 0 is a rehearsal. It looks at memory, which costs time, and finds out which cases and
//! peers work at all; nothing in it is timed.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::cases::{Against, CHUNK_BYTES, Case, Place};
use super::check::{self, Expected};
use super::measure::{self, Cache, Call, Cost, Reserve, Said, clear, time, watch};
use super::mount::Mount;
use super::peers::Peer;
use super::progress;
use super::row::{Rounds, Row};
use super::tools::{self, Tools};

/// Rounds in which other programs run: they take many times as long, and nothing hangs on a tenth.
const PEER_ROUNDS: usize = 3;

/// What all cases share.
pub(super) struct Bench<'a> {
    pub(super) tools: &'a Tools,
    pub(super) inputs: &'a Path,
    pub(super) mount: Option<&'a Mount>,
    pub(super) bytes: u64,
    pub(super) rounds: usize,
    /// Every case with a cold source.
    pub(super) cold: bool,
    /// Every conversion forced to the disk, and `cp` as well.
    pub(super) fsync: bool,
    pub(super) peers: bool,
}

impl Bench<'_> {
    pub(super) fn run(&self, cases: &[&'static Case]) -> Result<Vec<Row>, String> {
        let expected = Expected::read(&self.inputs.join("expected.json"))?;
        let mut rows = Vec::new();
        for case in cases {
            rows.push(Row::new(case, measure::bytes(&self.source(case))?, self.peers));
        }
        let count = rows.len();
        for round in 0..=self.rounds {
            progress::part(&format!("round {round}/{}", self.rounds));
            for at in 0..count {
                self.one(&mut rows[(at + round) % count], round, &expected)?;
            }
            if round <= PEER_ROUNDS {
                // What they leave behind is felt for a while.
                for row in &mut rows {
                    self.peers(row, round, &expected)?;
                }
            }
        }
        Ok(rows)
    }

    /// One case in one round. What goes wrong in the case is kept in its row; an error is one of
    /// the machine.
    fn one(&self, row: &mut Row, round: usize, expected: &Expected) -> Result<(), String> {
        let case = row.case;
        let (source, output) = (self.source(case), self.output(case, case.output)?);
        let cache = if self.cold { Cache::Cold } else { case.cache };
        progress::now(&format!("round {round}/{}  {}", self.rounds, case.name));
        let (mut base, mut reserve) = (f64::NAN, Reserve::default());
        if round > 0 {
            // What it writes goes to the page cache, and a little to itself.
            let taken = row.source_bytes + (256 << 20);
            if case.against.is_written() {
                reserve = Reserve::hold(taken)?;
                Reserve::settle();
            }
            base = self.base(row, &source, cache, &mut reserve)?;
            if case.against.is_written() && reserve.is_released() {
                reserve = Reserve::hold(taken)?;
            }
        }
        if row.ours.failure.is_none() {
            let call = self.ours(case, &source, &output);
            let judge = || check::output(case.check, None, &output, expected, self.tools);
            cache.prepare(&source)?;
            reserve.release();
            let done = if round == 0 {
                watch(&[call]).and_then(|memory| {
                    row.ours.memory = memory;
                    judge()
                })
            } else {
                self.clocked(row, &call, &source, &output, base).and_then(|()| judge())
            };
            row.ours.failure = done.err();
            clear(&output)?;
        }
        progress::clear();
        Ok(())
    }

    /// What others take for the case, in one round.
    fn peers(&self, row: &mut Row, round: usize, expected: &Expected) -> Result<(), String> {
        let (case, base) = (row.case, row.base.last().copied().unwrap_or(f64::NAN));
        for (peer, rounds) in case.peers.iter().zip(&mut row.peers) {
            if rounds.failure.is_none() {
                let what = format!("{}: {}", case.name, peer.name);
                progress::now(&format!("round {round}/{}  {what}", self.rounds));
                self.peer(case, peer, rounds, round, base, expected)?;
            }
        }
        progress::clear();
        Ok(())
    }

    /// A run of ours under the clock, and what it took inside one process.
    fn clocked(
        &self,
        row: &mut Row,
        call: &Call,
        source: &Path,
        output: &Path,
        mut base: f64,
    ) -> Result<(), String> {
        let case = row.case;
        let (cost, said) = match case.against {
            Against::Nothing => (repeated(call, output)?, Said::default()),
            _ => time(std::slice::from_ref(call))?,
        };
        let verifies = case.against == Against::PageCache;
        if verifies {
            base = self.page_cache(&[source, output])?;
            row.base.push(base);
        }
        let mut own = cost.wall;
        if let Some(inside) = case.inside {
            let beside = beside(output);
            clear(&beside)?;
            let said = self.probe(&expand(inside, source, &beside, self.inputs, self.bytes))?;
            clear(&beside)?;
            let seconds = number(&said, "seconds")?;
            row.inside.push(seconds);
            if verifies {
                own = seconds;
            }
            let (name, chunks, _) = CHUNK_BYTES;
            if case.name == name {
                row.chunk.push(number(&said, "anonymous")? / chunks);
            }
        } else {
            row.inside.push(told(&said.stderr)?);
        }
        let value = if row.is_ratio() { own / base } else { own };
        row.ours.push(value, cost);
        Ok(())
    }

    /// What the case is held against, in seconds.
    fn base(
        &self,
        row: &mut Row,
        source: &Path,
        cache: Cache,
        reserve: &mut Reserve,
    ) -> Result<f64, String> {
        let case = row.case;
        let mut against = case.against;
        if self.fsync && against == Against::Copy {
            against = Against::CopySynced;
        }
        let seconds = match against {
            Against::Nothing | Against::PageCache => return Ok(f64::NAN),
            Against::Sha256 => {
                let bytes = self.weight_bytes(source)?;
                number(&self.probe(&["sha256".into(), bytes.to_string()])?, "seconds")?
            }
            Against::Copy | Against::CopySynced | Against::CopyUnshared => {
                let copy = self.output(case, "copy")?;
                clear(&copy)?;
                cache.prepare(source)?;
                let mut cp: Call = vec!["cp".into()];
                cp.extend(source.is_dir().then(|| "-r".to_owned()));
                cp.extend((against == Against::CopyUnshared).then(|| "--reflink=never".to_owned()));
                cp.extend([source.display().to_string(), copy.display().to_string()]);
                let mut calls = vec![cp];
                if against == Against::CopySynced {
                    let below = measure::files(source)?;
                    let names = below.iter().map(|file| {
                        copy.join(file.strip_prefix(source).unwrap_or(file)).display().to_string()
                    });
                    let copied: Vec<String> = if source.is_dir() {
                        names.chain([copy.display().to_string()]).collect()
                    } else {
                        vec![copy.display().to_string()]
                    };
                    calls.push([vec!["sync".to_owned()], copied].concat());
                }
                reserve.release();
                let (cost, _) = time(&calls)?;
                clear(&copy)?;
                cost.wall
            }
        };
        row.base.push(seconds);
        Ok(seconds)
    }

    fn peer(
        &self,
        case: &Case,
        peer: &Peer,
        rounds: &mut Rounds,
        round: usize,
        base: f64,
        expected: &Expected,
    ) -> Result<(), String> {
        let (source, output) = (self.source(case), self.output(case, peer.output)?);
        clear(&output)?;
        let cache = if self.cold { Cache::Cold } else { case.cache };
        cache.prepare(&source)?;
        let call = [peer.call(&self.tools.probe, &source, &output)];
        let done = if round == 0 {
            watch(&call).map(|memory| rounds.memory = memory)
        } else {
            time(&call).map(|(cost, _)| rounds.push(cost.wall / base, cost))
        };
        let judged = done.and_then(|()| {
            check::output(case.check, Some(peer.prefix), &output, expected, self.tools)
        });
        rounds.failure = judged.err();
        clear(&output)
    }

    fn page_cache(&self, paths: &[&Path]) -> Result<f64, String> {
        let mut call = vec!["read".to_owned()];
        for path in paths {
            call.extend(measure::files(path)?.iter().map(|file| file.display().to_string()));
        }
        number(&self.probe(&call)?, "seconds")
    }

    /// Bytes of the weights themselves: what a digest reads.
    fn weight_bytes(&self, source: &Path) -> Result<u64, String> {
        let said = self.probe(&["list".into(), source.display().to_string()])?;
        said["bytes"].as_u64().ok_or_else(|| "probe told no bytes".to_owned())
    }

    fn probe(&self, args: &[String]) -> Result<Value, String> {
        let call = [&[self.tools.probe.display().to_string()], args].concat();
        let (_, said) = time(&[call])?;
        serde_json::from_str(&said.stdout).map_err(|e| format!("probe: {e}"))
    }

    fn ours(&self, case: &Case, source: &Path, output: &Path) -> Call {
        let mut call = vec![self.tools.program.display().to_string(), "--quiet".to_owned()];
        call.extend(expand(case.run, source, output, self.inputs, self.bytes));
        if case.inside.is_none() {
            call.push("--verbose".to_owned());
        }
        let writes = case.run.starts_with("convert");
        if self.fsync && writes && !case.run.contains("--fsync") {
            call.push("--fsync".to_owned());
        }
        call
    }

    fn source(&self, case: &Case) -> PathBuf {
        let folder = match (case.place, self.mount) {
            (Place::Shared, Some(mount)) => mount.path(),
            _ => self.inputs,
        };
        folder.join(case.source)
    }

    /// Where something is written: a folder of its own, on the case's file system.
    fn output(&self, case: &Case, name: &str) -> Result<PathBuf, String> {
        let folder = match (case.place, self.mount) {
            (Place::Shared, Some(mount)) => mount.path().join("out"),
            _ => tools::folder().join("out"),
        };
        std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        // A case that writes nothing has a name nevertheless: an output is removed by it.
        Ok(folder.join(if name.is_empty() { "nothing" } else { name }))
    }
}

/// A run of a case that is held against nothing but a clock: of several in a row the middle one. A
/// few milliseconds are less than a processor takes to wake up after the pause before them.
fn repeated(call: &Call, output: &Path) -> Result<Cost, String> {
    const RUNS: usize = 5;
    /// Seconds after which a run is long enough to stand for itself.
    const ENOUGH: f64 = 0.5;
    let mut costs: Vec<Cost> = Vec::new();
    while costs.len() < RUNS && costs.iter().map(|cost| cost.wall).sum::<f64>() < ENOUGH {
        if !costs.is_empty() {
            clear(output)?;
        }
        costs.push(time(std::slice::from_ref(call))?.0);
    }
    costs.sort_by(|a, b| a.wall.total_cmp(&b.wall));
    costs.get(costs.len() / 2).copied().ok_or_else(|| "no run".to_owned())
}

fn expand(run: &str, source: &Path, output: &Path, inputs: &Path, bytes: u64) -> Vec<String> {
    let known = [
        ("{src}", source.display().to_string()),
        ("{out}", output.display().to_string()),
        ("{in}", inputs.display().to_string()),
        ("{third}", (bytes / 3).to_string()),
    ];
    let word = |word: &str| known.iter().fold(word.to_owned(), |w, (name, to)| w.replace(name, to));
    run.split(' ').map(word).collect()
}

/// Where `probe` writes what it has to: its name tells the format as well.
fn beside(output: &Path) -> PathBuf {
    let name = output.file_name().unwrap_or_default().to_string_lossy();
    output.with_file_name(format!("probe-{name}"))
}

/// Seconds from the program's beginning until its output stands, as `--verbose` says them: "planned
/// in 0.0031 s, written in 0.2902 s".
fn told(said: &str) -> Result<f64, String> {
    let after = |what| {
        let (_, rest) = said.split_once(what)?;
        rest.split(' ').next()?.parse::<f64>().ok()
    };
    let sum = after("planned in ").zip(after("written in ")).map(|(plan, write)| plan + write);
    sum.ok_or_else(|| format!("--verbose told no time: {}", said.trim_end()))
}

fn number(said: &Value, name: &str) -> Result<f64, String> {
    said[name].as_f64().ok_or_else(|| format!("probe told no {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_spaces_stays_one_argument() {
        let (source, output, inputs) = (Path::new("/a b/s"), Path::new("/o"), Path::new("/in"));
        let call = expand("convert {src} {out} --like {in}/x {third}", source, output, inputs, 9);
        assert_eq!(call, ["convert", "/a b/s", "/o", "--like", "/in/x", "3"]);
    }

    #[test]
    fn the_time_inside_is_that_of_planning_and_writing() {
        let said = "9 bytes in 1 file(s), planned in 0.2500 s, written in 1.5000 s: 9 through\n";
        assert_eq!(told(said), Ok(1.75));
        assert!(told("9 bytes in 1 file(s)").is_err());
    }
}
