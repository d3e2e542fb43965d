//! One process: how long, how much of the processor, how much memory.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use memmap2::{Advice, MmapMut};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

/// A command and its arguments.
pub(super) type Call = Vec<String>;

/// What one run took.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cost {
    /// From the start of the first process to the end of the last.
    pub(super) wall: f64,
    /// Of all processors, in user and kernel mode.
    pub(super) cpu: f64,
}

/// The most that a run held at once, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Memory {
    pub(super) anonymous: u64,
    pub(super) resident: u64,
}

/// Memory that is kept between runs and given to the next one.
///
/// The host of a virtual machine may take back what is free (free page reporting) and give it again
/// at the next touch, which can take longer than what is measured. The kernel tells the host of all
/// that is free two seconds after larger blocks became free, so that memory given away less than
/// two seconds ago is there.
#[derive(Debug, Default)]
pub(super) struct Reserve(Option<MmapMut>);

impl Reserve {
    /// Takes as much: what became free last, as far as it goes.
    pub(super) fn hold(bytes: u64) -> Result<Self, String> {
        let fail = |e| format!("{bytes} bytes of memory: {e}");
        let mut memory =
            MmapMut::map_anon(usize::try_from(bytes).unwrap_or(usize::MAX)).map_err(fail)?;
        // What is free in large blocks is what the host takes, and what a page cache takes.
        memory.advise(Advice::HugePage).map_err(fail)?;
        for byte in memory.iter_mut().step_by(4096) {
            *byte = 1;
        }
        Ok(Self(Some(memory)))
    }

    /// Waits until the host has been told of what is free now.
    pub(super) fn settle() {
        std::thread::sleep(Duration::from_millis(2500));
    }

    /// Gives it to what comes next.
    pub(super) fn release(&mut self) {
        self.0 = None;
    }

    pub(super) fn is_released(&self) -> bool {
        self.0.is_none()
    }
}

/// What a program printed.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// Of `probe` alone.
    pub(super) stdout: String,
    pub(super) stderr: String,
}

/// Runs the calls one after the other under the clock; gives what the last one printed as well.
pub(super) fn time(calls: &[Call]) -> Result<(Cost, Said), String> {
    let before = cpu()?;
    let start = Instant::now();
    let mut said = Said::default();
    for call in calls {
        let child = spawn(call)?;
        said = finish(call, child)?;
    }
    let wall = start.elapsed().as_secs_f64();
    Ok((Cost { wall, cpu: cpu()? - before }, said))
}

/// Runs the calls and looks at their memory, which takes time from them: never under the clock.
pub(super) fn watch(calls: &[Call]) -> Result<Memory, String> {
    let mut most = Memory::default();
    for call in calls {
        let mut child = spawn(call)?;
        let status = PathBuf::from(format!("/proc/{}/status", child.id()));
        // Looks often at first, for what ends in a few milliseconds.
        let mut pause = Duration::from_micros(100);
        while child.try_wait().map_err(|e| format!("{}: {e}", call[0]))?.is_none() {
            if let Ok(text) = fs::read_to_string(&status) {
                most.anonymous = most.anonymous.max(field(&text, "RssAnon:"));
                most.resident = most.resident.max(field(&text, "VmHWM:"));
            }
            std::thread::sleep(pause);
            pause = (pause + pause / 64).min(Duration::from_millis(2));
        }
        finish(call, child)?;
    }
    Ok(most)
}

/// A field of `/proc/PID/status`, in bytes.
fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) << 10
}

fn spawn(call: &Call) -> Result<std::process::Child, String> {
    let mut command = Command::new(&call[0]);
    command.args(&call[1..]).stdin(Stdio::null()).stderr(Stdio::piped());
    // Listings are long, and a pipe that nobody empties would stop them; answers are short.
    let answers = call[0].ends_with("probe");
    command.stdout(if answers { Stdio::piped() } else { Stdio::null() });
    command.env("PYTHONDONTWRITEBYTECODE", "1").env("CUDA_VISIBLE_DEVICES", "");
    command.spawn().map_err(|e| format!("{}: {e}", call[0]))
}

fn finish(call: &Call, child: std::process::Child) -> Result<Said, String> {
    let out = child.wait_with_output().map_err(|e| format!("{}: {e}", call[0]))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = Said { stdout: text(&out.stdout), stderr: text(&out.stderr) };
    if out.status.success() {
        return Ok(said);
    }
    let last =
        said.stderr.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("nothing was said");
    let name = Path::new(&call[0]).file_name().unwrap_or_default().to_string_lossy();
    Err(format!("{name} ended with {}: {last}", out.status))
}

/// Seconds of processor that children which have ended took.
fn cpu() -> Result<f64, String> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).map_err(|e| format!("getrusage: {e}"))?;
    let seconds = |t: TimeVal| {
        Duration::from_micros(
            u64::try_from(t.tv_sec()).unwrap_or(0) * 1_000_000
                + u64::try_from(t.tv_usec()).unwrap_or(0),
        )
    };
    Ok((seconds(usage.user_time()) + seconds(usage.system_time())).as_secs_f64())
}

/// The files at a path, or below it.
pub(super) fn files(path: &Path) -> Result<Vec<PathBuf>, String> {
    let (mut found, mut open) = (Vec::new(), vec![path.to_owned()]);
    while let Some(path) = open.pop() {
        let fail = |e| format!("{}: {e}", path.display());
        if path.is_dir() {
            for entry in fs::read_dir(&path).map_err(fail)? {
                open.push(entry.map_err(fail)?.path());
            }
        } else {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Bytes of the files at a path, or below it.
pub(super) fn bytes(path: &Path) -> Result<u64, String> {
    files(path)?.iter().map(|f| Ok(f.metadata().map_err(|e| e.to_string())?.len())).sum()
}

/// Whether reading comes from memory or from the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cache {
    Warm,
    Cold,
}

impl Cache {
    /// Brings a source into the page cache, or out of it.
    pub(super) fn prepare(self, source: &Path) -> Result<(), String> {
        for path in files(source)? {
            let fail = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
            let mut file = File::open(&path).map_err(|e| fail(&e))?;
            let meta = file.metadata().map_err(|e| fail(&e))?;
            if meta.blocks() * 512 < meta.len() / 2 {
                continue; // A hole: nothing of it is on the disk.
            }
            match self {
                Self::Warm => {
                    std::io::copy(&mut file, &mut std::io::sink()).map_err(|e| fail(&e))?;
                }
                Self::Cold => {
                    // Pages that are not on the disk yet would stay.
                    file.sync_all().map_err(|e| fail(&e))?;
                    let drop = PosixFadviseAdvice::POSIX_FADV_DONTNEED;
                    posix_fadvise(&file, 0, 0, drop).map_err(|e| fail(&e))?;
                }
            }
        }
        Ok(())
    }
}

/// Removes what a run has written, and waits until the file system has nothing left to do.
pub(super) fn clear(output: &Path) -> Result<(), String> {
    let fail = |e| format!("{}: {e}", output.display());
    if output.is_dir() {
        fs::remove_dir_all(output).map_err(fail)?;
    } else if output.exists() {
        fs::remove_file(output).map_err(fail)?;
    }
    let folder = output.parent().unwrap_or(output);
    let call = vec!["sync".to_owned(), "-f".to_owned(), folder.display().to_string()];
    finish(&call, spawn(&call)?).map(drop)
}
