//! What a placement of parameters is, and what bounds it.

/// For every group the positions of its parameters among the candidates.
pub type Placement = Vec<Vec<usize>>;

/// What shapes and order leave open.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Assignment {
    /// There is one way.
    Unique(Placement),
    /// There are several.
    Ambiguous {
        /// How many, `u64::MAX` for as many or more; `None` where they are too many to be counted.
        count: Option<u64>,
        /// Some of them.
        examples: Vec<Placement>,
    },
    /// There is none.
    Impossible,
}

/// The first and the last place of every parameter of a group.
pub(super) struct Bounds {
    pub(super) first: Vec<usize>,
    pub(super) last: Vec<usize>,
}

pub(super) fn fits(parameter: Option<u32>, candidate: u32) -> bool {
    parameter.is_none_or(|class| class == candidate)
}
