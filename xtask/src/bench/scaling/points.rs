//! One point of a curve: a command, timed a few times and watched once.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::super::check;
use super::super::measure::{Cache, Call, Memory, clear, time, watch};
use super::super::progress;
use super::super::row::Spread;
use super::super::tools::Tools;

pub(super) struct Lab<'a> {
    pub(super) tools: &'a Tools,
    pub(super) folder: &'a Path,
    pub(super) rounds: usize,
}

/// Seconds over the rounds, and memory.
pub(super) struct Point {
    pub(super) wall: Spread,
    pub(super) memory: Memory,
}

impl Lab<'_> {
    pub(super) fn path(&self, name: &str) -> Result<PathBuf, String> {
        fs::create_dir_all(self.folder).map_err(|e| format!("{}: {e}", self.folder.display()))?;
        Ok(self.folder.join(name))
    }

    /// The program's call.
    pub(super) fn ours(&self, args: &[&str]) -> Call {
        let program = self.tools.program.display().to_string();
        let args = args.iter().map(|a| (*a).to_owned());
        [program, "--quiet".to_owned()].into_iter().chain(args).collect()
    }

    /// Why there is no point, without the names of this machine's folders.
    pub(super) fn refused(&self, why: &str) -> String {
        let why = why.split_once("error: ").map_or(why, |(_, said)| said);
        let plain = why.replace(&format!("{}/", self.folder.display()), "");
        format!("refused: {}", plain.chars().take(100).collect::<String>())
    }

    /// Runs the program to make an input.
    pub(super) fn make(&self, args: &[&str]) -> Result<(), String> {
        time(&[self.ours(args)]).map(drop)
    }

    /// A large checkpoint that is nearly all hole.
    pub(super) fn hollow(
        &self,
        format: &str,
        path: &Path,
        tensors: u64,
        elements: u64,
    ) -> Result<(), String> {
        let probe = self.tools.probe.display().to_string();
        let path = path.display().to_string();
        let size = [tensors.to_string(), elements.to_string()];
        let call = [probe, "hollow".into(), format.into(), path].into_iter().chain(size).collect();
        time(&[call]).map(drop)
    }

    /// Watches a command, then times it; its output is removed each time.
    pub(super) fn point(
        &self,
        calls: &[Call],
        source: &Path,
        output: &Path,
        cache: Cache,
        same: bool,
    ) -> Result<Point, String> {
        progress::now(&calls[0][1..].join(" "));
        let prepare = || clear(output).and_then(|()| cache.prepare(source));
        prepare()?;
        let memory = watch(calls)?;
        let mut walls = Vec::new();
        for _ in 0..self.rounds {
            prepare()?;
            walls.push(time(calls)?.0.wall);
        }
        if same {
            let (wanted, found) =
                (check::tensors(source, self.tools)?, check::tensors(output, self.tools)?);
            if wanted.is_empty() || wanted != found {
                return Err(format!("{} has other tensors", output.display()));
            }
        }
        clear(output)?;
        progress::clear();
        let wall = Spread::of(&walls).ok_or("no rounds were asked for")?;
        Ok(Point { wall, memory })
    }
}

/// A safetensors file of tensors that share `bytes`, of bits that no file system can squeeze.
pub(super) fn safetensors(path: &Path, bytes: u64, tensors: u64) -> Result<(), String> {
    const WIDTH: u64 = 1024;
    let fail = |e| format!("{}: {e}", path.display());
    let rows = (bytes / tensors.max(1) / 4 / WIDTH).max(1);
    let each = rows * WIDTH * 4;
    let entry = |i: u64| {
        let (start, end) = (i * each, (i + 1) * each);
        let name = format!("encoder.layers.{}.part_{}.weight", i / 8, i % 8);
        format!(
            r#""{name}":{{"dtype":"F32","shape":[{rows},{WIDTH}],"data_offsets":[{start},{end}]}}"#
        )
    };
    let header = format!("{{{}}}", (0..tensors).map(entry).collect::<Vec<_>>().join(","));
    let padded = format!("{header:<width$}", width = header.len().next_multiple_of(8));
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path).map_err(fail)?);
    out.write_all(&(padded.len() as u64).to_le_bytes()).map_err(fail)?;
    out.write_all(padded.as_bytes()).map_err(fail)?;
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    for _ in 0..each * tensors / 8 {
        // xorshift64: fast, and no two blocks alike.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.write_all(&state.to_le_bytes()).map_err(fail)?;
    }
    out.flush().map_err(fail)
}
