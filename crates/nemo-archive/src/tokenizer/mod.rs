//! Tokenizers: what is in a sentencepiece model, the files that NeMo keeps beside it, and the swap
//! of one tokenizer for another.

mod files;
mod model;
mod swap;
mod vocab;

pub use files::TokenizerFiles;
pub use model::{Piece, PieceKind, SentencePieceModel};
pub use swap::Swap;
