//! What is derived from a sentencepiece model: `tokenizer.vocab` as its trainer writes it, and
//! `vocab.txt` as NeMo does.

use super::model::{PieceKind, SentencePieceModel};

/// What stands for a space in a piece.
const SPACE: char = '▁';

impl SentencePieceModel {
    /// The text of `tokenizer.vocab`: a piece and its score a line.
    #[must_use]
    pub fn vocab(&self) -> String {
        let mut out = String::new();
        for piece in self.pieces() {
            out.push_str(&piece.text);
            if self.scores {
                out.push('\t');
                out.push_str(&score(piece.score));
            }
            out.push('\n');
        }
        out
    }

    /// The text of NeMo's `vocab.txt`: the pieces that are text, one a line, with `##` before those
    /// that do not start a word.
    #[must_use]
    pub fn vocab_txt(&self) -> String {
        let mut out = String::new();
        for piece in self.pieces() {
            let special = matches!(
                piece.kind,
                PieceKind::Unknown | PieceKind::Control | PieceKind::UserDefined
            );
            if special {
                continue;
            }
            match piece.text.strip_prefix(SPACE) {
                Some("") => out.push(SPACE),
                Some(word) => out.push_str(word),
                None => {
                    out.push_str("##");
                    out.push_str(&piece.text);
                }
            }
            out.push('\n');
        }
        out
    }
}

/// A float with six digits, as C++ streams print it.
fn score(value: f32) -> String {
    if !value.is_finite() {
        return if value.is_nan() { "nan".into() } else { format!("{value}") };
    }
    let text = format!("{:.5e}", f64::from(value));
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trim = |s: &str| match s.contains('.') {
        true => s.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => s.to_owned(),
    };
    if (-4..6).contains(&exponent) {
        let places = usize::try_from(5 - exponent).unwrap_or(0);
        return trim(&format!("{:.places$}", f64::from(value)));
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", trim(mantissa), exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::score;

    #[test]
    fn scores_print_as_in_cpp() {
        // std::cout << value
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (-1.0, "-1"),
            (-12.0, "-12"),
            (-3.285_18, "-3.28518"),
            (-10.123_457, "-10.1235"),
            (1.0e-5, "1e-05"),
            (0.000_123_456_78, "0.000123457"),
            (123_456.0, "123456"),
            (1_234_567.0, "1.23457e+06"),
            (999_999.5, "1e+06"),
            (0.5, "0.5"),
            (-100_000.0, "-100000"),
        ] {
            assert_eq!(score(value), text);
        }
    }
}
