//! valgrind: what the machine has, or Debian's package unpacked below `target/tools`, for which
//! nobody has to be root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::output;
use crate::{python, root};

const INSTALL: &str = "valgrind counts the instructions and is missing: install it, on Debian with \
                       `apt-get install valgrind`";

pub(super) struct Valgrind {
    program: PathBuf,
    /// Where its tools lie, if not where it was built for.
    tools: Option<PathBuf>,
}

impl Valgrind {
    /// # Errors
    /// What to install.
    pub(super) fn find() -> Result<Self, String> {
        let usual = Self { program: "valgrind".into(), tools: None };
        if usual.version().is_ok() {
            return Ok(usual);
        }
        let folder = root().join("target/tools");
        if let Some(unpacked) = Self::unpacked(&folder) {
            return Ok(unpacked);
        }
        eprintln!("fetching valgrind from the system's package archive");
        fetch(&folder).map_err(|why| format!("{INSTALL} (fetching it failed: {why})"))?;
        let found = Self::unpacked(&folder);
        found.ok_or_else(|| format!("{INSTALL} (the fetched package does not run)"))
    }

    /// The package that was unpacked here.
    fn unpacked(folder: &Path) -> Option<Self> {
        let usr = folder.join("valgrind/usr");
        // Debian's `valgrind` is a script that looks for the program in `/usr`.
        let programs = ["bin/valgrind.bin", "bin/valgrind"].map(|name| usr.join(name));
        let program = programs.into_iter().find(|program| program.exists())?;
        let libraries = fs::read_dir(usr.join("lib")).ok().into_iter().flatten().flatten();
        let tools = std::iter::once(usr.join("libexec/valgrind"))
            .chain(libraries.map(|entry| entry.path().join("valgrind")))
            .find(|tools| tools.join("default.supp").exists())?;
        let found = Self { program, tools: Some(tools) };
        found.version().is_ok().then_some(found)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        if let Some(tools) = &self.tools {
            command.env("VALGRIND_LIB", tools);
        }
        command
    }

    fn version(&self) -> Result<String, String> {
        let mut command = self.command();
        command.arg("--version");
        Ok(output(command)?.trim().to_owned())
    }

    /// What decides how many instructions the same source takes.
    pub(super) fn surroundings(&self) -> Result<String, String> {
        let run = |program: &str, arg: &str| {
            let mut command = Command::new(program);
            command.arg(arg);
            output(command)
        };
        let compiler = run("rustc", "--version")?;
        let compiler: Vec<&str> = compiler.split_whitespace().take(2).collect();
        let library = run("getconf", "GNU_LIBC_VERSION").unwrap_or_default();
        let machine = std::env::consts::ARCH;
        Ok(format!("{}, {}, {}, {machine}", compiler.join(" "), library.trim(), self.version()?))
    }

    /// Instructions of one piece of work.
    pub(super) fn count(&self, program: &Path, work: &str) -> Result<u64, String> {
        let mut command = self.command();
        command
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .args(["--collect-atstart=no", "--toggle-collect=*counted_work*"])
            .arg(program)
            .arg(work);
        let out = command.output().map_err(|e| format!("valgrind did not start: {e}"))?;
        let said = String::from_utf8_lossy(&out.stderr);
        if !out.status.success() {
            return Err(format!("{work}: valgrind ended with {}: {}", out.status, said.trim()));
        }
        let collected = said.lines().find_map(|line| line.split_once("Collected :"));
        let count = collected.and_then(|(_, count)| count.trim().parse().ok());
        count.filter(|n| *n > 0).ok_or_else(|| format!("{work}: nothing was counted: {said}"))
    }
}

/// The package of the system's own archive, checked by its own client. Its lists may be missing, as
/// in an image that was just made, and only root may fetch them where they usually are.
fn fetch(folder: &Path) -> Result<(), String> {
    let fail = |e: std::io::Error| format!("{}: {e}", folder.display());
    let package = folder.join("package");
    if package.exists() {
        fs::remove_dir_all(&package).map_err(fail)?;
    }
    for name in ["package", "lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(folder.join(name)).map_err(fail)?;
    }
    let own = [
        format!("Dir::State::Lists={}", folder.join("lists").display()),
        format!("Dir::Cache={}", folder.join("cache").display()),
    ];
    let apt = |options: &[String], verb: &[&str]| {
        let mut command = Command::new("apt-get");
        command.arg("-qq");
        for option in options {
            command.args(["-o", option]);
        }
        command.args(verb).current_dir(&package);
        output(command)
    };
    if apt(&[], &["download", "valgrind"]).is_err() {
        apt(&own, &["update"])?;
        apt(&own, &["download", "valgrind"])?;
    }
    let entries = fs::read_dir(&package).map_err(fail)?.flatten().map(|entry| entry.path());
    let file = entries.into_iter().find(|path| path.extension().is_some_and(|e| e == "deb"));
    let file = file.ok_or("apt-get left no package")?;
    python::call(Command::new("dpkg-deb").arg("-x").arg(file).arg(folder.join("valgrind")))
}
