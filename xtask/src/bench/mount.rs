//! A file system that shares extents: one that is given, or a loop mount where the machine permits.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::tools;

pub(super) struct Mount {
    path: PathBuf,
    /// The image that was mounted for this run.
    image: Option<PathBuf>,
}

impl Mount {
    /// A folder that its owner says can share extents, or a fresh xfs or btrfs of `bytes`.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn new(given: Option<&Path>, bytes: u64) -> Result<Self, String> {
        let mount = match given {
            Some(path) => Self { path: path.join("ckptkit-bench"), image: None },
            None => Self::fresh(bytes)?,
        };
        let fail = |e| format!("{}: {e}", mount.path.display());
        std::fs::create_dir_all(&mount.path).map_err(fail)?;
        let (from, to) = (mount.path.join("probe"), mount.path.join("clone"));
        std::fs::write(&from, [1_u8; 8192]).map_err(fail)?;
        let said = run("cp", &["--reflink=always", &text(&from), &text(&to)]);
        let _ = std::fs::remove_file(from);
        let _ = std::fs::remove_file(to);
        said.map(|()| mount)
    }

    fn fresh(bytes: u64) -> Result<Self, String> {
        let makers: [(&str, &[&str]); 2] =
            [("mkfs.xfs", &["-q", "-f", "-m", "reflink=1"]), ("mkfs.btrfs", &["-q", "-f"])];
        let found = makers.iter().find(|(maker, _)| {
            Command::new(maker).arg("-V").output().is_ok_and(|out| out.status.success())
        });
        let (maker, options) =
            found.ok_or("neither mkfs.xfs (xfsprogs) nor mkfs.btrfs (btrfs-progs) is installed")?;
        let image = tools::folder().join("extents.img");
        let path = tools::folder().join("extents");
        // Sources, an output and its copy.
        let size = 5 * bytes + (1 << 30);
        let fail = |e| format!("{}: {e}", image.display());
        std::fs::create_dir_all(&path).map_err(fail)?;
        std::fs::File::create(&image).and_then(|file| file.set_len(size)).map_err(fail)?;
        let mounted = run(maker, &[*options, &[text(&image).as_str()]].concat())
            .and_then(|()| run("mount", &["-o", "loop", &text(&image), &text(&path)]));
        if let Err(why) = mounted {
            let _ = std::fs::remove_file(image);
            return Err(why);
        }
        Ok(Self { path, image: Some(image) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        match &self.image {
            Some(image) => match run("umount", &[&text(&self.path)]) {
                Ok(()) => drop(std::fs::remove_file(image)),
                Err(why) => eprintln!("{why}; {} stays mounted", self.path.display()),
            },
            None => drop(std::fs::remove_dir_all(&self.path)),
        }
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn run(program: &str, args: &[&str]) -> Result<(), String> {
    let out = Command::new(program).args(args).output().map_err(|e| format!("{program}: {e}"))?;
    if out.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&out.stderr);
    Err(format!("{program}: {}", said.lines().last().unwrap_or("failed")))
}
