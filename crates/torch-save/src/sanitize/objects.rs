//! Objects of classes that nobody here knows: their attributes, items or pairs, or a description.

use ckptkit_core::Result;

use super::calls::Call;
use super::walk::{Form, Walk};
use crate::pickle::{Kind, Mut, NodeId, NodeRef};
use crate::text::qualified;
use crate::weights_only::what;

/// What an object was given after it was made.
#[derive(Default)]
struct Given {
    pairs: Vec<(NodeId, NodeId)>,
    items: Vec<NodeId>,
    states: Vec<NodeId>,
}

impl Walk<'_> {
    /// The plain form of an object; a description where there is none.
    pub(super) fn object(&mut self, id: NodeId) -> Result<Form> {
        let node = self.document.node(id);
        let Some(call) = Call::of(node) else { return self.described(id) };
        let mut given = Given {
            pairs: node.pairs().iter().map(|(k, v)| (k.id(), v.id())).collect(),
            items: node.iter_items().map(NodeRef::id).collect(),
            states: states(node),
        };
        if let Some(base) = call.base {
            let base_id = base.id();
            // What a subclass of a builtin was made of is its value.
            match base.kind() {
                Kind::Dict => {
                    let own = base.pairs().into_iter().map(|(k, v)| (k.id(), v.id()));
                    given.pairs = own.chain(given.pairs).collect();
                }
                Kind::List => {
                    given.items = base.iter_items().map(NodeRef::id).chain(given.items).collect()
                }
                _ if given.states.is_empty() && is_value(base) => {
                    return Ok(Form::new(base_id, what(base)));
                }
                _ => return self.described(id),
            }
            return match base.kind() {
                Kind::Dict => self.mapping(id, given),
                _ => self.sequence(id, given),
            };
        }
        if call.is_bare() {
            let is_empty = given.states.is_empty() && (call.is_new || is_namespace(call));
            if !given.pairs.is_empty() {
                return self.mapping(id, given);
            }
            if !given.items.is_empty() {
                return self.sequence(id, given);
            }
            return match self.attributes(&given.states) {
                Some(dict) => Ok(Form::new(dict, "dict")),
                None if is_empty => Ok(Form::new(self.document.builder().dict(), "dict")),
                None => self.described(id),
            };
        }
        let untouched = given.pairs.is_empty() && given.items.is_empty() && given.states.is_empty();
        let no_keywords = call.kwargs.is_none_or(|k| k.iter_pairs().next().is_none());
        let args = call.args();
        match args[..] {
            _ if !untouched || !no_keywords => self.described(id),
            // A member of an enum, or an object of a subclass of int, str, tuple, Counter.
            [value] if call.is_new && is_value(value) || is_class_name(call) && is_plain(value) => {
                Ok(Form::new(value.id(), what(value)))
            }
            [_, _, ..] if call.is_new => match call.whole_args() {
                Some(fields) => Ok(Form::new(fields, "tuple")),
                None => self.described(id),
            },
            _ => self.described(id),
        }
    }

    /// A subclass of dict; an `OrderedDict` takes the attributes that a dict would not.
    fn mapping(&mut self, id: NodeId, given: Given) -> Result<Form> {
        let attributes = self.attributes(&given.states);
        if !given.items.is_empty() || !given.states.is_empty() && attributes.is_none() {
            return self.described(id);
        }
        let attributes = attributes.filter(|&dict| self.node(dict).iter_pairs().next().is_some());
        let b = self.document.builder();
        let (node, became) = match attributes {
            Some(_) => (b.call("collections", "OrderedDict", &[]), "OrderedDict"),
            None => (b.dict(), "dict"),
        };
        b.set_items(node, &given.pairs);
        if let Some(attributes) = attributes {
            b.build(node, attributes);
        }
        Ok(Form::new(node, became))
    }

    /// A subclass of list.
    fn sequence(&mut self, id: NodeId, given: Given) -> Result<Form> {
        let attributes = self.attributes(&given.states);
        if !given.pairs.is_empty() || !given.states.is_empty() && attributes.is_none() {
            return self.described(id);
        }
        let names: Vec<String> = attributes
            .into_iter()
            .flat_map(|dict| self.node(dict).iter_pairs().take(12))
            .map(|(key, _)| crate::text::repr(key))
            .collect();
        let b = self.document.builder();
        let list = b.list();
        b.append(list, &given.items);
        let form = Form::new(list, "list");
        if names.is_empty() {
            return Ok(form);
        }
        Ok(form.note(format!("a list has no attributes: {} left out", names.join(", "))))
    }

    /// The dict of an object's attributes: the one that its state is, or made of its parts.
    /// `None` where it has no state, or one of another kind.
    fn attributes(&mut self, states: &[NodeId]) -> Option<NodeId> {
        let mut dicts = Vec::new();
        for &state in states {
            let state = self.node(state);
            match state.kind() {
                Kind::Dict => dicts.push(state.id()),
                Kind::Tuple(&[dict, slots]) => {
                    for part in [dict, slots] {
                        match state.other(part).kind() {
                            Kind::Dict => dicts.push(part),
                            Kind::None => {}
                            _ => return None,
                        }
                    }
                }
                _ => return None,
            }
        }
        match dicts[..] {
            [] if states.is_empty() => None,
            [] => Some(self.document.builder().dict()),
            [dict] => Some(dict),
            _ => {
                let all = dicts.iter().flat_map(|&d| self.node(d).pairs());
                let pairs: Vec<_> = all.map(|(k, v)| (k.id(), v.id())).collect();
                let b = self.document.builder();
                let dict = b.dict();
                b.set_items(dict, &pairs);
                Some(dict)
            }
        }
    }

    /// A dict that says what an object is made of, in the words of `Value`s as JSON.
    pub(super) fn described(&mut self, id: NodeId) -> Result<Form> {
        let node = self.document.node(id);
        let call = Call::of(node);
        let name = call.and_then(|c| qualified(c.callable));
        let (callable, args, kwargs) = match call {
            Some(c) => (Some(c.callable.id()), c.whole_args(), c.kwargs.map(NodeRef::id)),
            None => (None, None, None),
        };
        let rest: Vec<NodeId> = match call {
            Some(c) if args.is_none() => c.args().into_iter().map(NodeRef::id).collect(),
            _ => Vec::new(),
        };
        let base = call.and_then(|c| c.base).map(NodeRef::id);
        let pairs: Vec<_> = node.pairs().iter().map(|(k, v)| (k.id(), v.id())).collect();
        let items: Vec<_> = node.iter_items().map(NodeRef::id).collect();
        let states = states(node);
        let mut fields: Vec<(&str, NodeId)> = Vec::new();
        if let (None, Some(callable)) = (&name, callable) {
            fields.push(("callable", callable));
        }
        let b = self.document.builder();
        let args = match args {
            Some(args) => args,
            None => b.tuple(&rest),
        };
        let is_empty = b.node(args).iter_items().next().is_none();
        if !is_empty || (states.is_empty() && pairs.is_empty() && items.is_empty()) {
            fields.push(("args", args));
        }
        fields.extend(kwargs.map(|k| ("kwargs", k)));
        fields.extend(base.map(|base| ("value", base)));
        if !items.is_empty() {
            let list = b.list();
            b.append(list, &items);
            fields.push(("items", list));
        }
        if !pairs.is_empty() {
            let dict = b.dict();
            b.set_items(dict, &pairs);
            fields.push(("pairs", dict));
        }
        fields.extend(states.last().map(|&state| ("state", state)));
        Ok(self.description(name.as_deref().unwrap_or("object"), &fields))
    }

    /// `{"$type": name, …}`.
    pub(super) fn description(&mut self, name: &str, fields: &[(&str, NodeId)]) -> Form {
        let b = self.document.builder();
        let dict = b.dict();
        let mut pairs = vec![(b.str("$type"), b.str(name))];
        for (key, value) in fields {
            pairs.push((b.str(key), *value));
        }
        b.set_items(dict, &pairs);
        Form::new(dict, "dict that describes it").described()
    }
}

