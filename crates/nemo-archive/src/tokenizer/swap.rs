//! One tokenizer for another, with everything in the archive that knows of the old one.

use ckptkit_core::{Error, Result, ResultExt, Section};

use super::files::{MODEL, TokenizerFiles, VOCAB, VOCAB_TXT};
use crate::config::Value;
use crate::edit::{Editor, Replace};

/// Keys that hold a copy of the vocabulary, beside the tokenizer's section.
const COPIES: [&str; 4] =
    ["decoder.vocabulary", "labels", "joint.vocabulary", "aux_ctc.decoder.vocabulary"];
/// Keys that hold its size.
const SIZES: [&str; 5] = [
    "decoder.num_classes",
    "decoder.vocab_size",
    "joint.num_classes",
    "aux_ctc.decoder.num_classes",
    "head.num_classes",
];

/// How a tokenizer is swapped.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Swap {
    /// The section of the config, `tokenizer` unless a nested model is meant
    /// (`asr_cfg.tokenizer`).
    pub section: String,
    /// Which of the tokenizers of an aggregate one.
    pub lang: Option<String>,
    /// Whether another number of pieces is allowed. The config's sizes are then set to it, and the
    /// model loads only with weights of that size.
    pub force: bool,
}

impl Default for Swap {
    fn default() -> Self {
        Self { section: "tokenizer".into(), lang: None, force: false }
    }
}

impl Swap {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

/// A file of a tokenizer: its key, and its name.
struct Part<'a> {
    key: &'static str,
    name: &'static str,
    content: &'a Section,
}

impl Editor {
    /// Swaps the tokenizer: its model and the two files derived from it are replaced together, and
    /// the copies of the vocabulary in the config follow (`decoder.vocabulary`, `labels`,
    /// `joint.vocabulary`, `aux_ctc.decoder.vocabulary`). Files that the archive does not have are
    /// not added.
    ///
    /// # Errors
    /// [`InvalidArgument`](ckptkit_core::ErrorKind::InvalidArgument) for another number of pieces
    /// than the model was trained with (see [`Swap::force`]), for a tokenizer of another kind, and
    /// where an aggregate tokenizer's language is not named;
    /// [`NotFound`](ckptkit_core::ErrorKind::NotFound) where there is no tokenizer; those of
    /// [`Editor::replace`].
    pub fn tokenizer(&mut self, files: &TokenizerFiles, options: &Swap) -> Result<()> {
        let mut edited = self.clone();
        let place = || format!("key {}", options.section);
        edited.swap(files, options).within(place)?;
        *self = edited;
        Ok(())
    }

    fn swap(&mut self, files: &TokenizerFiles, options: &Swap) -> Result<()> {
        let langs = self.langs(&options.section)?;
        let section = match (&langs[..], &options.lang) {
            ([], None) => options.section.clone(),
            ([], Some(lang)) => {
                return Err(Error::invalid(format!(
                    "has no tokenizer for {lang:?}, but one for all"
                )));
            }
            (langs, Some(lang)) if langs.contains(lang) => {
                format!("{}.langs.{lang}", options.section)
            }
            (langs, lang) => {
                let why = match lang {
                    Some(lang) => format!("has no tokenizer for {lang:?}"),
                    None => "has several tokenizers".into(),
                };
                return Err(Error::invalid(why).hint(format!("name one of {}", langs.join(", "))));
            }
        };
        let old = self.current(&section)?;
        if files.model.is_some() != old.model.is_some() {
            return Err(Error::invalid(match files.model {
                Some(_) => "is a word-piece tokenizer, the new one a sentencepiece model",
                None => "is a sentencepiece tokenizer, the new one has no tokenizer.model",
            }));
        }
        let (before, after) = (old.pieces().len(), files.pieces().len());
        if before != after && !options.force {
            return Err(Error::invalid(format!(
                "the new tokenizer has {after} pieces, the model was trained with {before}"
            ))
            .hint("train one of the same size, or force it and replace the weights too"));
        }
        let vocabulary = self.vocabulary(&options.section, &langs, &section, files)?;
        let total = old_total(before, after, vocabulary.len());
        for part in parts(files) {
            self.swap_part(&section, &part)?;
        }
        self.update_copies(&options.section, &vocabulary, total)
    }

