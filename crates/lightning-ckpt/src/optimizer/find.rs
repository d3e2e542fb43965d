//! The names of an optimizer's parameters: recorded, given, or the only ones that fit.

use std::collections::{HashMap, HashSet};

use ckptkit_core::{Dtype, DtypeClass, Error, Result, StorageId, Tensor, TensorBytes};

use super::states::Stored;
use super::{Assignment, NameSource, OptimizerView, Parameter, ParameterNames, assign};

/// Buffers of `torch.nn`'s norms: shaped as the parameters beside them, and never trained.
const NORM_BUFFERS: [&str; 3] = ["running_mean", "running_var", "num_batches_tracked"];
/// Integers that an example tells of.
const MAX_TOLD: usize = 20;

/// What may be a parameter.
struct Candidate<'a> {
    name: &'a str,
    shape: &'a [u64],
}

pub(super) fn named(
    state_dict: &[(&str, &Tensor)],
    stored: Vec<Stored>,
    names: &ParameterNames,
) -> Result<Vec<OptimizerView>> {
    let mut found: Vec<Option<(Vec<String>, NameSource)>> = vec![None; stored.len()];
    let weights: HashMap<&str, &[u64]> =
        state_dict.iter().map(|(name, tensor)| (*name, tensor.shape())).collect();
    let mut open: Vec<usize> = Vec::new();
    for (i, optimizer) in stored.iter().enumerate() {
        found[i] = match names {
            ParameterNames::Each(lists) => {
                let list = given(i, optimizer, lists, &weights)?;
                Some((list.to_vec(), NameSource::Given))
            }
            _ => recorded(optimizer, &weights),
        };
        if found[i].is_none() {
            open.push(i);
        }
    }
    if let ParameterNames::Each(lists) = names {
        if lists.len() != stored.len() {
            return Err(Error::invalid(format!(
                "names are given for {} optimizers, the checkpoint has {}",
                lists.len(),
                stored.len()
            )));
        }
    }
    let source = if matches!(names, ParameterNames::Model(_)) {
        NameSource::Given
    } else {
        NameSource::Found
    };
    let all = match names {
        ParameterNames::Model(list) => vec![listed(list, &weights)?],
        _ => {
            let (narrow, wide) = candidates(state_dict);
            vec![narrow, wide]
        }
    };
    let mut views: Vec<Option<OptimizerView>> = Vec::new();
    let mut pending: HashMap<usize, NameSource> = HashMap::new();
    solve(&stored, &all, &open, &source, &mut found, &mut pending);
    for (i, optimizer) in stored.into_iter().enumerate() {
        let mut parameters = optimizer.parameters;
        let source = match found[i].take() {
            Some((names, source)) => {
                for (parameter, name) in parameters.iter_mut().zip(names) {
                    parameter.name = Some(name);
                }
                source
            }
            None => pending.remove(&i).unwrap_or(NameSource::NoFit),
        };
        views.push(Some(OptimizerView::new(i, parameters, source)));
    }
    Ok(views.into_iter().flatten().collect())
}

