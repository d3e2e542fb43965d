//! Optimizer states by the names of the parameters.
//!
//! A checkpoint numbers the parameters of an optimizer: `state` is keyed by integers, which
//! `param_groups` list in the order in which the optimizer was given its parameters. Which
//! parameter of the model each is, stands nowhere, unless the optimizer was made of
//! `named_parameters()` (torch 2.6 and later): then every group has `param_names`.
//!
//! Else it is found by shape and order, see [`assign`]: moments have the shape of their parameter,
//! models list their parameters in one order, which is that of the state dict, and an optimizer
//! keeps that order within each of its groups. In the state dict stand buffers and frozen
//! parameters as well, and tied ones under every name; the optimizer has these once, under the
//! first. Norms' `running_mean`, `running_var` and `num_batches_tracked` are known to be buffers;
//! of others only the shape can tell. Where that leaves more than one way, [`NameSource::Ambiguous`]
//! says so, and the integers are all there is.

mod assign;
mod find;
mod groups;
mod placement;
mod states;

use std::collections::HashMap;

use ckptkit_core::{Error, Key, Result, ResultExt, Tensor};
use torch_save::pickle::{NodeId, NodeRef};

pub use assign::assign;
pub use placement::{Assignment, Placement};

use crate::LightningCkpt;
use crate::version::{OPTIMIZER_STATES, STATE_DICT};

/// Where the names of an optimizer's parameters are from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NameSource {
    /// The checkpoint says them.
    Recorded,
    /// The caller says them.
    Given,
    /// They are the only ones that shapes and order allow.
    Found,
    /// Shapes and order allow several, so that there are no names.
    Ambiguous {
        /// How many ways there are, `u64::MAX` for as many or more; `None` where they are too many
        /// to be counted.
        ways: Option<u64>,
        /// Some of them: the integers that they differ in, and the name that each gives them.
        examples: Vec<Vec<(u64, String)>>,
    },
    /// No names fit the shapes: the state dict has not all parameters, or in another order.
    NoFit,
}

/// What names the parameters of the optimizers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParameterNames {
    /// What the checkpoint says, and what can be found out.
    #[default]
    Find,
    /// These are the model's parameters in its order, as `model.named_parameters()` lists them,
    /// frozen ones among them; which of them an optimizer has is found out.
    Model(Vec<String>),
    /// For every optimizer the names of its parameters, in the order of the integers.
    Each(Vec<Vec<String>>),
}

/// A tensor of a parameter's state.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StateTensor {
    /// What it is to the optimizer: `exp_avg`; the path in the parameter's state where that nests.
    pub key: String,
    /// Its name in the checkpoint: `optimizer_states.0.state.3.exp_avg`.
    pub name: String,
    /// Elements in every dimension.
    pub shape: Vec<u64>,
}

/// A parameter of an optimizer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Parameter {
    /// The integer that the checkpoint has for it.
    pub integer: u64,
    /// The position of its group.
    pub group: usize,
    /// Its name in the state dict, where it is known.
    pub name: Option<String>,
    /// Its shape, where its state tells.
    pub shape: Option<Vec<u64>>,
    /// The tensors of its state; empty for a parameter that was never updated.
    pub tensors: Vec<StateTensor>,
}

/// An optimizer of a checkpoint: its parameters by integer and by name.
#[derive(Clone, Debug)]
pub struct OptimizerView {
    index: usize,
    parameters: Vec<Parameter>,
    by_integer: HashMap<u64, usize>,
    by_name: HashMap<String, usize>,
    source: NameSource,
}

impl OptimizerView {
    fn new(index: usize, parameters: Vec<Parameter>, source: NameSource) -> Self {
        let by_integer = parameters.iter().enumerate().map(|(i, p)| (p.integer, i)).collect();
        let named = parameters.iter().enumerate();
        let by_name = named.filter_map(|(i, p)| Some((p.name.clone()?, i))).collect();
        Self { index, parameters, by_integer, by_name, source }
    }

