//! OmegaConf: the plain tree in a graph of nodes that know their parents.

use super::walk::{Form, Walk};
use crate::pickle::NodeId;
use crate::weights_only::what;

impl Walk<'_> {
    /// The content of a container node, the value of a value node: as
    /// `OmegaConf.to_container(node, resolve=False)` gives them.
    pub(super) fn config(&mut self, id: NodeId) -> Option<Form> {
        let node = self.document.node(id);
        let inner = node.attribute("_content").or_else(|| node.attribute("_val"))?;
        let mut form = Form::new(inner.id(), what(inner));
        form.config = true;
        Some(form)
    }
}
