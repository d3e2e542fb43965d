//! What a file is by its first bytes, and how to say that it is something else.

use ckptkit_core::{Error, Result, Section};

use crate::tar_walk::is_header;

/// What holds the members of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Container {
    Tar,
    Gzip,
}

/// Bytes of a file that [`container`] wants to see.
pub(crate) const HEAD: usize = 512;

/// Tells by content; the suffix decides nothing.
pub(crate) fn container(section: &Section) -> Result<Container> {
    let head = section.head::<HEAD>()?;
    if head.starts_with(b"\x1f\x8b") {
        return Ok(Container::Gzip);
    }
    tar(&head, section.len()).map(|()| Container::Tar).map_err(|e| e.in_file(section.name()))
}

/// Whether a file that starts with `head` and is `len` bytes long is a tar.
pub(crate) fn tar(head: &[u8], len: u64) -> Result<()> {
    if is_header(head) {
        return Ok(());
    }
    Err(refusal(head, len))
}

fn refusal(head: &[u8], len: u64) -> Error {
    let compressed = |with: &str| {
        Error::unsupported(format!("is compressed with {with}, which no release of NeMo reads"))
            .hint("decompress it first")
    };
    let starts = |magic: &[u8]| head.starts_with(magic);
    if len == 0 {
        return Error::malformed("the file is empty, expected a .nemo archive")
            .hint("copy it again");
    }
    if starts(b"PK\x03\x04") || starts(b"PK\x05\x06") {
        return Error::unsupported("is a zip file, not a .nemo archive").hint(
            "it is most likely a bare .ckpt with the wrong suffix: open it as a torch checkpoint",
        );
    }
    if starts(b"BZh") {
        return compressed("bzip2");
    }
    if starts(b"\xfd7zXZ\0") {
        return compressed("xz");
    }
    if starts(b"\x28\xb5\x2f\xfd") {
        return compressed("zstd");
    }
    if starts(b"\x04\x22\x4d\x18") {
        return compressed("lz4");
    }
    if starts(b"7z\xbc\xaf\x27\x1c") {
        return compressed("7z");
    }
    if starts(b"version https://git-lfs") {
        return Error::unsupported("is a Git LFS pointer, not the file itself")
            .hint("fetch the file with git lfs pull");
    }
    if starts(b"\x80\x02") || starts(b"\x80\x04") || starts(b"\x80\x05") {
        return Error::unsupported("is a pickle, not a .nemo archive")
            .hint("open it as a torch checkpoint");
    }
    if head.get(8) == Some(&b'{') && head.get(6..8) == Some(&[0, 0]) {
        return Error::unsupported("looks like safetensors, not a .nemo archive")
            .hint("open it as safetensors");
    }
    if head.iter().all(|&b| b == 0) {
        return Error::malformed("starts with zeros only, expected a tar header")
            .hint("the archive is empty or its copy failed: copy it again");
    }
    if head.len() >= HEAD && matches!(head.get(257..262), Some(b"ustar")) {
        return Error::malformed("the checksum of the first tar header does not match")
            .hint("the file is damaged: copy it again");
    }
    Error::unsupported("is neither a tar nor a gzip file: unknown content").hint(
        "encrypted containers (.riva, .tlt, .ejrvs) can only be opened by the tools that made them",
    )
}

/// The error for an archive that holds no NeMo model.
pub(crate) fn no_model<'a>(names: impl Iterator<Item = &'a str>) -> Error {
    const SHOWN: usize = 8;
    let mut names: Vec<&str> = names.collect();
    let total = names.len();
    let has = |suffix: &str| names.iter().any(|n| n.ends_with(suffix));
    let audio = [".wav", ".flac", ".opus", ".mp3", ".ogg"].iter().any(|s| has(s));
    let safetensors = has(".safetensors");
    names.truncate(SHOWN);
    let mut seen = names.join(", ");
    if total > SHOWN {
        seen = format!("{seen} and {} more", total - SHOWN);
    }
    if total == 0 {
        return Error::not_found("the archive has no members");
    }
    let error = Error::not_found(format!("no model_config.yaml among the members: {seen}"));
    if audio {
        return error.hint("this is a shard of a tarred audio dataset, not a model");
    }
    if safetensors {
        return error.hint("open the safetensors file by itself");
    }
    error.hint("a .nemo archive has its model_config.yaml at the top or in one directory")
}
