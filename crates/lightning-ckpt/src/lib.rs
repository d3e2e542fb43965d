//! Typed access to PyTorch Lightning checkpoints.
