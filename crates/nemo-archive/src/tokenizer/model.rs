//! The pieces of a sentencepiece model, read from its protobuf without a protobuf library: one
//! repeated message is wanted, and one flag.

use ckptkit_core::{Error, Result, ResultExt, Section};

/// Models are a megabyte or a few; 250 000 pieces are ten.
const MAX_BYTES: u64 = 256 << 20;

/// What a piece of a vocabulary is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PieceKind {
    /// Text.
    Normal,
    /// `<unk>`
    Unknown,
    /// `<s>`, `</s>`, `<pad>`: never text.
    Control,
    /// Text that is always a piece.
    UserDefined,
    /// Never used.
    Unused,
    /// One byte of text that no piece holds.
    Byte,
}

/// One piece of a vocabulary.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Piece {
    /// Its text; `▁` stands for a space.
    pub text: String,
    /// Its score: a log probability, or minus its rank.
    pub score: f32,
    /// What it is for.
    pub kind: PieceKind,
}

/// The vocabulary of a sentencepiece model, in the order of its numbers.
#[derive(Clone, Debug)]
pub struct SentencePieceModel {
    pieces: Vec<Piece>,
    pub(super) scores: bool,
}

impl SentencePieceModel {
    /// Reads a `tokenizer.model`.
    ///
    /// # Errors
    /// [`Malformed`](ckptkit_core::ErrorKind::Malformed) for what is no sentencepiece model;
    /// [`LimitExceeded`](ckptkit_core::ErrorKind::LimitExceeded) above 256 MiB.
    pub fn read(section: &Section) -> Result<Self> {
        let bytes = section.read(MAX_BYTES)?;
        Self::parse(&bytes).in_file(section.name())
    }

    /// Reads the bytes of a `tokenizer.model`.
    ///
    /// # Errors
    /// As [`SentencePieceModel::read`].
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let mut model = Self { pieces: Vec::new(), scores: true };
        let mut fields = Fields(bytes);
        while let Some((number, field)) = fields.next()? {
            match (number, field) {
                (1, Field::Bytes(message)) => {
                    let place = model.pieces.len();
                    model.pieces.push(piece(message).within(|| format!("piece {place}"))?);
                }
                // trainer_spec.vocabulary_output_piece_score
                (2, Field::Bytes(message)) => {
                    let mut spec = Fields(message);
                    while let Some((number, field)) = spec.next()? {
                        if let (32, Field::Int(value)) = (number, field) {
                            model.scores = value != 0;
                        }
                    }
                }
                _ => {}
            }
        }
        if model.pieces.is_empty() {
            return Err(no_model("holds no pieces"));
        }
        Ok(model)
    }

    /// The pieces, in the order of their numbers.
    #[must_use]
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }
}

fn no_model(why: &'static str) -> Error {
    Error::malformed(why).hint("expected a sentencepiece model, such as tokenizer.model")
}

fn piece(message: &[u8]) -> Result<Piece> {
    let mut piece = Piece { text: String::new(), score: 0.0, kind: PieceKind::Normal };
    let mut fields = Fields(message);
    while let Some((number, field)) = fields.next()? {
        match (number, field) {
            (1, Field::Bytes(text)) => {
                let text = std::str::from_utf8(text).map_err(|_| no_model("is not UTF-8 text"))?;
                text.clone_into(&mut piece.text);
            }
            (2, Field::Fixed32(bits)) => piece.score = f32::from_bits(bits),
            (3, Field::Int(kind)) => {
                piece.kind = match kind {
                    1 => PieceKind::Normal,
                    2 => PieceKind::Unknown,
                    3 => PieceKind::Control,
                    4 => PieceKind::UserDefined,
                    5 => PieceKind::Unused,
                    6 => PieceKind::Byte,
                    _ => return Err(no_model("is of a kind that is not known")),
                }
            }
            _ => {}
        }
    }
    Ok(piece)
}

enum Field<'a> {
    Int(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
    Other,
}

/// The fields of a message that have not been read.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// The number of the next field, and the field.
    fn next(&mut self) -> Result<Option<(u64, Field<'a>)>> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let field = match tag & 7 {
            0 => Field::Int(self.varint()?),
            1 => {
                self.take(8)?;
                Field::Other
            }
            2 => {
                let len = self.varint()?;
                let len = usize::try_from(len).map_err(|_| no_model("ends early"))?;
                Field::Bytes(self.take(len)?)
            }
            5 => {
                let mut bits = [0; 4];
                bits.copy_from_slice(self.take(4)?);
                Field::Fixed32(u32::from_le_bytes(bits))
            }
            _ => return Err(no_model("is no protobuf message")),
        };
        match tag >> 3 {
            0 => Err(no_model("is no protobuf message")),
            number => Ok(Some((number, field))),
        }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or_else(|| no_model("ends early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64> {
        let mut value = 0;
        for shift in (0..70).step_by(7) {
            let byte = self.take(1)?[0];
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(no_model("is no protobuf message"))
    }
}
