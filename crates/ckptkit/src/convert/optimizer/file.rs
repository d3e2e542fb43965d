//! The names of parameters that a user gives in a file.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use ckptkit_core::{Error, Result, Section};
use lightning_ckpt::optimizer::ParameterNames;

/// Bytes of a file of names that are read.
const MAX_BYTES: u64 = 256 << 20;

const EXPECTED: &str = "one name a line is expected, of every parameter of the model in the order of \
                        named_parameters(); or a JSON list of them, or a list of lists, the names \
                        of every optimizer in the order of its numbers";

/// Names, and where in the file each stands.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) names: ParameterNames,
    path: PathBuf,
    places: HashMap<String, String>,
}

/// Reads names: a line each, blank lines and those that start with `#` aside; or JSON, a list of
/// names or of lists.
pub(super) fn read(path: &Path) -> Result<Given> {
    let parse = || {
        let bytes = Section::open(path)?.read(MAX_BYTES)?;
        let text = std::str::from_utf8(&bytes).map_err(|e| {
            let line = bytes[..e.valid_up_to()].iter().filter(|b| **b == b'\n').count() + 1;
            Error::malformed("the names are not UTF-8").within(format_args!("line {line}"))
        })?;
        let text = text.trim_start_matches('\u{feff}');
        if text.trim_start().starts_with('[') { json(text) } else { lines(text) }
    };
    let (names, places) = parse().map_err(|e| {
        let e = if e.kind() == ckptkit_core::ErrorKind::Malformed { e.hint(EXPECTED) } else { e };
        e.in_file(path)
    })?;
    Ok(Given { names, path: path.to_path_buf(), places })
}

type Parsed = (ParameterNames, HashMap<String, String>);

fn lines(text: &str) -> Result<Parsed> {
    let mut names = Vec::new();
    let mut places = HashMap::new();
    for (i, line) in text.lines().enumerate() {
        let name = line.trim();
        if name.is_empty() || name.starts_with('#') {
            continue;
        }
        let place = format!("line {}", i + 1);
        if name.contains(char::is_whitespace) {
            return Err(Error::malformed(format!("{name:?} is no name")).within(place));
        }
        once(&mut places, name, place)?;
        names.push(name.to_owned());
    }
    if names.is_empty() {
        return Err(Error::malformed("there are no names in it"));
    }
    Ok((ParameterNames::Model(names), places))
}

fn json(text: &str) -> Result<Parsed> {
    use serde_json::Value;
    let value: Value = serde_json::from_str(text).map_err(|e| {
        Error::malformed(format!("it starts as JSON and is none: {e}"))
            .within(format_args!("line {}", e.line()))
    })?;
    let Value::Array(items) = value else {
        return Err(Error::malformed("it is no list"));
    };
    if !items.first().is_some_and(Value::is_array) {
        let (names, places) = list("", items)?;
        if names.is_empty() {
            return Err(Error::malformed("there are no names in it"));
        }
        return Ok((ParameterNames::Model(names), places));
    }
    let mut places = HashMap::new();
    let mut lists = Vec::with_capacity(items.len());
    for (i, item) in items.into_iter().enumerate() {
        let Value::Array(items) = item else {
            let no_list = Error::malformed(format!("{item} is no list of names"));
            return Err(no_list.within(format_args!("list {}", i + 1)));
        };
        // Two optimizers can have one parameter.
        let (names, of_list) = list(&format!("list {}, ", i + 1), items)?;
        places.extend(of_list);
        lists.push(names);
    }
    Ok((ParameterNames::Each(lists), places))
}

fn list(of: &str, items: Vec<serde_json::Value>) -> Result<(Vec<String>, HashMap<String, String>)> {
    let mut places = HashMap::new();
    let mut names = Vec::with_capacity(items.len());
    for (i, item) in items.into_iter().enumerate() {
        let place = format!("{of}item {}", i + 1);
        let serde_json::Value::String(name) = item else {
            return Err(Error::malformed(format!("{item} is no name")).within(place));
        };
        once(&mut places, &name, place)?;
        names.push(name);
    }
    Ok((names, places))
}

/// No parameter is there twice.
fn once(places: &mut HashMap<String, String>, name: &str, place: String) -> Result<()> {
    match places.insert(name.to_owned(), place.clone()) {
        None => Ok(()),
        Some(first) => {
            Err(Error::malformed(format!("{name:?} is there twice, first in {first}"))
                .within(place))
        }
    }
}

impl Given {
    /// All of them are names of weights.
    pub(super) fn check(&self, weights: &[&str]) -> Result<()> {
        let known: std::collections::HashSet<&str> = weights.iter().copied().collect();
        let all = match &self.names {
            ParameterNames::Model(names) => names.iter().collect::<Vec<_>>(),
            ParameterNames::Each(lists) => lists.iter().flatten().collect(),
            _ => Vec::new(),
        };
        let Some(missing) = all.into_iter().find(|name| !known.contains(name.as_str())) else {
            return Ok(());
        };
        let near: Vec<&str> = {
            let tail = missing.rsplit('.').next().unwrap_or(missing);
            weights.iter().copied().filter(|w| w.ends_with(tail)).take(3).collect()
        };
        let hint = match &near[..] {
            [] => "names are those of the state dict, in full".to_owned(),
            near => format!(
                "names are those of the state dict, in full: did you mean {}?",
                near.join(", ")
            ),
        };
        let place = self.places.get(missing).cloned().unwrap_or_default();
        let e = Error::not_found(format!("no weight is called {missing:?}"));
        Err(e.within(place).hint(hint).in_file(&self.path))
    }

    /// An error that the names are to blame for.
    pub(super) fn blame(&self, e: Error) -> Error {
        e.hint(EXPECTED).in_file(&self.path)
    }
}
