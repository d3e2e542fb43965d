//! The one error of the workspace.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// The result of every fallible call in the workspace.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Who can act on an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The operating system refused or failed: the environment must change.
    Io,
    /// The bytes contradict their format: the file is damaged, cut short or hostile.
    Malformed,
    /// The bytes are legal, but this library or the chosen target cannot hold or do it.
    Unsupported,
    /// What was asked for is not there.
    NotFound,
    /// A bound of [`Limits`](crate::Limits) was reached: the caller may raise it.
    LimitExceeded,
    /// A rule of safety forbids it (a path that leaves its directory, a link).
    Denied,
    /// The caller's arguments do not fit together.
    InvalidArgument,
    /// The caller stopped the work.
    Cancelled,
}

/// Why something failed: where in which file, what was found, what was expected, what to do.
///
/// One pointer wide and cheap to clone. Layers add where they stand with [`Error::within`] and
/// [`Error::in_file`] while the error travels up through nested containers.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    hint: Option<Cow<'static, str>>,
    offset: Option<u64>,
    /// Outermost last.
    trail: Vec<String>,
    file: Option<String>,
    source: Option<Arc<std::io::Error>>,
}

impl Error {
    /// Makes an error of `kind`. The message is lower case, without a full stop.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Arc::new(Inner {
            kind,
            message: message.into(),
            hint: None,
            offset: None,
            trail: Vec::new(),
            file: None,
            source: None,
        }))
    }

    /// [`ErrorKind::Malformed`].
    #[must_use]
    pub fn malformed(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Malformed, message)
    }

    /// [`ErrorKind::Unsupported`].
    #[must_use]
    pub fn unsupported(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    /// [`ErrorKind::NotFound`].
    #[must_use]
    pub fn not_found(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// [`ErrorKind::LimitExceeded`].
    #[must_use]
    pub fn limit(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::LimitExceeded, message)
    }

    /// [`ErrorKind::Denied`].
    #[must_use]
    pub fn denied(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Denied, message)
    }

    /// [`ErrorKind::InvalidArgument`].
    #[must_use]
    pub fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::InvalidArgument, message)
    }

    /// [`ErrorKind::Cancelled`].
    #[must_use]
    pub fn cancelled() -> Self {
        Self::new(ErrorKind::Cancelled, "stopped before the work was done")
    }

    /// Wraps a failed system call; `doing` says what was attempted ("open", "read 8 bytes").
    #[must_use]
    pub fn io(doing: impl fmt::Display, source: std::io::Error) -> Self {
        let kind = match source.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            std::io::ErrorKind::InvalidData => ErrorKind::Malformed,
            _ => ErrorKind::Io,
        };
        let mut error = Self::new(kind, format!("cannot {doing}: {source}"));
        error.inner().source = Some(Arc::new(source));
        error
    }

    fn inner(&mut self) -> &mut Inner {
        Arc::make_mut(&mut self.0)
    }

    /// Names the place inside the container that the error was seen in ("member data/3",
    /// "tensor encoder.weight"); called from the inside out.
    #[must_use]
    pub fn within(mut self, place: impl fmt::Display) -> Self {
        let place = place.to_string();
        // Two layers may both know where they stand.
        if self.0.trail.last() != Some(&place) {
            self.inner().trail.push(place);
        }
        self
    }

    /// Names the file. The innermost name stays.
    #[must_use]
    pub fn in_file(mut self, file: impl AsRef<Path>) -> Self {
        if self.0.file.is_none() {
            self.inner().file = Some(file.as_ref().display().to_string());
        }
        self
    }

    /// Says at which byte offset of the innermost place it was. The innermost offset stays.
    #[must_use]
    pub fn at(mut self, offset: u64) -> Self {
        if self.0.offset.is_none() {
            self.inner().offset = Some(offset);
        }
        self
    }

    /// Says what the reader of the message can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        if self.0.hint.is_none() {
            self.inner().hint = Some(hint.into());
        }
        self
    }

    /// Who can act on it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What was found and expected, without the place.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The file, where one is known.
    #[must_use]
    pub fn file(&self) -> Option<&str> {
        self.0.file.as_deref()
    }

    /// The byte offset in the innermost place, where it is known.
    #[must_use]
    pub fn offset(&self) -> Option<u64> {
        self.0.offset
    }

    /// The places inside the file, outermost first.
    pub fn trail(&self) -> impl Iterator<Item = &str> {
        self.0.trail.iter().rev().map(String::as_str)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.0.file {
            write!(f, "{file}: ")?;
        }
        for place in self.trail() {
            write!(f, "{place}: ")?;
        }
        if let Some(offset) = self.0.offset {
            write!(f, "at offset {offset}: ")?;
        }
        f.write_str(&self.0.message)?;
        if let Some(hint) = &self.0.hint {
            write!(f, "; {hint}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({self})", self.0.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|s| &**s as _)
    }
}

/// Adds a place to the error of a result.
pub trait ResultExt<T> {
    /// See [`Error::within`]; the place is only made when there is an error.
    ///
    /// # Errors
    /// Those of `self`.
    fn within<D: fmt::Display>(self, place: impl FnOnce() -> D) -> Result<T>;
    /// See [`Error::in_file`].
    ///
    /// # Errors
    /// Those of `self`.
    fn in_file(self, file: impl AsRef<Path>) -> Result<T>;
}

impl<T> ResultExt<T> for Result<T> {
    fn within<D: fmt::Display>(self, place: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|e| e.within(place()))
    }
    fn in_file(self, file: impl AsRef<Path>) -> Result<T> {
        self.map_err(|e| e.in_file(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_reads_from_the_outside_in() {
        let e = Error::malformed("storage is 4 bytes, expected 8")
            .at(12)
            .within("member data/0")
            .within("member model_weights.ckpt")
            .in_file("a.nemo")
            .hint("copy the file again");
        assert_eq!(
            e.to_string(),
            "a.nemo: member model_weights.ckpt: member data/0: at offset 12: storage is 4 bytes, expected 8; copy the file again"
        );
        assert_eq!(e.kind(), ErrorKind::Malformed);
        assert_eq!(std::mem::size_of::<Error>(), std::mem::size_of::<usize>());
    }
}
