//! What a file is that is no checkpoint of torch.save, so that the error can say what to do.

use ckptkit_core::{Error, Section};

/// Bytes that the recognition looks at.
pub(crate) const HEAD: usize = 64;

/// First bytes, what they are the mark of, and what to do about it.
const MARKS: [(&[u8], &str, &str); 12] = [
    (
        b"PYTORCH1",
        "an archive of the torch 1.0 preview",
        "load and save it with torch 1.0 or later",
    ),
    (b"\x1F\x8B", "gzip data", "unpack it first, or open it as .nemo if it is one"),
    (b"\x28\xB5\x2F\xFD", "zstd data", "unpack it first"),
    (b"\xFD7zXZ\0", "xz data", "unpack it first"),
    (b"7z\xBC\xAF\x27\x1C", "a 7z archive", "unpack it first"),
    (b"BZh91AY&SY", "bzip2 data", "unpack it first"),
    (
        b"\x89HDF\r\n\x1A\n",
        "an HDF5 file",
        "open it with an HDF5 library (Keras writes such files)",
    ),
    (b"\x93NUMPY", "a NumPy array", "open it with numpy.load"),
    (b"GGUF", "a GGUF file", "convert it where it came from"),
    (b"ARROW1", "an Arrow file", "open it with an Arrow library"),
    (b"version https://git-lfs", "a Git LFS pointer in place of the file", "run `git lfs pull`"),
    (b"\xEF\xBB\xBF", "text", "check that the file is a checkpoint"),
];

/// The error for bytes that are the mark of something else.
pub(crate) fn foreign(head: &[u8], section: &Section) -> Option<Error> {
    let refuse = |what: &str, hint: &'static str| {
        let message = format!("this is {what}, expected what torch.save writes");
        Some(Error::malformed(message).hint(hint))
    };
    if head.is_empty() {
        return refuse("an empty file", "copy the file again");
    }
    if let Some((mark, what, hint)) = MARKS.iter().find(|(mark, ..)| head.starts_with(mark)) {
        if mark == b"PYTORCH1" {
            return Some(Error::unsupported(*what).hint(*hint));
        }
        return refuse(what, hint);
    }
    if let Some((len, b'{')) = head.first_chunk().zip(head.get(8)) {
        if u64::from_le_bytes(*len) < section.len() {
            return refuse("a safetensors file", "open it as safetensors");
        }
    }
    let mut magic = [0; 5];
    if section.read_at(257, &mut magic).is_ok() && &magic == b"ustar" {
        return refuse(
            "a tar archive without the members of an old torch.save",
            "open it as .nemo if it is one, or unpack it",
        );
    }
    if head.iter().all(|&b| b == 0) {
        return refuse("a file that starts with zeros", "the copy did not finish: copy it again");
    }
    match head.trim_ascii_start().first() {
        Some(b'<') => refuse(
            "a web page or XML",
            "the download gave a page in place of the file: download it again",
        ),
        Some(b'{' | b'[') => refuse("JSON text", "open the checkpoint that it belongs to"),
        _ => None,
    }
}

/// The error for bytes that are nothing known.
pub(crate) fn unknown(head: &[u8], why: &str) -> Error {
    // A pickle of protocol 0 is text as well, so text is only known for it when it is no pickle.
    let printable = |b: &u8| b.is_ascii_graphic() || b.is_ascii_whitespace();
    if head.iter().all(printable) {
        return Error::malformed("this is text, expected what torch.save writes")
            .hint("check that the file is a checkpoint");
    }
    Error::malformed(format!(
        "this is nothing that torch.save has written: no zip archive, no legacy stream, and no \
         pickle ({why})"
    ))
    .hint("check that the file is a checkpoint and was copied whole")
}
