//! Reads torch.distributed.checkpoint directories.