    /// The languages of an aggregate tokenizer; none of an ordinary one.
    fn langs(&self, section: &str) -> Result<Vec<String>> {
        let config = self.config()?;
        match config.get(section) {
            Some(Value::Dict(_)) => {}
            _ => return Err(Error::not_found("the config has no such section")),
        }
        match config.get(&format!("{section}.langs")) {
            Some(Value::Dict(pairs)) => Ok(pairs.iter().map(|(k, _)| k.key_text()).collect()),
            _ => Ok(Vec::new()),
        }
    }

    /// The tokenizer that a section names.
    fn current(&self, section: &str) -> Result<TokenizerFiles> {
        if let Some(model) = self.part_of(section, "model_path", MODEL)? {
            return TokenizerFiles::from_model(&model).within(|| "the present tokenizer");
        }
        match self.part_of(section, "vocab_path", VOCAB_TXT)? {
            Some(words) => TokenizerFiles::from_words(&words),
            None => Err(Error::not_found("names no tokenizer.model in the archive")),
        }
    }

    /// The artifact under a key, else, as before NeMo 1.0, the member of that name.
    fn part_of(&self, section: &str, key: &str, name: &str) -> Result<Option<Section>> {
        match self.part_target(section, key, name)? {
            Some(target) => self.content(&target).map(Some),
            None => Ok(None),
        }
    }

    fn part_target(&self, section: &str, key: &str, name: &str) -> Result<Option<String>> {
        let key = format!("{section}.{key}");
        let has_key = matches!(self.get(&key)?, Some(Value::Str(_)));
        let target = if has_key { key } else { name.to_owned() };
        Ok(self.has(&target).then_some(target))
    }

    fn swap_part(&mut self, section: &str, part: &Part<'_>) -> Result<()> {
        let key = format!("{section}.{}", part.key);
        let Some(target) = self.part_target(section, part.key, part.name)? else {
            // A reference to a member that is missing is one that can be mended.
            let dangles = matches!(self.get(&key)?, Some(Value::Str(s)) if s.starts_with("nemo:"));
            return if dangles { self.add(&key, part.name, part.content) } else { Ok(()) };
        };
        if target == key {
            return self.replace(&key, part.content, &Replace::new());
        }
        // A member that is found by its name: now a key names it.
        self.add(&key, part.name, part.content)?;
        self.remove_if_unreferenced(&target)
    }

    /// The pieces of all languages, with the new ones in their place.
    fn vocabulary(
        &self,
        section: &str,
        langs: &[String],
        swapped: &str,
        files: &TokenizerFiles,
    ) -> Result<Vec<String>> {
        if langs.is_empty() {
            return Ok(files.pieces().to_vec());
        }
        let mut all = Vec::new();
        for lang in langs {
            let own = format!("{section}.langs.{lang}");
            match own == swapped {
                true => all.extend_from_slice(files.pieces()),
                false => all.extend(self.current(&own).within(|| own.clone())?.pieces().to_vec()),
            }
        }
        Ok(all)
    }

    fn update_copies(&mut self, section: &str, vocabulary: &[String], old: usize) -> Result<()> {
        let outside =
            section.rsplit_once('.').map_or(String::new(), |(outer, _)| format!("{outer}."));
        let new: Vec<Value> = vocabulary.iter().map(|p| Value::Str(p.clone())).collect();
        for copy in COPIES {
            let key = format!("{outside}{copy}");
            // An empty list is none.
            if matches!(self.get(&key)?, Some(Value::List(items)) if !items.is_empty()) {
                self.set_value(&key, &Value::List(new.clone()))?;
            }
        }
        if old == vocabulary.len() {
            return Ok(());
        }
        let int = |n: usize| Value::Int(i64::try_from(n).unwrap_or(i64::MAX));
        for size in SIZES {
            let key = format!("{outside}{size}");
            if self.get(&key)? == Some(int(old)) {
                self.set_value(&key, &int(vocabulary.len()))?;
            }
        }
        Ok(())
    }
}

fn parts(files: &TokenizerFiles) -> Vec<Part<'_>> {
    let part = |key, name, content| Part { key, name, content };
    let mut parts = Vec::new();
    parts.extend(files.model.as_ref().map(|model| part("model_path", MODEL, model)));
    parts.push(part("vocab_path", VOCAB_TXT, &files.vocab_txt));
    parts.extend(files.vocab.as_ref().map(|vocab| part("spe_tokenizer_vocab", VOCAB, vocab)));
    parts
}

/// How many pieces all languages had before.
fn old_total(before: usize, after: usize, total: usize) -> usize {
    (total + before).saturating_sub(after)
}