/// Names the optimizers one by one; then those that several ways are left for once more, without the
/// parameters that others have; then all that are left together.
fn solve(
    stored: &[Stored],
    all: &[Vec<Candidate<'_>>],
    open: &[usize],
    source: &NameSource,
    found: &mut [Option<(Vec<String>, NameSource)>],
    pending: &mut HashMap<usize, NameSource>,
) {
    for (round, candidates) in all.iter().enumerate() {
        // What fits no parameters may still fit buffers that look like those of norms.
        let mut left: Vec<usize> = open
            .iter()
            .copied()
            .filter(|i| found[*i].is_none())
            .filter(|i| round == 0 || pending.get(i) == Some(&NameSource::NoFit))
            .collect();
        let mut taken: HashSet<String> = HashSet::new();
        loop {
            let free: Vec<&Candidate<'_>> =
                candidates.iter().filter(|c| !taken.contains(c.name)).collect();
            left.retain(|&i| match one(&free, &[&stored[i].parameters]) {
                Ok(names) => {
                    found[i] = Some((names.into_iter().flatten().collect(), source.clone()));
                    pending.remove(&i);
                    false
                }
                Err(why) => {
                    // What another optimizer has may be this one's as well, after all.
                    if why != NameSource::NoFit || !pending.contains_key(&i) {
                        pending.insert(i, why);
                    }
                    true
                }
            });
            let named = found.iter().flatten();
            let now: HashSet<String> = named.flat_map(|(names, _)| names.iter().cloned()).collect();
            if left.is_empty() || now == taken {
                break;
            }
            taken = now;
        }
        left.retain(|i| matches!(pending.get(i), Some(NameSource::Ambiguous { .. })));
        if left.len() > 1 {
            let free: Vec<&Candidate<'_>> =
                candidates.iter().filter(|c| !taken.contains(c.name)).collect();
            let optimizers: Vec<&[Parameter]> =
                left.iter().map(|&i| &stored[i].parameters[..]).collect();
            if let Ok(names) = one(&free, &optimizers) {
                for (&i, names) in left.iter().zip(names) {
                    found[i] = Some((names, source.clone()));
                    pending.remove(&i);
                }
            }
        }
    }
}

/// The names of the parameters of some optimizers that have none in common.
fn one(
    candidates: &[&Candidate<'_>],
    optimizers: &[&[Parameter]],
) -> Result<Vec<Vec<String>>, NameSource> {
    let shapes: Vec<&[u64]> = candidates.iter().map(|c| c.shape).collect();
    let known: HashSet<&[u64]> = shapes.iter().copied().collect();
    let mut groups: Vec<Vec<Option<&[u64]>>> = Vec::new();
    let mut members: Vec<Vec<(usize, usize)>> = Vec::new();
    for (o, parameters) in optimizers.iter().enumerate() {
        let base = groups.len();
        for (i, parameter) in parameters.iter().enumerate() {
            let at = base + parameter.group;
            if groups.len() <= at {
                groups.resize_with(at + 1, Vec::new);
                members.resize_with(at + 1, Vec::new);
            }
            groups[at].push(known_shape(parameter, &known));
            members[at].push((o, i));
        }
    }
    let names = |placement: &[Vec<usize>]| -> Vec<Vec<String>> {
        let mut out: Vec<Vec<String>> =
            optimizers.iter().map(|p| vec![String::new(); p.len()]).collect();
        for (places, members) in placement.iter().zip(&members) {
            for (&at, &(o, i)) in places.iter().zip(members) {
                out[o][i] = candidates[at].name.to_owned();
            }
        }
        out
    };
    match assign(&shapes, &groups) {
        Assignment::Unique(placement) => Ok(names(&placement)),
        Assignment::Impossible => Err(NameSource::NoFit),
        Assignment::Ambiguous { count, examples } => {
            let examples: Vec<Vec<String>> =
                examples.iter().map(|e| names(e).into_iter().next().unwrap_or_default()).collect();
            let parameters = optimizers.first().copied().unwrap_or_default();
            Err(NameSource::Ambiguous { ways: count, examples: differences(parameters, &examples) })
        }
    }
}

/// The shape that a parameter must have: `None` where its state does not tell.
fn known_shape<'p>(parameter: &'p Parameter, known: &HashSet<&[u64]>) -> Option<&'p [u64]> {
    if let Some(shape) = &parameter.shape {
        return Some(shape);
    }
    // Of states that are not known all must agree, and be the shape of something. What stands
    // deeper has shapes of its own.
    let direct = parameter.tensors.iter().filter(|t| !t.key.contains('.'));
    let mut shapes = direct.map(|t| &t.shape[..]).filter(|s| !s.is_empty());
    let first = shapes.next()?;
    (shapes.all(|s| s == first) && known.contains(first)).then_some(first)
}

/// Of each example the integers that it names otherwise than another one does.
fn differences(parameters: &[Parameter], examples: &[Vec<String>]) -> Vec<Vec<(u64, String)>> {
    let differ = |i: usize| examples.iter().any(|e| e.get(i) != examples[0].get(i));
    let integers: Vec<usize> =
        (0..parameters.len()).filter(|&i| differ(i)).take(MAX_TOLD).collect();
    let told = |names: &Vec<String>| {
        integers.iter().map(|&i| (parameters[i].integer, names[i].clone())).collect()
    };
    examples.iter().map(told).collect()
}

