//! Opens, inspects and converts model checkpoints of every format.
