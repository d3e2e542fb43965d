//! `ckptkit ls`.

use std::collections::BTreeMap;
use std::io;

use ckptkit::{Glob, Tensor};
use serde::{Serialize, Serializer};

use super::{print_json, tensors};
use crate::args::{Ls, Sort};
use crate::exit::{Exit, Run, warn};
use crate::table::{self, Cell};

#[derive(Serialize)]
struct Listing<'a> {
    #[serde(serialize_with = "rows")]
    tensors: &'a [&'a Tensor],
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
    let mut found = tensors(checkpoint, args.weights, args.weights_key.as_deref())?;
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
        print_json(&Listing { tensors: &found })?;
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

fn rows<S: Serializer>(tensors: &[&Tensor], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(tensors.iter().map(|t| row(t)))
}

fn row(tensor: &Tensor) -> Row<'_> {
    Row {
        name: tensor.name(),
        dtype: tensor.dtype().name(),
        shape: tensor.shape(),
        bytes: tensor.byte_len(),
    }
}

fn print_table(tensors: &[&Tensor]) -> io::Result<()> {
    let rows = tensors.iter().map(|t| {
        let name = Cell::Name(0, t.name());
        [name, Cell::Ours(t.dtype().name()), Cell::Shape(t.shape()), Cell::Number(t.byte_len())]
    });
    table::write(&mut io::stdout().lock(), ["name", "dtype", "shape", "bytes"], &[3], rows)
}

#[derive(Default)]
struct Branch<'a> {
    tensors: u64,
    elements: u64,
    bytes: u64,
    leaf: Option<&'a Tensor>,
    children: BTreeMap<&'a str, Branch<'a>>,
}

/// Names nest at most a few dozen parts deep; longer ones stay whole below this.
const MAX_PARTS: usize = 64;

fn print_tree(tensors: &[&Tensor]) -> io::Result<()> {
    let mut root = Branch::default();
    for t in tensors {
        let mut at = &mut root;
        for part in std::iter::once("").chain(t.name().splitn(MAX_PARTS, '.')) {
            if !part.is_empty() {
                at = at.children.entry(part).or_default();
            }
            at.tensors += 1;
            at.elements = at.elements.saturating_add(t.info().numel());
            at.bytes = at.bytes.saturating_add(t.byte_len());
        }
        at.leaf = Some(t);
    }
    let mut rows = Vec::new();
    rows_of(".", &root, 0, &mut rows);
    let header = ["name", "tensors", "elements", "bytes", "tensor"];
    table::write(&mut io::stdout().lock(), header, &[1, 2, 3], rows.iter().copied())
}

fn rows_of<'a>(name: &'a str, branch: &Branch<'a>, depth: usize, rows: &mut Vec<[Cell<'a>; 5]>) {
    rows.push([
        Cell::Name(depth, name),
        Cell::Grouped(branch.tensors),
        Cell::Grouped(branch.elements),
        Cell::Bytes(branch.bytes),
        branch.leaf.map_or(Cell::Empty, |t| Cell::Tensor(t.dtype().name(), t.shape())),
    ]);
    for (name, child) in &branch.children {
        rows_of(name, child, depth + 1, rows);
    }
}
