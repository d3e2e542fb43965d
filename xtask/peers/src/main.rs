//! `bench-peers CRATE SOURCE OUTPUT`: a torch file to safetensors, as each crate's documentation
//! does it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::error::Error;
use std::path::Path;

use pytorch_reader::{DType, PytorchReader, Tensor};
use safetensors::{Dtype, View};

/// Where a Lightning checkpoint has its weights.
const KEY: &str = "state_dict";

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [name, source, output] = args.as_slice() else {
        return Err("usage: bench-peers candle|pytorch-reader SOURCE OUTPUT".into());
    };
    match name.as_str() {
        "candle" => candle(source.as_ref(), output.as_ref()),
        "pytorch-reader" => reader(source.as_ref(), output.as_ref()),
        other => Err(format!("there is no peer {other:?}").into()),
    }
}

fn candle(source: &Path, output: &Path) -> Result<(), Box<dyn Error>> {
    let tensors = candle_core::pickle::read_all_with_key(source, Some(KEY))?;
    let tensors: HashMap<_, _> = tensors.into_iter().collect();
    Ok(candle_core::safetensors::save(&tensors, output)?)
}

fn reader(source: &Path, output: &Path) -> Result<(), Box<dyn Error>> {
    let tensors = PytorchReader::with_top_level_key(source, KEY)?.into_tensors();
    let views: HashMap<String, Lazy> = tensors.into_iter().map(|(n, t)| (n, Lazy(t))).collect();
    Ok(safetensors::serialize_to_file(views, None, output)?)
}

/// Reads a tensor when it is its turn, which is the least memory that the two crates allow.
struct Lazy(Tensor);

impl View for Lazy {
    fn dtype(&self) -> Dtype {
        match self.0.dtype() {
            DType::F64 => Dtype::F64,
            DType::F32 => Dtype::F32,
            DType::F16 => Dtype::F16,
            DType::BF16 => Dtype::BF16,
            DType::I64 => Dtype::I64,
            DType::I32 => Dtype::I32,
            DType::I16 => Dtype::I16,
            DType::I8 => Dtype::I8,
            DType::U64 => Dtype::U64,
            DType::U32 => Dtype::U32,
            DType::U16 => Dtype::U16,
            DType::U8 => Dtype::U8,
            DType::Bool => Dtype::BOOL,
        }
    }

    fn shape(&self) -> &[usize] {
        self.0.shape()
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned(self.0.read().expect("a readable tensor"))
    }

    fn data_len(&self) -> usize {
        self.0.byte_len()
    }
}