    /// The optimizer whose groups have these parameters, numbered as torch numbers them: so are the
    /// names of a distributed checkpoint, whose groups list them, turned into integers.
    ///
    /// ```
    /// use lightning_ckpt::optimizer::OptimizerView;
    ///
    /// # fn main() -> ckptkit_core::Result<()> {
    /// let decay = vec!["fc.weight".to_owned()];
    /// let rest = vec!["norm.weight".to_owned(), "fc.bias".to_owned()];
    /// let view = OptimizerView::from_groups(0, &[decay, rest])?;
    /// assert_eq!(view.integer("fc.bias"), Some(2));
    /// assert_eq!(view.name(1), Some("norm.weight"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`InvalidArgument`](ckptkit_core::ErrorKind::InvalidArgument) for a name that comes twice,
    /// which no optimizer takes.
    pub fn from_groups(index: usize, groups: &[Vec<String>]) -> Result<Self> {
        let names = groups.iter().enumerate();
        let names = names.flat_map(|(group, names)| names.iter().map(move |name| (group, name)));
        let parameter = |(integer, (group, name)): (u64, (usize, &String))| Parameter {
            integer,
            group,
            name: Some(name.clone()),
            shape: None,
            tensors: Vec::new(),
        };
        let view = Self::new(index, (0..).zip(names).map(parameter).collect(), NameSource::Given);
        if view.by_name.len() < view.parameters.len() {
            let twice = view
                .parameters
                .iter()
                .enumerate()
                .find_map(|(i, p)| p.name.as_ref().filter(|name| view.by_name[*name] != i));
            return Err(Error::invalid(format!(
                "the parameter {:?} is in the groups of optimizer {index} twice",
                twice.map_or("", String::as_str)
            )));
        }
        Ok(view)
    }

    /// Its position among the optimizers.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// Its parameters, group by group, in their order there.
    #[must_use]
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// Where the names are from, or why there are none.
    #[must_use]
    pub fn source(&self) -> &NameSource {
        &self.source
    }

    /// Whether every parameter has a name.
    #[must_use]
    pub fn is_named(&self) -> bool {
        self.by_name.len() == self.parameters.len()
    }

    /// The name of the parameter that the checkpoint has under an integer.
    #[must_use]
    pub fn name(&self, integer: u64) -> Option<&str> {
        self.parameters[*self.by_integer.get(&integer)?].name.as_deref()
    }

    /// The integer of a parameter.
    #[must_use]
    pub fn integer(&self, name: &str) -> Option<u64> {
        self.by_name.get(name).map(|&i| self.parameters[i].integer)
    }

    /// Every tensor of the states under a name that says its parameter: `exp_avg.encoder.weight`
    /// behind `prefix` and a dot. For parameters without a name the integer stands there.
    pub fn renamed(&self, prefix: &str) -> impl Iterator<Item = (&StateTensor, String)> {
        self.parameters.iter().flat_map(move |p| {
            let name = p.name.clone().unwrap_or_else(|| p.integer.to_string());
            let new = move |t: &StateTensor| format!("{prefix}.{}.{name}", t.key);
            p.tensors.iter().map(move |t| (t, new(t)))
        })
    }
}

