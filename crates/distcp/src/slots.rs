//! A tree that is put together from the paths of its leaves.

use std::collections::HashMap;

use ckptkit_core::{Error, Key, Result};

/// A tree that is being filled.
pub(crate) enum Slot<T> {
    /// Its pairs, and where each key is among them.
    Map(Vec<(String, Option<Slot<T>>)>, HashMap<String, usize>),
    List(Vec<Option<Slot<T>>>),
    Leaf(T),
}

/// Paths longer than this are no state dict's.
const MAX_DEPTH: usize = 200;

/// Puts a value where its path says. `padding` is how many list positions may still be made up.
pub(crate) fn insert<T>(
    root: &mut Option<Slot<T>>,
    keys: &[Key],
    value: T,
    padding: &mut usize,
) -> Result<()> {
    if keys.len() > MAX_DEPTH {
        return Err(Error::limit(format!("a path of {} keys", keys.len())));
    }
    let conflict = |what: String| {
        Error::malformed(format!("its path {what}"))
            .hint("planner_data contradicts itself; list the tensors by name instead")
    };
    let mut at = root;
    for key in keys {
        let slot = at.get_or_insert_with(|| match key {
            Key::Index(_) => Slot::List(Vec::new()),
            _ => Slot::Map(Vec::new(), HashMap::new()),
        });
        at = match (slot, key) {
            (Slot::Map(pairs, index), Key::Str(name) | Key::Other(name)) => {
                let i = *index.entry(name.to_string()).or_insert(pairs.len());
                if i == pairs.len() {
                    pairs.push((name.to_string(), None));
                }
                &mut pairs[i].1
            }
            (Slot::List(items), &Key::Index(i)) => {
                let missing = i.saturating_sub(items.len() as u64);
                let i = usize::try_from(i).ok().filter(|_| missing <= *padding as u64);
                let i = i.ok_or_else(|| {
                    let n = items.len();
                    conflict(format!("has a list position far beyond the {n} items of its list"))
                })?;
                if i >= items.len() {
                    *padding -= i - items.len();
                    items.resize_with(i + 1, || None);
                }
                &mut items[i]
            }
            (Slot::Leaf(_), _) => return Err(conflict("goes on where another one ends".into())),
            _ => return Err(conflict("has a position where another one has a key".into())),
        };
    }
    if at.is_some() {
        return Err(conflict("ends where another one goes on".into()));
    }
    *at = Some(Slot::Leaf(value));
    Ok(())
}

#[cfg(test)]
mod tests {
    use torch_save::Value;

    use super::*;
    use crate::tree::into_value;

    fn tree(paths: &[&[Key]]) -> Result<Value> {
        let mut root = None;
        let mut padding = paths.len() + 8;
        for (i, path) in (0..).zip(paths) {
            insert(&mut root, path, Value::Int(i), &mut padding)?;
        }
        Ok(root.map_or(Value::None, into_value))
    }

    fn s(k: &str) -> Key {
        Key::Str(k.into())
    }

    #[test]
    fn text_makes_dicts_and_positions_make_lists() {
        let got = tree(&[&[s("a"), Key::Index(1)], &[s("a"), Key::Index(0)], &[s("b.c"), s("0")]]);
        let list = Value::List(vec![Value::Int(1), Value::Int(0)]);
        let dict = Value::Dict(vec![(Value::Str("0".into()), Value::Int(2))]);
        let expected =
            Value::Dict(vec![(Value::Str("a".into()), list), (Value::Str("b.c".into()), dict)]);
        assert_eq!(got.unwrap(), expected);
    }

    #[test]
    fn contradictions() {
        let refused = |paths: &[&[Key]]| tree(paths).unwrap_err().to_string();
        assert!(refused(&[&[s("a")], &[s("a"), s("b")]]).contains("goes on where"));
        assert!(refused(&[&[s("a"), s("b")], &[s("a")]]).contains("ends where"));
        assert!(
            refused(&[&[s("a"), s("b")], &[s("a"), Key::Index(0)]]).contains("a position where")
        );
        assert!(refused(&[&[Key::Index(1 << 40)]]).contains("far beyond"));
        assert!(refused(&[&[Key::Index(u64::MAX)]]).contains("far beyond"));
        assert!(refused(&[&vec![s("a"); 201]]).contains("201 keys"));
    }
}
