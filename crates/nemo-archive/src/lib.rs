//! Reads NVIDIA NeMo archives where they lie.