impl LightningCkpt {
    /// The optimizers, their parameters named as far as `names` allows. Reads no tensor. Costs time
    /// linear in the number of parameters where there is one way to name them.
    ///
    /// ```
    /// use lightning_ckpt::LightningCkpt;
    /// use lightning_ckpt::optimizer::{NameSource, ParameterNames};
    ///
    /// # fn main() -> ckptkit_core::Result<()> {
    /// # let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures");
    /// let ckpt = LightningCkpt::open(format!("{fixtures}/lightning/adam.ckpt"))?;
    /// let optimizers = ckpt.optimizers(&ParameterNames::Find)?;
    /// assert_eq!(*optimizers[0].source(), NameSource::Found);
    /// assert_eq!(optimizers[0].name(1), Some("net.first.weight"));
    /// let (tensor, name) = optimizers[0].renamed("optimizer").next().unwrap();
    /// assert_eq!(tensor.name, "optimizer_states.0.state.0.step");
    /// assert_eq!(name, "optimizer.step.net.scale");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Malformed`](ckptkit_core::ErrorKind::Malformed) where an optimizer's state is none;
    /// [`NotFound`](ckptkit_core::ErrorKind::NotFound) for names given that the state dict does not
    /// have; [`InvalidArgument`](ckptkit_core::ErrorKind::InvalidArgument) where they are not as
    /// many as the parameters, or of other shapes.
    pub fn optimizers(&self, names: &ParameterNames) -> Result<Vec<OptimizerView>> {
        let at = |id| self.file.tensor_at(id).map(torch_save::TensorEntry::tensor);
        let weights: Vec<(&str, &Tensor)> = self
            .file
            .tensors()
            .iter()
            .filter(|entry| {
                let of_weights = |key: &Key| matches!(key, Key::Str(key) if **key == *STATE_DICT);
                entry.part_of().is_none() && entry.path().first().is_some_and(of_weights)
            })
            .filter_map(|entry| {
                let name = entry.tensor().name().strip_prefix(STATE_DICT)?.strip_prefix('.')?;
                Some((name, entry.tensor()))
            })
            .collect();
        let optimizers = self.node(OPTIMIZER_STATES).map(NodeRef::items).unwrap_or_default();
        optimizers
            .into_iter()
            .enumerate()
            .map(|(i, o)| states::read(o, &at).within(|| format!("{OPTIMIZER_STATES}.{i}")))
            .collect::<Result<Vec<_>>>()
            .and_then(|stored| find::named(&weights, stored, names))
            .in_file(self.torch().section().name())
    }
}

/// The optimizers of any object: of other training files, of a checkpoint in another format.
///
/// `optimizers` are what `Optimizer.state_dict()` gave, their states by integers or, as sharded
/// checkpoints keep them, by names. `state_dict` has the model's weights in its order, and
/// `tensor_at` knows the tensors of the object by their nodes. Reads no tensor.
///
/// ```
/// use ckptkit_core::Tensor;
/// use lightning_ckpt::optimizer::{ParameterNames, views};
/// use torch_save::TorchFile;
///
/// # fn main() -> ckptkit_core::Result<()> {
/// # let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures");
/// let file = TorchFile::open(format!("{fixtures}/torch/train_sgd.pt"))?;
/// let (weights, optimizer) = (file.root().get("state_dict"), file.root().get("optimizer"));
/// let at = |node| file.tensor_at(node).map(torch_save::TensorEntry::tensor);
/// let pairs = weights.map(|w| w.pairs()).unwrap_or_default();
/// let weights: Vec<(&str, &Tensor)> =
///     pairs.iter().filter_map(|(name, value)| Some((name.as_str()?, at(value.id())?))).collect();
/// let found = views(&[optimizer.unwrap()], &weights, &at, &ParameterNames::Find)?;
/// assert_eq!(found[0].name(1), Some("first.weight"));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// As [`LightningCkpt::optimizers`].
pub fn views<'a>(
    optimizers: &[NodeRef<'_>],
    state_dict: &[(&str, &Tensor)],
    tensor_at: &dyn Fn(NodeId) -> Option<&'a Tensor>,
    names: &ParameterNames,
) -> Result<Vec<OptimizerView>> {
    let read = |(i, optimizer): (usize, &NodeRef<'_>)| {
        states::read(*optimizer, tensor_at).within(|| format!("optimizer {i}"))
    };
    let stored = optimizers.iter().enumerate().map(read).collect::<Result<Vec<_>>>()?;
    find::named(state_dict, stored, names)
}
