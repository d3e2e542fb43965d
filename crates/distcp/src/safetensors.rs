//! Data files written with `SerializationFormat.SAFETENSORS` (torch 2.8 and later, plain writer).
//!
//! The file is one safetensors blob behind the archives of its byte items, but the metadata gives
//! every tensor offset 0 and its raw length, so that torch itself cannot read it back (seen with
//! 2.15.0). What is needed to do better is in the blob: tensors by FQN, and where each lies in the
//! whole under `DCP_SHARDING_INFO`.

use ckptkit_core::{Dtype, Error, Result, Section, TensorBytes, TensorInfo, Transform};

/// Whether `section`, what follows a data file's byte items, begins like a safetensors file.
pub(crate) fn detect(section: &Section) -> bool {
    let Ok(head) = section.head::<9>() else { return false };
    let [len @ .., b'{'] = &head[..] else { return false };
    let Ok(len) = <[u8; 8]>::try_from(len) else { return false };
    u64::from_le_bytes(len).checked_add(8).is_some_and(|end| end <= section.len())
}

#[cfg(not(feature = "safetensors"))]
#[derive(Clone, Debug)]
pub(crate) struct Blob(std::convert::Infallible);

#[cfg(not(feature = "safetensors"))]
impl Blob {
    pub(crate) fn open(_: Section) -> Result<Self> {
        Err(Error::unsupported("the data file holds safetensors, which this build does not read")
            .hint("build with the feature `safetensors`"))
    }

    pub(crate) fn tensor(&self, _: &TensorInfo, _: &[u64]) -> Result<(TensorBytes, Transform)> {
        match self.0 {}
    }

    pub(crate) fn dtype(&self, _: &str) -> Result<Dtype> {
        match self.0 {}
    }
}

#[cfg(feature = "safetensors")]
pub(crate) use blob::Blob;

#[cfg(feature = "safetensors")]
mod blob {
    use st_io::StFile;

    use super::{Dtype, Error, Result, Section, TensorBytes, TensorInfo, Transform};

    /// An opened blob.
    #[derive(Clone, Debug)]
    pub(crate) struct Blob {
        file: StFile,
        offsets: serde_json::Value,
    }

    impl Blob {
        pub(crate) fn open(section: Section) -> Result<Self> {
            let file = StFile::from_section(section)?;
            let text = file.metadata().get("DCP_SHARDING_INFO").map_or("{}", String::as_str);
            let offsets = serde_json::from_str(text).map_err(|e| {
                Error::malformed(format!("DCP_SHARDING_INFO is no JSON: {e}"))
                    .in_file(file.section().name())
            })?;
            Ok(Self { file, offsets })
        }

        pub(crate) fn dtype(&self, name: &str) -> Result<Dtype> {
            Ok(self.file.tensor(name)?.dtype())
        }

        /// The chunk of `info`'s name, if it is the one that starts at `at`.
        pub(crate) fn tensor(
            &self,
            info: &TensorInfo,
            at: &[u64],
        ) -> Result<(TensorBytes, Transform)> {
            let name = self.file.section().name();
            let tensor = self.file.tensor(info.name())?;
            let saved = self.offsets.get(info.name()).and_then(|o| o.get("saved_offsets"));
            let saved: Option<Vec<u64>> =
                saved.and_then(|s| s.as_array()?.iter().map(serde_json::Value::as_u64).collect());
            // Without sharding information a tensor is whole.
            let saved = saved.unwrap_or_else(|| vec![0; at.len()]);
            if saved != at || tensor.shape() != info.shape() {
                return Err(Error::malformed(format!(
                    "the data file holds the chunk at {saved:?} of sizes {:?}, wanted is that at {at:?} of sizes {:?}",
                    tensor.shape(),
                    info.shape()
                ))
                .in_file(name)
                .hint("of several chunks of one tensor in one file torch's writer keeps the last"));
            }
            if tensor.dtype() != info.dtype() {
                return Err(Error::malformed(format!(
                    "the data file holds {} elements, the metadata says {}",
                    tensor.dtype(),
                    info.dtype()
                ))
                .in_file(name));
            }
            let tensor = tensor.resolve()?;
            match tensor.bytes() {
                TensorBytes::Broken(e) => Err(e.clone()),
                bytes => Ok((bytes.clone(), tensor.transform())),
            }
        }
    }
}