/// What in the state dict may be a parameter, in its order: floats, tied ones once. Without the
/// buffers of norms, and with them.
fn candidates<'a>(
    state_dict: &[(&'a str, &'a Tensor)],
) -> (Vec<Candidate<'a>>, Vec<Candidate<'a>>) {
    let mut seen = HashSet::new();
    let mut wide = Vec::new();
    for (name, tensor) in state_dict {
        let trained = matches!(tensor.dtype().class(), DtypeClass::Float | DtypeClass::Complex);
        if trained && place(tensor).is_none_or(|place| seen.insert(place)) {
            wide.push(Candidate { name, shape: tensor.shape() });
        }
    }
    let is_norm = |name: &str| name.rsplit('.').next().is_some_and(|n| NORM_BUFFERS.contains(&n));
    let narrow = wide.iter().filter(|c| !is_norm(c.name));
    (narrow.map(|c| Candidate { ..*c }).collect(), wide)
}

/// Equal for tensors that are tied.
type Place = (StorageId, u64, Vec<u64>, Dtype, Vec<u64>);

fn place(tensor: &Tensor) -> Option<Place> {
    if tensor.info().numel() == 0 {
        return None;
    }
    let (offset, strides) = match tensor.bytes() {
        TensorBytes::Range(section) => (section.offset(), Vec::new()),
        TensorBytes::Strided(view) => (view.offset, view.strides.clone()),
        _ => return None,
    };
    Some((tensor.info().storage()?, offset, tensor.shape().to_vec(), tensor.dtype(), strides))
}

/// The names that the groups record, as the state dict has them: an optimizer of a part of the
/// model knows them without the part's own name.
fn recorded(
    optimizer: &Stored,
    weights: &HashMap<&str, &[u64]>,
) -> Option<(Vec<String>, NameSource)> {
    let names = optimizer.recorded.as_ref()?;
    if optimizer.by_name {
        return Some((names.clone(), NameSource::Recorded));
    }
    let fits = |prefix: &str| {
        names.iter().zip(&optimizer.parameters).all(|(name, parameter)| {
            let shape = weights.get(format!("{prefix}{name}").as_str());
            shape.is_some_and(|s| parameter.shape.as_ref().is_none_or(|wanted| wanted == s))
        })
    };
    let with = |prefix: &str| names.iter().map(|name| format!("{prefix}{name}")).collect();
    if fits("") {
        return Some((with(""), NameSource::Recorded));
    }
    let first = names.first()?;
    let mut prefixes: Vec<&str> = weights
        .keys()
        .filter_map(|key| key.strip_suffix(first.as_str()))
        .filter(|prefix| prefix.ends_with('.') && fits(prefix))
        .collect();
    prefixes.sort_unstable();
    match prefixes[..] {
        [prefix] => Some((with(prefix), NameSource::Recorded)),
        _ => None,
    }
}

/// The names that are given for the integers of one optimizer.
fn given<'n>(
    index: usize,
    optimizer: &Stored,
    lists: &'n [Vec<String>],
    weights: &HashMap<&str, &[u64]>,
) -> Result<&'n [String]> {
    let place = |e: Error| e.within(format_args!("optimizer {index}"));
    let Some(names) = lists.get(index) else { return Ok(&[]) };
    if names.len() != optimizer.parameters.len() {
        return Err(place(Error::invalid(format!(
            "{} names are given, the optimizer has {} parameters",
            names.len(),
            optimizer.parameters.len()
        ))));
    }
    let mut seen = HashSet::new();
    for (name, parameter) in names.iter().zip(&optimizer.parameters) {
        let shape = weights.get(name.as_str()).ok_or_else(|| place(absent(name)))?;
        if parameter.shape.as_ref().is_some_and(|wanted| wanted != shape) {
            return Err(place(Error::invalid(format!(
                "{name:?} has the shape {shape:?}, the state of parameter {} is for {:?}",
                parameter.integer,
                parameter.shape.as_deref().unwrap_or_default()
            ))));
        }
        if !seen.insert(name) {
            return Err(place(Error::invalid(format!("{name:?} is given twice"))));
        }
    }
    Ok(names)
}

fn absent(name: &str) -> Error {
    Error::not_found(format!("the state dict has no {name:?}"))
        .hint("names are those of the state dict, in full")
}

/// The model's parameters as the caller lists them.
fn listed<'a>(
    names: &'a [String],
    weights: &HashMap<&'a str, &'a [u64]>,
) -> Result<Vec<Candidate<'a>>> {
    let mut seen = HashSet::new();
    let candidate = |name: &'a String| {
        let shape = *weights.get(name.as_str()).ok_or_else(|| absent(name))?;
        if !seen.insert(name) {
            return Err(Error::invalid(format!("{name:?} is given twice")));
        }
        Ok(Candidate { name, shape })
    };
    names.iter().map(candidate).collect()
}
