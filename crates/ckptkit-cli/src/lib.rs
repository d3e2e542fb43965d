//! The program ckptkit.