fn states(node: NodeRef<'_>) -> Vec<NodeId> {
    let state = |m| if let Mut::Build(state) = m { Some(state) } else { None };
    node.muts().filter_map(state).filter(|&s| !node.other(s).is_none()).collect()
}

/// Text, a number, bytes, or a tuple: what enums and subclasses of builtins are made of.
fn is_value(node: NodeRef<'_>) -> bool {
    matches!(
        node.kind(),
        Kind::Bool(_)
            | Kind::Int(_)
            | Kind::BigInt(_)
            | Kind::Float(_)
            | Kind::Str(_)
            | Kind::Bytes(_)
            | Kind::Tuple(_)
    )
}

/// As [`is_value`], and what holds such values.
fn is_plain(node: NodeRef<'_>) -> bool {
    is_value(node) || matches!(node.kind(), Kind::Dict | Kind::List)
}

/// Classes are written with a capital letter, functions are not. Parameters are made of other things
/// than what they are.
fn is_class_name(call: Call<'_>) -> bool {
    if call.global().is_some_and(|g| g.module == "torch.nn.parameter") {
        return false;
    }
    let name = qualified(call.callable).unwrap_or_default();
    name.rsplit('.')
        .next()
        .is_some_and(|name| name.trim_start_matches('_').starts_with(char::is_uppercase))
}

fn is_namespace(call: Call<'_>) -> bool {
    call.global().is_some_and(|g| g.is("types", "SimpleNamespace"))
}
