//! The JSON that describes the members (`PayloadConfig` in torch's schema).

use std::collections::HashMap;
use std::fmt;

use ckptkit_core::{Dtype, Error, Limits, Result};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// What is said of one name.
#[derive(Deserialize)]
pub(super) struct Payload {
    /// The member, in the folder of its kind.
    pub(super) path_name: String,
    #[serde(default)]
    pub(super) is_param: bool,
    /// The member is a torch.save file, not raw bytes.
    #[serde(default)]
    pub(super) use_pickle: bool,
    /// `None` for objects that are no tensors.
    pub(super) tensor_meta: Option<TensorMeta>,
}

/// What raw bytes are.
#[derive(Deserialize)]
pub(super) struct TensorMeta {
    dtype: u32,
    sizes: Vec<SymInt>,
    strides: Vec<SymInt>,
    storage_offset: SymInt,
    #[serde(default)]
    pub(super) requires_grad: bool,
    device: Option<Device>,
    layout: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum SymInt {
    AsInt(u64),
    AsExpr(SymExpr),
}

#[derive(Deserialize)]
struct SymExpr {
    expr_str: String,
}

#[derive(Deserialize)]
struct Device {
    r#type: String,
    index: Option<u64>,
}

impl SymInt {
    /// The number. Symbols belong to the program's inputs; torch too takes none for stored tensors.
    fn known(&self) -> Result<u64> {
        match self {
            Self::AsInt(n) => Ok(*n),
            Self::AsExpr(e) => Err(Error::malformed(format!(
                "a stored tensor's geometry is symbolic ({}), expected numbers",
                e.expr_str
            ))),
        }
    }
}

/// `Layout.Strided`.
const STRIDED: u32 = 7;

impl TensorMeta {
    /// The element type, by the number that it has in the schema (not torch's own `ScalarType`).
    pub(super) fn dtype(&self) -> Result<Dtype> {
        Ok(match self.dtype {
            1 => Dtype::U8,
            2 => Dtype::I8,
            3 => Dtype::I16,
            4 => Dtype::I32,
            5 => Dtype::I64,
            6 => Dtype::F16,
            7 => Dtype::F32,
            8 => Dtype::F64,
            9 => Dtype::C32,
            10 => Dtype::C64,
            11 => Dtype::C128,
            12 => Dtype::Bool,
            13 => Dtype::Bf16,
            28 => Dtype::U16,
            29 => Dtype::F8E4M3,
            30 => Dtype::F8E5M2,
            31 => Dtype::F8E4M3Fnuz,
            32 => Dtype::F8E5M2Fnuz,
            33 => Dtype::F8E8M0,
            34 => Dtype::U32,
            35 => Dtype::U64,
            other => {
                return Err(Error::unsupported(format!(
                    "dtype number {other} is none that torch 2.15 exports"
                )));
            }
        })
    }

    pub(super) fn shape(&self) -> Result<Vec<u64>> {
        self.sizes.iter().map(SymInt::known).collect()
    }

    /// Strides and offset in elements.
    pub(super) fn geometry(&self) -> Result<(Vec<u64>, u64)> {
        if let Some(layout) = self.layout.filter(|&l| l != STRIDED) {
            return Err(Error::unsupported(format!(
                "raw bytes of layout number {layout}; only strided ones (7) are known"
            )));
        }
        let strides = self.strides.iter().map(SymInt::known).collect::<Result<_>>()?;
        Ok((strides, self.storage_offset.known()?))
    }

    /// `cpu`, `cuda:0`, …
    pub(super) fn location(&self) -> Option<String> {
        let device = self.device.as_ref()?;
        Some(match device.index {
            None => device.r#type.clone(),
            Some(index) => format!("{}:{index}", device.r#type),
        })
    }
}

/// The entries of a config in its order; one that is malformed fails alone.
///
/// # Errors
/// [`Malformed`](ckptkit_core::ErrorKind::Malformed) when it is no config at all;
/// [`LimitExceeded`](ckptkit_core::ErrorKind::LimitExceeded) above `limits.members` entries.
pub(super) fn parse(json: &[u8], limits: &Limits) -> Result<Vec<(String, Result<Payload>)>> {
    let config: Config<'_> = serde_json::from_slice(json)
        .map_err(|e| Error::malformed(format!("it is no config of torch.export: {e}")))?;
    let found = config.config.0;
    if found.len() as u64 > limits.members {
        return Err(Error::limit(format!(
            "{} entries are more than the limit of {}",
            found.len(),
            limits.members
        ))
        .hint("raise the limit if the file is to be trusted"));
    }
    let mut at: HashMap<&str, usize> = HashMap::with_capacity(found.len());
    let mut entries: Vec<(String, Result<Payload>)> = Vec::with_capacity(found.len());
    for (name, raw) in &found {
        if let Some(&first) = at.get(&name[..]) {
            entries[first].1 = Err(Error::malformed("the config describes it twice"));
            continue;
        }
        at.insert(name, entries.len());
        let payload = serde_json::from_str(raw.get())
            .map_err(|e| Error::malformed(format!("its entry in the config is malformed: {e}")));
        entries.push((name.clone(), payload));
    }
    Ok(entries)
}

#[derive(Deserialize)]
struct Config<'a> {
    #[serde(borrow)]
    config: Entries<'a>,
}

/// A JSON object in its own order, its values not yet looked at.
struct Entries<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Entries<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of entries")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}
