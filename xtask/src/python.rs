//! Python environments with the real libraries, below `target/python/`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::root;

/// An environment: its name, and the one whose packages it sees beside its own.
pub(crate) struct Env {
    pub(crate) name: &'static str,
    base: Option<&'static Env>,
    /// Free disk that its installation asks for.
    gib: u64,
    /// Whether it links to libraries of CUDA that are not installed and get stand-ins.
    stubs: bool,
}

pub(crate) static TORCH: Env = Env { name: "torch", base: None, gib: 7, stubs: false };
pub(crate) static NEMO: Env = Env { name: "nemo", base: Some(&TORCH), gib: 3, stubs: false };
/// What SpeechLM2's models ask for beside NeMo.
pub(crate) static SPEECHLM2: Env =
    Env { name: "speechlm2", base: Some(&NEMO), gib: 1, stubs: false };
/// An old torch, for what the releases in use understand.
pub(crate) static TORCH_OLD: Env = Env { name: "torch-old", base: None, gib: 4, stubs: true };

impl Env {
    fn dir(&self) -> PathBuf {
        root().join("target/python").join(self.name)
    }

    pub(crate) fn python(&self) -> PathBuf {
        self.dir().join("bin/python")
    }

    /// Installs the environment unless its requirements are those of last time.
    pub(crate) fn prepare(&self) -> Result<(), String> {
        if let Some(base) = self.base {
            base.prepare()?;
        }
        let list = root().join(format!("xtask/python/requirements-{}.txt", self.name));
        let wanted = read(&list)?;
        let stamp = self.dir().with_extension("stamp");
        if self.python().exists() && fs::read_to_string(&stamp).is_ok_and(|had| had == wanted) {
            return Ok(());
        }
        eprintln!("installing the Python environment `{}`", self.name);
        let parent = root().join("target/python");
        fs::create_dir_all(&parent).map_err(|e| format!("{}: {e}", parent.display()))?;
        check_disk(&parent, self.gib)?;
        if self.stubs {
            check_tools()?;
        }
        if self.dir().exists() {
            fs::remove_dir_all(self.dir()).map_err(|e| format!("{}: {e}", self.dir().display()))?;
        }
        call(Command::new(host_python()?).args(["-m", "venv"]).arg(self.dir()))?;
        // The lists name every package: nothing else may come in.
        call(
            Command::new(self.python())
                .args(["-m", "pip", "install", "--quiet", "--no-deps", "--no-cache-dir", "-r"])
                .arg(&list),
        )?;
        if self.stubs {
            let script = root().join("xtask/python/stub_libraries.py");
            call(Command::new(self.python()).arg(script).arg(self.dir()))?;
        }
        if let Some(base) = self.base {
            // The nearest first: a base's own list of bases is not read.
            let mut lines = String::new();
            for env in std::iter::successors(Some(base), |env| env.base) {
                lines += &format!("{}\n", env.packages()?.display());
            }
            let path = self.packages()?.join(format!("{}.pth", base.name));
            fs::write(&path, lines).map_err(|e| format!("{}: {e}", path.display()))?;
        }
        fs::write(&stamp, wanted).map_err(|e| format!("{}: {e}", stamp.display()))
    }

    fn packages(&self) -> Result<PathBuf, String> {
        let code = "import sysconfig; print(sysconfig.get_path('purelib'))";
        Ok(PathBuf::from(output(Command::new(self.python()).args(["-c", code]))?))
    }
}

/// The Python that the pinned packages were chosen for.
fn host_python() -> Result<PathBuf, String> {
    let code = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])";
    for name in ["python3.11", "python3"] {
        if output(Command::new(name).args(["-c", code])).is_ok_and(|version| version == "3.11") {
            return Ok(PathBuf::from(name));
        }
    }
    Err("Python 3.11 with venv and pip is missing: install it so that `python3.11` or `python3` \
         starts it"
        .to_owned())
}

/// What `stub_libraries.py` calls; asked for before anything is downloaded.
fn check_tools() -> Result<(), String> {
    for tool in ["cc", "readelf"] {
        output(Command::new(tool).arg("--version")).map_err(|_| {
            format!(
                "`{tool}` is missing, which makes stand-ins for libraries: install a C compiler \
                     and binutils"
            )
        })?;
    }
    Ok(())
}

fn check_disk(at: &Path, gib: u64) -> Result<(), String> {
    let table = output(Command::new("df").arg("-Pk").arg(at))?;
    let free = table.lines().last().and_then(|line| line.split_whitespace().nth(3));
    let free = free.and_then(|field| field.parse::<u64>().ok()).map_or(u64::MAX, |kib| kib >> 20);
    if free < gib {
        return Err(format!("{gib} GiB of disk are needed below target/python, {free} are free"));
    }
    Ok(())
}

/// Lets a script see no network, no accelerator and one thread, and nothing that changes from run
/// to run.
pub(crate) fn quiet(command: &mut Command) {
    for (name, value) in [
        ("PYTHONHASHSEED", "0"),
        ("PYTHONDONTWRITEBYTECODE", "1"),
        ("CUDA_VISIBLE_DEVICES", ""),
        ("OMP_NUM_THREADS", "1"),
        ("HF_HUB_OFFLINE", "1"),
        ("TZ", "UTC"),
    ] {
        command.env(name, value);
    }
}

pub(crate) fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}

/// Runs a command that speaks for itself.
pub(crate) fn call(command: &mut Command) -> Result<(), String> {
    let shown = format!("{command:?}");
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{shown} ended with {status}")),
        Err(error) => Err(format!("{shown} did not start: {error}")),
    }
}

fn output(command: &mut Command) -> Result<String, String> {
    let shown = format!("{command:?}");
    let out = command.output().map_err(|e| format!("{shown} did not start: {e}"))?;
    if !out.status.success() {
        return Err(format!("{shown} ended with {}", out.status));
    }
    Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned())
}
