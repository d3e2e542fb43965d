//! The files of a tokenizer in a directory.

use std::path::Path;

use ckptkit_core::{Error, Result, ResultExt, Section};

use super::model::SentencePieceModel;

/// A vocabulary in text is a few megabytes.
const MAX_BYTES: u64 = 256 << 20;

pub(super) const MODEL: &str = "tokenizer.model";
pub(super) const VOCAB: &str = "tokenizer.vocab";
pub(super) const VOCAB_TXT: &str = "vocab.txt";

/// One tokenizer: a sentencepiece model with what is derived from it, or a word-piece vocabulary.
#[derive(Clone, Debug)]
pub struct TokenizerFiles {
    pub(super) model: Option<Section>,
    pub(super) vocab: Option<Section>,
    pub(super) vocab_txt: Section,
    pieces: Vec<String>,
}

impl TokenizerFiles {
    /// Reads `tokenizer.model` in a directory, with `tokenizer.vocab` and `vocab.txt` or what they
    /// would be; without a model, the words of `vocab.txt`.
    ///
    /// # Errors
    /// [`NotFound`](ckptkit_core::ErrorKind::NotFound) where neither is there; those of
    /// [`SentencePieceModel::read`]; [`Malformed`](ckptkit_core::ErrorKind::Malformed) for a
    /// `vocab.txt` that is not text.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self> {
        open(directory.as_ref())
    }

    /// A sentencepiece model, with what is derived from it.
    ///
    /// # Errors
    /// Those of [`SentencePieceModel::read`].
    pub fn from_model(model: &Section) -> Result<Self> {
        let parsed = SentencePieceModel::read(model)?;
        Ok(Self {
            model: Some(model.clone()),
            vocab: Some(Section::from_bytes(parsed.vocab(), VOCAB)),
            vocab_txt: Section::from_bytes(parsed.vocab_txt(), VOCAB_TXT),
            pieces: parsed.pieces().iter().map(|p| p.text.clone()).collect(),
        })
    }

    /// The words of a word-piece tokenizer, one a line.
    ///
    /// # Errors
    /// [`Malformed`](ckptkit_core::ErrorKind::Malformed) for what is not text.
    pub fn from_words(vocab_txt: &Section) -> Result<Self> {
        let bytes = vocab_txt.read(MAX_BYTES)?;
        let text = String::from_utf8(bytes)
            .map_err(|_| Error::malformed("is not UTF-8 text").in_file(vocab_txt.name()))?;
        let pieces = text.lines().map(str::to_owned).collect();
        Ok(Self { model: None, vocab: None, vocab_txt: vocab_txt.clone(), pieces })
    }

    /// The pieces, in the order of their numbers: what a config has a copy of.
    #[must_use]
    pub fn pieces(&self) -> &[String] {
        &self.pieces
    }
}

fn open(directory: &Path) -> Result<TokenizerFiles> {
    let file = |name: &str| {
        let path = directory.join(name);
        path.exists().then(|| Section::open(&path)).transpose()
    };
    let (vocab, words) = (file(VOCAB)?, file(VOCAB_TXT)?);
    let Some(model) = file(MODEL)? else {
        let Some(words) = words else {
            return Err(Error::not_found(format!("there is neither {MODEL} nor {VOCAB_TXT}"))
                .in_file(directory)
                .hint("name the directory that the tokenizer was trained into"));
        };
        return TokenizerFiles::from_words(&words);
    };
    let mut files = TokenizerFiles::from_model(&model)?;
    if let Some(vocab) = vocab {
        agree(&files, &vocab).in_file(vocab.name())?;
        files.vocab = Some(vocab);
    }
    if let Some(words) = words {
        files.vocab_txt = words;
    }
    Ok(files)
}

/// Refuses a vocabulary of another model, left over in the directory.
fn agree(files: &TokenizerFiles, vocab: &Section) -> Result<()> {
    let text = String::from_utf8(vocab.read(MAX_BYTES)?)
        .map_err(|_| Error::malformed("is not UTF-8 text"))?;
    // A piece may itself hold what ends a line for others.
    let lines = text.strip_suffix('\n').unwrap_or(&text).split('\n').count();
    let pieces =
        files.pieces.len() + files.pieces.iter().map(|p| p.matches('\n').count()).sum::<usize>();
    if lines == pieces {
        return Ok(());
    }
    Err(Error::invalid(format!("has {lines} lines, {MODEL} has {pieces} pieces"))
        .hint("remove it, and it is made from the model"))
}
