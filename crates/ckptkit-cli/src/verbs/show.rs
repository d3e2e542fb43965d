//! `ckptkit show`.

use std::io::{self, IsTerminal, Write};

use ckptkit::elements::{self, Statistics};
use ckptkit::{Checkpoint, Error, ErrorKind, Json, Tensor, Value};
use serde::Serialize;

use super::{print_json, print_text};
use crate::args::Show;
use crate::elements::element;
use crate::exit::{Exit, Failure, Run};
use crate::text::{bytes, count, plain, shape};

/// Elements of a tensor that are printed.
const SHOWN_ELEMENTS: u64 = 16;
/// An artifact is read whole.
const MAX_ARTIFACT_BYTES: u64 = 1 << 30;

#[derive(Serialize)]
struct TensorView<'a> {
    #[serde(rename = "$type")]
    kind: &'static str,
    name: &'a str,
    dtype: &'static str,
    shape: &'a [u64],
    bytes: u64,
    first: Vec<Json<'a>>,
    statistics: Option<Statistics>,
}

/// What a key stands for.
enum Found {
    Tensor(Tensor),
    Value(Value),
}

pub(crate) fn run(args: &Show) -> Run {
    let checkpoint = args.open.checkpoint(&args.path)?;
    match find(checkpoint, args.key.as_deref().unwrap_or(""))? {
        Found::Tensor(tensor) => show_tensor(&tensor, args.json),
        Found::Value(value) if args.json => {
            print_json(&Json(&value))?;
            Ok(Exit::Done)
        }
        Found::Value(value) => show_value(&value),
    }
}

/// A tensor by its name; a value; a weight by its name without the weights' key; an artifact.
fn find(checkpoint: &Checkpoint, key: &str) -> Result<Found, Error> {
    let no_tensor = match checkpoint.tensor(key) {
        Ok(tensor) => return Ok(Found::Tensor(tensor)),
        Err(e) if e.kind() == ErrorKind::NotFound => e,
        Err(e) => return Err(e),
    };
    let no_value = match checkpoint.value(key) {
        Ok(value) => return Ok(Found::Value(value)),
        Err(e) if e.kind() == ErrorKind::NotFound => e,
        Err(e) => return Err(e),
    };
    let weights = checkpoint.weights().ok();
    if let Some(tensor) = weights.and_then(|w| w.tensors.into_iter().find(|t| t.name() == key)) {
        return Ok(Found::Tensor(tensor));
    }
    if let Some(artifact) = checkpoint.artifacts().iter().find(|a| a.name == key) {
        let bytes = artifact.section.read(MAX_ARTIFACT_BYTES)?;
        let value =
            String::from_utf8(bytes).map_or_else(|e| Value::Bytes(e.into_bytes()), Value::Str);
        return Ok(Found::Value(value));
    }
    Err(nothing(checkpoint, key, &no_tensor, no_value))
}

/// Names that are near tell more than what the root holds, and either more than nothing.
fn nothing(checkpoint: &Checkpoint, key: &str, no_tensor: &Error, no_value: Error) -> Error {
    if no_tensor.to_string().contains("did you mean") {
        return no_tensor.clone();
    }
    if no_value.to_string().contains(';') {
        return no_value;
    }
    let mut held = checkpoint.value_keys();
    held.truncate(12);
    let hint = if held.is_empty() {
        "`ckptkit ls` lists the tensors".to_owned()
    } else {
        format!("`ckptkit ls` lists the tensors; values are under: {}", held.join(", "))
    };
    Error::not_found(format!("there is no tensor, value or artifact {key:?}"))
        .in_file(checkpoint.path())
        .hint(hint)
}

fn show_value(value: &Value) -> Run {
    if let Value::Str(text) = value {
        print_text(text)?;
        return Ok(Exit::Done);
    }
    let mut out = io::stdout().lock();
    match value {
        Value::Bytes(raw) | Value::ByteArray(raw) if out.is_terminal() => {
            writeln!(
                out,
                "{} that are no text; redirect the output, or ask with --json",
                count(raw.len(), "byte")
            )?;
        }
        Value::Bytes(raw) | Value::ByteArray(raw) => out.write_all(raw)?,
        value => print_json(&Json(value))?,
    }
    Ok(Exit::Done)
}

fn show_tensor(tensor: &Tensor, json: bool) -> Run {
    let tensor = tensor.resolve()?;
    let dtype = tensor.dtype();
    let first = if tensor.has_bytes() && elements::is_shown(dtype) {
        elements::first(&tensor, SHOWN_ELEMENTS)?
    } else {
        Vec::new()
    };
    let statistics = if tensor.has_bytes() && elements::is_numeric(dtype) {
        Some(elements::statistics(&tensor)?)
    } else {
        None
    };
    if json {
        print_json(&TensorView {
            kind: "tensor",
            name: tensor.name(),
            dtype: dtype.name(),
            shape: tensor.shape(),
            bytes: tensor.byte_len(),
            first: first.iter().map(Json).collect(),
            statistics,
        })?;
    } else {
        print_tensor(&tensor, &first, statistics.as_ref())?;
    }
    Ok(Exit::Done)
}

fn print_tensor(
    tensor: &Tensor,
    first: &[Value],
    statistics: Option<&Statistics>,
) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{} {} {} ({})",
        plain(tensor.name()),
        tensor.dtype(),
        shape(tensor.shape()),
        bytes(tensor.byte_len())
    )?;
    if !tensor.has_bytes() {
        if let Err(e) = tensor.read_into(0, &mut []) {
            writeln!(out, "{}", plain(e.message()))?;
        }
    } else if elements::is_shown(tensor.dtype()) {
        let shown: Vec<String> = first.iter().map(|e| element(tensor.dtype(), e)).collect();
        let more = if tensor.info().numel() > SHOWN_ELEMENTS { ", …" } else { "" };
        writeln!(out, "[{}{more}]", shown.join(", "))?;
    } else {
        writeln!(out, "elements of {} are not shown", tensor.dtype())?;
    }
    if let Some(s) = statistics {
        if s.finite > 0 {
            writeln!(out, "min {} max {} mean {} std {}", s.min, s.max, s.mean, s.std)?;
        }
        if s.nan + s.infinite > 0 {
            writeln!(out, "NaN {} infinite {}", s.nan, s.infinite)?;
        }
    }
    Ok(())
}
