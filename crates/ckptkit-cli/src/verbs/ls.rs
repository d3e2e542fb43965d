//! `ckptkit ls`.

use std::collections::BTreeMap;
use std::io::{self, Write};

use ckptkit::{Glob, Tensor};
use serde::Serialize;

use super::{print_json, tensors};
use crate::args::{Ls, Sort};
use crate::exit::{Exit, Run, warn};
use crate::table::{bytes, columns, grouped, plain, shape};

#[derive(Serialize)]
struct Listing<'a> {
    tensors: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    dtype: &'static str,
    shape: &'a [u64],
    bytes: u64,
}

pub(crate) fn run(args: &Ls) -> Run {
    let checkpoint = args.open.checkpoint(&args.path)?;
    let globs: Vec<Glob> = args.globs.iter().map(|g| Glob::new(g)).collect::<Result<_, _>>()?;
    let mut found = tensors(&checkpoint, args.weights, args.weights_key.as_deref())?;
    found.retain(|t| globs.is_empty() || globs.iter().any(|g| g.matches(t.name())));
    match args.sort {
        Some(Sort::Name) => found.sort_by(|a, b| a.name().cmp(b.name())),
        Some(Sort::Bytes) => found.sort_by_key(|t| std::cmp::Reverse(t.byte_len())),
        Some(Sort::Dtype) => {
            found.sort_by(|a, b| (a.dtype(), a.name()).cmp(&(b.dtype(), b.name())))
        }
        None => {}
    }
    if found.is_empty() && !globs.is_empty() {
        let patterns: Vec<String> = globs.iter().map(|g| format!("{:?}", g.as_str())).collect();
        let hint = "`*` stays between dots, `**` crosses them";
        warn(&format!("warning: no tensor matches {}; {hint}", patterns.join(" or ")));
    }
    if args.json {
        print_json(&Listing { tensors: found.iter().map(row).collect() })?;
    } else if args.tree {
        print_tree(&found)?;
    } else {
        print_table(&found)?;
    }
    for (_, e) in checkpoint.failures() {
        warn(&format!("warning: {e}"));
    }
    Ok(Exit::Done)
}

fn row(tensor: &Tensor) -> Row<'_> {
    Row {
        name: tensor.name(),
        dtype: tensor.dtype().name(),
        shape: tensor.shape(),
        bytes: tensor.byte_len(),
    }
}

fn print_table(tensors: &[Tensor]) -> io::Result<()> {
    let rows: Vec<Vec<String>> = tensors
        .iter()
        .map(|t| {
            vec![plain(t.name()), t.dtype().to_string(), shape(t.shape()), t.byte_len().to_string()]
        })
        .collect();
    io::stdout()
        .lock()
        .write_all(columns(&["name", "dtype", "shape", "bytes"], &rows, &[3]).as_bytes())
}

#[derive(Default)]
struct Branch {
    tensors: u64,
    elements: u64,
    bytes: u64,
    leaf: Option<String>,
    children: BTreeMap<String, Branch>,
}

/// Names nest at most a few dozen parts deep; longer ones stay whole below this.
const MAX_PARTS: usize = 64;

fn print_tree(tensors: &[Tensor]) -> io::Result<()> {
    let mut root = Branch::default();
    for t in tensors {
        let mut at = &mut root;
        for part in std::iter::once("").chain(t.name().splitn(MAX_PARTS, '.')) {
            if !part.is_empty() {
                at = at.children.entry(part.to_owned()).or_default();
            }
            at.tensors += 1;
            at.elements = at.elements.saturating_add(t.info().numel());
            at.bytes = at.bytes.saturating_add(t.byte_len());
        }
        at.leaf = Some(format!("{} {}", t.dtype(), shape(t.shape())));
    }
    let mut rows = Vec::new();
    rows_of(".", &root, 0, &mut rows);
    io::stdout().lock().write_all(
        columns(&["name", "tensors", "elements", "bytes", "tensor"], &rows, &[1, 2, 3]).as_bytes(),
    )
}

fn rows_of(name: &str, branch: &Branch, depth: usize, rows: &mut Vec<Vec<String>>) {
    rows.push(vec![
        format!("{}{}", "  ".repeat(depth), plain(name)),
        grouped(branch.tensors),
        grouped(branch.elements),
        bytes(branch.bytes),
        branch.leaf.clone().unwrap_or_default(),
    ]);
    for (name, child) in &branch.children {
        rows_of(name, child, depth + 1, rows);
    }
}
