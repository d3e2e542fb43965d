//! Names that share one tensor.

use std::collections::HashMap;

use ckptkit_core::{Error, Result};

use super::job::{Chosen, Job};
use super::wish::Aliases;

/// Applies the policy for names that share one tensor.
pub(super) fn untie(job: &mut Job<'_>, chosen: Vec<Chosen>) -> Result<Vec<Chosen>> {
    if job.wish.aliases == Aliases::Copy {
        let unshared = |c: Chosen| Chosen { tensor: c.tensor.unshared(), ..c };
        return Ok(chosen.into_iter().map(unshared).collect());
    }
    if job.wish.target.keeps_names() && job.wish.aliases == Aliases::Drop {
        return Ok(chosen);
    }
    // Names of one storage, by what they see of it.
    let mut groups: HashMap<_, Vec<usize>> = HashMap::new();
    for (i, c) in chosen.iter().enumerate() {
        if let Some(id) = c.tensor.info().storage() {
            groups.entry(id).or_default().push(i);
        }
    }
    let name = |i: usize| chosen[i].tensor.name();
    let mut removed: HashMap<usize, usize> = HashMap::new();
    for members in groups.into_values().filter(|m| m.len() > 1) {
        let mut by_name = members;
        by_name.sort_by(|&a, &b| name(a).cmp(name(b)));
        for (k, &later) in by_name.iter().enumerate() {
            let kept = by_name[..k].iter().find(|&&first| {
                !removed.contains_key(&first)
                    && chosen[first].tensor.is_tied_with(&chosen[later].tensor)
            });
            if let Some(&first) = kept {
                removed.insert(later, first);
            }
        }
    }
    if job.wish.aliases == Aliases::Error {
        if let Some((&later, &first)) = removed.iter().min() {
            return Err(Error::invalid(format!(
                "{:?} and {:?} share one tensor",
                name(first),
                name(later)
            ))
            .hint("write one of them (--aliases drop) or both (--aliases copy)"));
        }
        return Ok(chosen);
    }
    for (&later, &first) in &removed {
        job.report.aliases.insert(name(later).to_owned(), name(first).to_owned());
    }
    // What still shares a storage is written whole under each name.
    Ok(chosen
        .into_iter()
        .enumerate()
        .filter(|(i, _)| !removed.contains_key(i))
        .map(|(_, c)| Chosen { tensor: c.tensor.unshared(), ..c })
        .collect())
}
