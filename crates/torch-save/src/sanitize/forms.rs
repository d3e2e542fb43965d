//! Which form an object takes, by what it is.

use ckptkit_core::{Error, Result};

use super::calls::Call;
use super::walk::{Form, Walk};
use crate::pickle::{Kind, NodeId, NodeRef, decimal};
use crate::text::qualified;
use crate::value::written;

/// A range is a list of its numbers up to this many.
const MAX_RANGE: u64 = 10_000;

impl Walk<'_> {
    /// What stands for a node that torch refuses.
    pub(super) fn form(&mut self, id: NodeId) -> Result<Form> {
        let node = self.document.node(id);
        match node.kind() {
            Kind::BigInt(bytes) => {
                let digits = decimal(bytes);
                Ok(Form::new(self.text(&digits), "str")
                    .note("the integer is longer than torch reads"))
            }
            Kind::Bytes(_) | Kind::ByteArray(_) => Ok(self.no_bytes(id)),
            Kind::FrozenSet(_) => self.thawed(id),
            Kind::Global(g) => {
                let name = g.to_string();
                Ok(Form::new(self.text(&name), "str"))
            }
            Kind::Reduce { .. } | Kind::NewObj { .. } | Kind::NewObjEx { .. } => self.made(id),
            _ => Ok(self.stripped(id)),
        }
    }

    pub(super) fn text(&mut self, text: &str) -> NodeId {
        self.document.builder().str(text)
    }

    /// Empty bytes in words that torch knows.
    fn no_bytes(&mut self, id: NodeId) -> Form {
        let mutable = matches!(self.node(id).kind(), Kind::ByteArray(_));
        let b = self.document.builder();
        let node = if mutable {
            b.call("builtins", "bytearray", &[])
        } else {
            let args = [b.str(""), b.str("latin1")];
            b.call("_codecs", "encode", &args)
        };
        Form::new(node, if mutable { "bytearray" } else { "bytes" }).silent()
    }

    /// A builtin that something was done to which Python does not let happen to one.
    fn stripped(&mut self, id: NodeId) -> Form {
        let node = self.document.node(id);
        let items: Vec<NodeId> = node.iter_items().map(NodeRef::id).collect();
        let pairs: Vec<(NodeId, NodeId)> =
            node.pairs().iter().map(|(k, v)| (k.id(), v.id())).collect();
        let kind = node.kind();
        let (int, float, flag) = match kind {
            Kind::Int(i) => (Some(i), None, None),
            Kind::Float(f) => (None, Some(f), None),
            Kind::Bool(b) => (None, None, Some(b)),
            _ => (None, None, None),
        };
        let text = if let Kind::Str(s) = kind { Some(s.to_vec()) } else { None };
        let inner = if let Kind::PersId(inner) = kind { Some(inner) } else { None };
        let (is_dict, is_tuple) = (matches!(kind, Kind::Dict), matches!(kind, Kind::Tuple(_)));
        let is_list = matches!(kind, Kind::List | Kind::Set);
        let b = self.document.builder();
        let new = match (int, float, flag, text, inner) {
            (Some(i), ..) => b.int(i),
            (_, Some(f), ..) => b.float(f),
            (_, _, Some(flag), ..) => b.bool(flag),
            (_, _, _, Some(text), _) => b.wtf8(&text),
            (.., Some(inner)) => b.persistent(inner),
            _ if is_dict => {
                let dict = b.dict();
                b.set_items(dict, &pairs);
                dict
            }
            _ if is_tuple => b.tuple(&items),
            _ if is_list => {
                let list = b.list();
                b.append(list, &items);
                list
            }
            _ => b.none(),
        };
        let name = crate::weights_only::what(self.node(new));
        Form::new(new, name).note("what was done to it afterwards is left out")
    }

    /// An object that Python gets by a call.
    fn made(&mut self, id: NodeId) -> Result<Form> {
        if let Some(form) = self.module(id)? {
            return Ok(form);
        }
        let node = self.document.node(id);
        let Some(call) = Call::of(node) else {
            return Err(Error::malformed("an object without a class"));
        };
        if let Some(name) = qualified(node) {
            return Ok(Form::new(self.text(&name), "str").was(name));
        }
        let Some(g) = call.global() else {
            // A class in a class is looked up by a call.
            let is_class = qualified(call.callable).is_some();
            return if is_class { self.object(id) } else { self.described(id) };
        };
        let args = call.args();
        if let Some(text) = written::path(g, &args).or_else(|| written::moment(node, g, &args)) {
            return Ok(Form::new(self.text(&text), "str"));
        }
        let form = match (g.module, g.name) {
            ("builtins", "frozenset" | "set") => Some(self.thawed(id)?),
            ("builtins", "bytes") if args.is_empty() => {
                let b = self.document.builder();
                let args = [b.str(""), b.str("latin1")];
                Some(Form::new(b.call("_codecs", "encode", &args), "bytes").silent())
            }
            ("builtins", "bytes" | "bytearray") => {
                let bytes = crate::numpy::raw_bytes(node);
                let mutable = g.name == "bytearray";
                bytes.map(|bytes| {
                    let b = self.document.builder();
                    let node = if mutable { b.bytearray(&bytes) } else { b.bytes(&bytes) };
                    Form::new(node, if mutable { "bytearray" } else { "bytes" }).silent()
                })
            }
            ("builtins", "slice") => call.whole_args().map(|args| Form::new(args, "tuple")),
            ("builtins", "range") => self.range(&args.iter().map(|a| a.id()).collect::<Vec<_>>()),
            ("builtins", "type") if args.first().is_some_and(|a| a.is_none()) => {
                let name = "builtins.NoneType";
                Some(Form::new(self.text(name), "str").was(name))
            }
            ("collections", _) => self.collection(id),
            ("functools", "partial") => self.partial(id),
            (module, _) if module == "omegaconf" || module.starts_with("omegaconf.") => {
                self.config(id)
            }
            (module, _) if module == "numpy" || module.starts_with("numpy.") => self.numpy(id)?,
            (module, _) if module == "torch" || module.starts_with("torch.") => self.tensor(id)?,
            _ => None,
        };
        match form {
            Some(form) => Ok(form),
            None => self.object(id),
        }
    }

    fn range(&mut self, args: &[NodeId]) -> Option<Form> {
        let numbers: Option<Vec<i64>> = args.iter().map(|&id| self.node(id).as_int()).collect();
        let (start, stop, step) = match numbers?[..] {
            [stop] => (0, stop, 1),
            [start, stop] => (start, stop, 1),
            [start, stop, step] => (start, stop, step),
            _ => return None,
        };
        let (span, stride) = if step > 0 {
            (i128::from(stop) - i128::from(start), i128::from(step))
        } else {
            (i128::from(start) - i128::from(stop), -i128::from(step))
        };
        if stride == 0 {
            return None;
        }
        let count = if span <= 0 { 0 } else { (span + stride - 1) / stride };
        let count = u64::try_from(count).ok().filter(|n| *n <= MAX_RANGE)?;
        let b = self.document.builder();
        let list = b.list();
        let mut at = start;
        let mut items = Vec::new();
        for i in 0..count {
            items.push(b.int(at));
            if i + 1 < count {
                at = at.checked_add(step)?;
            }
        }
        b.append(list, &items);
        Some(Form::new(list, "list"))
    }

    /// The containers of the standard library.
    fn collection(&mut self, id: NodeId) -> Option<Form> {
        let node = self.document.node(id);
        let args = node.arguments(3);
        let g = node.class()?;
        match g.name {
            "defaultdict" => {
                let factory = args.first().filter(|f| !f.is_none());
                let note = factory.map(|f| {
                    let name = qualified(*f).unwrap_or_else(|| crate::text::repr(*f));
                    format!("its default_factory was {name}")
                });
                let form = Form::new(self.dict_of(id), "dict");
                Some(Form { note, ..form })
            }
            "OrderedDict" | "Counter" => {
                let form = Form::new(self.dict_of(id), "dict");
                Some(form.note("what was done to it afterwards is left out"))
            }
            "deque" => {
                let of_call = args.first().into_iter().flat_map(|a| a.iter_items());
                let items: Vec<NodeId> =
                    of_call.chain(node.iter_items()).map(NodeRef::id).collect();
                let maxlen = args.get(1).and_then(|n| n.as_int());
                let b = self.document.builder();
                let list = b.list();
                b.append(list, &items);
                let note = maxlen.map(|n| format!("its maxlen was {n}"));
                Some(Form { note, ..Form::new(list, "list") })
            }
            "UserDict" | "UserList" | "UserString" => {
                let data = node.attribute("data")?;
                let (data, name) = (data.id(), crate::weights_only::what(data));
                Some(Form::new(data, name))
            }
            _ => None,
        }
    }

    /// A dict of the pairs that an object was made of and that were set on it.
    pub(super) fn dict_of(&mut self, id: NodeId) -> NodeId {
        let node = self.document.node(id);
        let mut pairs: Vec<(NodeId, NodeId)> = Vec::new();
        for arg in node.arguments(2) {
            match arg.kind() {
                Kind::Dict => pairs.extend(arg.pairs().iter().map(|(k, v)| (k.id(), v.id()))),
                Kind::List => pairs.extend(arg.iter_items().filter_map(|pair| {
                    let mut parts = pair.iter_items();
                    Some((parts.next()?.id(), parts.next()?.id()))
                })),
                _ => {}
            }
        }
        pairs.extend(node.pairs().iter().map(|(k, v)| (k.id(), v.id())));
        let b = self.document.builder();
        let dict = b.dict();
        b.set_items(dict, &pairs);
        dict
    }

    /// `functools.partial(func)` with state `(func, args, keywords, attributes)`.
    fn partial(&mut self, id: NodeId) -> Option<Form> {
        let state = self.document.node(id).state()?;
        let parts: Vec<NodeId> = state.iter_items().take(5).map(NodeRef::id).collect();
        let [func, args, keywords, _] = parts[..] else { return None };
        let fields = [("func", func), ("args", args), ("keywords", keywords)];
        Some(self.description("functools.partial", &fields))
    }
}
