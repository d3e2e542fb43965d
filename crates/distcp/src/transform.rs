//! What was done to an item's bytes on their way into the file, undone.

use ckptkit_core::{Error, Result, Section};

/// Undoes a list of transforms, in the order in which it names them. `most` is how many bytes may
/// come out.
///
/// # Errors
/// `Unsupported`, naming the transform, for any that is not known or not built in;
/// `LimitExceeded` for an item that decodes to more than `most`; `Malformed` for damage.
pub(crate) fn undo(section: Section, descriptors: &[String], most: u64) -> Result<Section> {
    let mut section = section;
    for descriptor in descriptors {
        section = match parse(descriptor) {
            ("stream.zstd", None, "1") => zstd(&section, most)?,
            _ => {
                return Err(Error::unsupported(format!(
                    "the item went through the transform {descriptor:?}, which this reader does not know"
                )));
            }
        };
    }
    Ok(section)
}

/// `name[@domain][/version]`; only the major version matters.
fn parse(descriptor: &str) -> (&str, Option<&str>, &str) {
    let (name, version) = descriptor.split_once('/').unwrap_or((descriptor, "1"));
    let (name, domain) = match name.split_once('@') {
        Some((name, domain)) => (name, Some(domain)),
        None => (name, None),
    };
    (name, domain, version.split('.').next().unwrap_or(version))
}

#[cfg(not(feature = "zstd"))]
fn zstd(_: &Section, _: u64) -> Result<Section> {
    Err(Error::unsupported("the item is compressed with zstd, which this build does not read")
        .hint("build with the feature `zstd`"))
}

#[cfg(feature = "zstd")]
use frame::zstd;

#[cfg(feature = "zstd")]
mod frame {
    use std::io::{self, BufReader, Read};
    use std::sync::Arc;

    use ckptkit_core::{Error, Result, Section, Sequential};
    use ruzstd::decoding::StreamingDecoder;

    /// Decoded items up to this many bytes stay in memory; larger ones are decoded when read.
    const IN_MEMORY: u64 = 8 << 20;

    /// torch writes frames without a content size, so the length is known only after decoding
    /// once.
    pub(super) fn zstd(section: &Section, most: u64) -> Result<Section> {
        let damaged = |e: io::Error| {
            Error::malformed(format!("the zstd frame is damaged: {e}"))
                .in_file(section.name())
                .hint("copy the file again")
        };
        let mut decoder = open(section).map_err(damaged)?;
        let mut start = Vec::new();
        decoder.by_ref().take(IN_MEMORY.min(most) + 1).read_to_end(&mut start).map_err(damaged)?;
        let mut size = start.len() as u64;
        if size > IN_MEMORY && size <= most {
            let rest = decoder.by_ref().take(most - size + 1);
            size += io::copy(&mut { rest }, &mut io::sink()).map_err(damaged)?;
        }
        if size > most {
            return Err(Error::limit(format!(
                "the item decodes to more than {most} bytes, which is all that it may hold"
            ))
            .in_file(section.name()));
        }
        let mut after = [0];
        if decoder.get_mut().read(&mut after).map_err(damaged)? != 0 {
            return Err(Error::malformed("bytes follow the zstd frame that the item should be")
                .in_file(section.name()));
        }
        let name = format!("{} (decoded)", section.name());
        if size <= IN_MEMORY {
            return Ok(Section::from_bytes(start, name));
        }
        let packed = section.clone();
        let again = move || Ok(Box::new(open(&packed)?) as Box<dyn Read + Send>);
        Ok(Section::new(Arc::new(Sequential::new(name, size, again))))
    }

    type Decoder =
        StreamingDecoder<BufReader<Box<dyn Read + Send>>, ruzstd::decoding::FrameDecoder>;

    fn open(section: &Section) -> io::Result<Decoder> {
        let source: Box<dyn Read + Send> = Box::new(section.reader());
        StreamingDecoder::new(BufReader::with_capacity(64 << 10, source)).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors() {
        assert_eq!(parse("stream.zstd/1"), ("stream.zstd", None, "1"));
        assert_eq!(parse("stream.zstd/1.2"), ("stream.zstd", None, "1"));
        assert_eq!(parse("stream.zstd"), ("stream.zstd", None, "1"));
        assert_eq!(parse("x@org/2"), ("x", Some("org"), "2"));
        let s = Section::from_bytes([1, 2], "s");
        for bad in ["stream.zstd/2", "stream.zstd@org/1", "stream.lz4/1", ""] {
            let e = undo(s.clone(), &[bad.to_owned()], 9).unwrap_err().to_string();
            assert!(e.contains(&format!("{bad:?}")), "{e}");
        }
    }
}
