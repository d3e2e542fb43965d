//! Which format a path holds, decided by content.

use std::fmt;
use std::path::Path;

use ckptkit_core::{Error, Result, Section};

/// The formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// A NeMo archive or its unpacked directory.
    Nemo,
    /// A Lightning checkpoint.
    LightningCkpt,
    /// Anything else that torch.save has written.
    Torch,
    /// A safetensors file or directory.
    Safetensors,
    /// A distributed checkpoint.
    Distcp,
}

impl Format {
    /// `nemo`, `lightning-ckpt`, `torch`, `safetensors` or `distcp`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nemo => "nemo",
            Self::LightningCkpt => "lightning-ckpt",
            Self::Torch => "torch",
            Self::Safetensors => "safetensors",
            Self::Distcp => "distcp",
        }
    }

    /// The format that [`Format::name`] gives this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let all = [Self::Nemo, Self::LightningCkpt, Self::Torch, Self::Safetensors, Self::Distcp];
        all.into_iter().find(|format| format.name() == name)
    }

    /// Finds out what a path holds. A file's bytes and a directory's entries decide, never a
    /// suffix. A zip or stream is [`Format::Torch`] here; whether Lightning wrote it is known once
    /// it is open ([`Checkpoint::format`](crate::Checkpoint::format)).
    ///
    /// # Errors
    /// [`NotFound`](ckptkit_core::ErrorKind::NotFound), [`Io`](ckptkit_core::ErrorKind::Io);
    /// [`Malformed`](ckptkit_core::ErrorKind::Malformed) when it is none of them, saying what it
    /// looks like.
    pub fn detect(path: impl AsRef<Path>) -> Result<Self> {
        Ok(Detected::of(path.as_ref(), false)?.format())
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What was found, with the file that was opened to find it.
pub(crate) enum Detected {
    File(Format, Section),
    Directory(Format),
}

/// Longer than any line that tells people of the content of a directory.
const SHOWN: usize = 6;

impl Detected {
    pub(crate) fn format(&self) -> Format {
        match self {
            Self::File(format, _) | Self::Directory(format) => *format,
        }
    }

    pub(crate) fn of(path: &Path, mapped: bool) -> Result<Self> {
        let meta = std::fs::metadata(path).map_err(|e| Error::io("open it", e).in_file(path))?;
        if meta.is_dir() {
            return directory(path).map(Self::Directory);
        }
        let section = open_section(path, mapped)?;
        let format = file(&section)?;
        Ok(Self::File(format, section))
    }
}

fn open_section(path: &Path, mapped: bool) -> Result<Section> {
    #[cfg(feature = "mmap")]
    if mapped {
        return Section::open_mapped(path);
    }
    let _ = mapped;
    Section::open(path)
}

fn file(section: &Section) -> Result<Format> {
    let head = section.head::<512>()?;
    let unknown = |what: String| {
        Error::malformed(what)
            .in_file(section.name())
            .hint("expected a .nemo archive, a torch or Lightning checkpoint, a safetensors file or its index, or a directory of one")
    };
    if head.is_empty() {
        return Err(unknown("the file is empty".into()));
    }
    if head.starts_with(b"PK") || head.starts_with(b"PYTORCH1") {
        return Ok(Format::Torch);
    }
    if head.starts_with(&[0x1F, 0x8B]) {
        return Ok(Format::Nemo);
    }
    for (magic, name) in [
        (&b"BZh"[..], "bzip2"),
        (b"\xFD7zXZ", "xz"),
        (b"\x28\xB5\x2F\xFD", "zstd"),
        (b"\x89HDF", "HDF5"),
        (b"GGUF", "GGUF"),
        (b"\x93NUMPY", "NumPy"),
    ] {
        if head.starts_with(magic) {
            return Err(unknown(format!(
                "the file is in the format {name}, which is none of those read here"
            )));
        }
    }
    if is_tar(&head) {
        return Ok(if is_tar_era(section, &head) { Format::Torch } else { Format::Nemo });
    }
    if looks_like_safetensors(&head, section.len()) {
        return Ok(Format::Safetensors);
    }
    // A pickle of protocol 2 and later says so; older ones are text, as an index of shards is.
    let first = head.iter().copied().find(|b| !b.is_ascii_whitespace());
    if first == Some(b'{') {
        return Ok(Format::Safetensors);
    }
    Ok(Format::Torch)
}

/// A header length that fits and an object behind it.
fn looks_like_safetensors(head: &[u8], len: u64) -> bool {
    let Some((n, rest)) = head.split_first_chunk::<8>() else { return false };
    let n = u64::from_le_bytes(*n);
    let first = rest.iter().copied().find(|b| !b.is_ascii_whitespace());
    // A file that was cut short still shows its kind by a length that others do not have; one that
    // is longer than the format allows is refused by its reader, who says so.
    let whole = n.checked_add(8).is_some_and(|end| end <= len);
    let cut = n <= 100_000_000
        && (rest.windows(14).any(|w| w == b"\"data_offsets\"") || rest.starts_with(b"{\""));
    n >= 2 && first == Some(b'{') && (whole || cut)
}

fn is_tar(head: &[u8]) -> bool {
    let Some(header) = head.get(..512) else { return false };
    let stored = header[148..156]
        .iter()
        .filter(|b| b.is_ascii_digit())
        .fold(0_u32, |v, b| v.wrapping_mul(8).wrapping_add(u32::from(b - b'0')));
    let sum: u32 = header
        .iter()
        .enumerate()
        .map(|(i, &b)| if (148..156).contains(&i) { 32 } else { u32::from(b) })
        .sum();
    &header[257..262] == b"ustar" || (sum == stored && header[0] != 0)
}

/// torch before 0.1.10 wrote tar archives with these members.
fn is_tar_era(section: &Section, head: &[u8]) -> bool {
    let name_of = |header: &[u8]| {
        let end = header[..100].iter().position(|&b| b == 0).unwrap_or(100);
        String::from_utf8_lossy(&header[..end]).trim_start_matches("./").to_owned()
    };
    let mut header = head.to_vec();
    let mut at = 0;
    for _ in 0..8 {
        if matches!(name_of(&header).as_str(), "sys_info" | "storages" | "tensors") {
            return true;
        }
        let size = std::str::from_utf8(&header[124..135])
            .ok()
            .and_then(|s| u64::from_str_radix(s.trim_matches(['\0', ' ']), 8).ok());
        let Some(size) = size else { return false };
        at += 512 + size.div_ceil(512) * 512;
        if section.read_at(at, &mut header).is_err() {
            return false;
        }
    }
    false
}

fn directory(path: &Path) -> Result<Format> {
    let mut names = Vec::new();
    for entry in
        std::fs::read_dir(path).map_err(|e| Error::io("list the directory", e).in_file(path))?
    {
        let entry = entry.map_err(|e| Error::io("list the directory", e).in_file(path))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    let has = |name: &str| names.iter().any(|n| n == name);
    let any = |test: &dyn Fn(&str) -> bool| names.iter().any(|n| test(n));
    let rank_metadata = |n: &str| {
        n.strip_prefix("__")
            .and_then(|n| n.strip_suffix(".metadata"))
            .is_some_and(|n| n.parse::<u32>().is_ok())
    };
    let sharded = path.join("sharded");
    let safetensors = any(&|n| {
        n.ends_with(".safetensors") || (n.contains(".safetensors.index") && n.ends_with(".json"))
    }) || sharded.is_dir()
        && directory(&sharded).ok() == Some(Format::Safetensors);
    let rank = |n: &str| {
        n.strip_prefix("rank")
            .and_then(|n| n.strip_suffix(".safetensors"))
            .is_some_and(|n| n.parse::<u32>().is_ok())
    };
    let quantized = has("config.json") && any(&rank);
    // A safetensors directory made from an archive keeps a config that JSON cannot hold.
    let archive = has("model_config.yaml") && (has("model_weights.ckpt") || !safetensors);
    if archive
        || quantized
        || has("header.content")
        || any(&|n| {
            n.starts_with("mp_rank_") || (n.starts_with("tp_rank_") && n.contains("pp_rank_"))
        })
    {
        return Ok(Format::Nemo);
    }
    if has(".metadata")
        || has(".metadata.tmp")
        || any(&rank_metadata)
        || any(&|n| n.ends_with(".distcp"))
        || (has("weights") && has("context"))
    {
        return Ok(Format::Distcp);
    }
    if safetensors {
        return Ok(Format::Safetensors);
    }
    let step = |n: &str| {
        n.starts_with("iter_")
            || n.starts_with("step-")
            || n.starts_with("step_")
            || n.starts_with("checkpoint-")
    };
    let holds_checkpoint = |n: &String| {
        let child = path.join(n);
        child.is_dir()
            && (child.join(".metadata").exists()
                || child.join("metadata.json").exists()
                || child.join("weights").is_dir())
    };
    if any(&step)
        || has("latest_checkpointed_iteration.txt")
        || has("metadata.json")
        || names.iter().any(holds_checkpoint)
    {
        return Ok(Format::Distcp);
    }
    let mut shown = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        shown.push_str(&format!(", … ({} entries)", names.len()));
    }
    let what = if names.is_empty() {
        "the directory is empty".to_owned()
    } else {
        format!("the directory holds no checkpoint that is read here (it has: {shown})")
    };
    Err(Error::malformed(what).in_file(path).hint("expected an unpacked .nemo, safetensors files with their index, or a distributed checkpoint with its .metadata; name a file in it to open that file"))
}
