//! The machine in words: what matters for the numbers, and nothing that names it.

use std::path::Path;
use std::process::Command;

fn first_line(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).output().ok();
    let text = out.map(|out| String::from_utf8_lossy(&out.stdout).into_owned());
    text.and_then(|t| t.lines().next().map(str::trim).map(str::to_owned)).unwrap_or_default()
}

/// A value of a file of `NAME separator VALUE` lines.
fn field(path: &str, name: &str, separator: char) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut lines = text.lines().filter_map(|line| line.split_once(separator));
    let found = lines.find(|(key, _)| key.trim() == name);
    found.map_or_else(|| "unknown".to_owned(), |(_, v)| v.trim().trim_matches('"').to_owned())
}

fn file_system(path: &str) -> String {
    let out = Command::new("df").args(["--output=fstype", path]).output().ok();
    let text = out.map(|out| String::from_utf8_lossy(&out.stdout).into_owned());
    text.and_then(|t| t.lines().nth(1).map(|l| l.trim().to_owned())).unwrap_or_default()
}

/// Processor, memory, file system, kernel and the versions of what is compared.
pub(super) fn describe(folder: &Path) -> Vec<(&'static str, String)> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let memory = field("/proc/meminfo", "MemTotal", ':');
    let kib: u64 = memory.split_whitespace().next().and_then(|k| k.parse().ok()).unwrap_or(0);
    let kernel = first_line("uname", &["-r"]);
    // Only the numbers: what follows them may be a name.
    let numbers = kernel.split(|c: char| !c.is_ascii_digit() && c != '.').next().unwrap_or("");
    let at = folder.display().to_string();
    let versions = "import torch, lightning, safetensors as s; \
                    print('torch', torch.__version__, 'Lightning', lightning.__version__, \
                    'safetensors', s.__version__)";
    let python = crate::python::TORCH.python().display().to_string();
    vec![
        ("processor", format!("{}, {cores} cores seen", field("/proc/cpuinfo", "model name", ':'))),
        ("memory", format!("{} GiB", kib.div_ceil(1 << 20))),
        ("file system", file_system(&at)),
        ("system", format!("{}, Linux {numbers}", field("/etc/os-release", "PRETTY_NAME", '='))),
        ("cp", first_line("cp", &["--version"])),
        ("compiler", first_line("rustc", &["--version"])),
        ("Python's libraries", first_line(&python, &["-W", "ignore", "-c", versions])),
    ]
}

/// The day, in the world's time.
pub(super) fn date() -> String {
    first_line("date", &["-u", "+%Y-%m-%d"])
}
