//! `ckptkit show`.

use std::io::{self, Write};

use ckptkit::{Checkpoint, ErrorKind, Json, Value};
use serde::Serialize;

use super::print_json;
use crate::args::Show;
use crate::elements::{self, Statistics};
use crate::exit::{Exit, Failure, Run};
use crate::table::{bytes, plain, shape};

/// Elements of a tensor that are printed.
const SHOWN_ELEMENTS: u64 = 16;

#[derive(Serialize)]
struct TensorView<'a> {
    #[serde(rename = "$type")]
    kind: &'static str,
    name: &'a str,
    dtype: &'static str,
    shape: &'a [u64],
    bytes: u64,
    first: &'a [Element],
    statistics: Option<&'a Statistics>,
}

/// A number of a tensor as JSON: text where JSON has no number for it.
#[derive(Serialize)]
#[serde(untagged)]
enum Element {
    Number(f64),
    Text(String),
}

pub(crate) fn run(args: &Show) -> Run {
    let checkpoint = Checkpoint::open(&args.path)?;
    let key = args.key.as_deref().unwrap_or("");
    let value = match checkpoint.tensor(key) {
        Ok(tensor) => return show_tensor(&tensor, args.json),
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e.into()),
        Err(absent) => match checkpoint.value(key) {
            // What a weight is called without its prefix.
            Err(e) if e.kind() == ErrorKind::NotFound => {
                let weight = checkpoint
                    .weights()
                    .ok()
                    .and_then(|w| w.tensors.into_iter().find(|t| t.name() == key));
                match weight {
                    Some(tensor) => return show_tensor(&tensor, args.json),
                    None if checkpoint.value_keys().is_empty()
                        && checkpoint.config()?.is_none() =>
                    {
                        return Err(absent.into());
                    }
                    None => return Err(e.into()),
                }
            }
            found => found?,
        },
    };
    if args.json {
        print_json(&Json(&value))?;
        return Ok(Exit::Done);
    }
    let mut out = io::stdout().lock();
    match &value {
        Value::Str(text) => {
            // An artifact's text is printed as it is; a value that is one line, too.
            out.write_all(text.as_bytes())?;
            if !text.ends_with('\n') {
                writeln!(out)?;
            }
        }
        value => {
            serde_json::to_writer_pretty(&mut out, &Json(value)).map_err(io::Error::from)?;
            writeln!(out)?;
        }
    }
    Ok(Exit::Done)
}

fn show_tensor(tensor: &ckptkit::Tensor, json: bool) -> Result<Exit, Failure> {
    let readable = tensor.has_bytes() && elements::is_numeric(tensor.dtype());
    let (first, statistics) = if readable {
        (elements::first(tensor, SHOWN_ELEMENTS)?, Some(elements::statistics(tensor)?))
    } else {
        (Vec::new(), None)
    };
    if json {
        let number = |&f: &f64| {
            if f.is_finite() { Element::Number(f) } else { Element::Text(f.to_string()) }
        };
        let numbers: Vec<Element> = first.iter().map(number).collect();
        print_json(&TensorView {
            kind: "tensor",
            name: tensor.name(),
            dtype: tensor.dtype().name(),
            shape: tensor.shape(),
            bytes: tensor.byte_len(),
            first: &numbers,
            statistics: statistics.as_ref(),
        })?;
        return Ok(Exit::Done);
    }
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{} {} {} ({})",
        plain(tensor.name()),
        tensor.dtype(),
        shape(tensor.shape()),
        bytes(tensor.byte_len())
    )?;
    if let Some(s) = statistics {
        let shown: Vec<String> = first.iter().map(|f| format!("{f}")).collect();
        let more = if tensor.info().numel() > SHOWN_ELEMENTS { ", …" } else { "" };
        writeln!(out, "[{}{more}]", shown.join(", "))?;
        if s.finite > 0 {
            writeln!(out, "min {} max {} mean {} std {}", s.min, s.max, s.mean, s.std)?;
        }
        if s.nan + s.infinite > 0 {
            writeln!(out, "NaN {} infinite {}", s.nan, s.infinite)?;
        }
    } else if let Err(e) = tensor.read_into(0, &mut []) {
        writeln!(out, "{}", plain(e.message()))?;
    }
    Ok(Exit::Done)
}
