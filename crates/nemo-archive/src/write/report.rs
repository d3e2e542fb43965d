//! What an edit changed, for the eyes of a person and for programs.

use std::fmt;

use crate::config::{Value, shown};

/// One thing that is other than in the source.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Change {
    /// A value of the config was set.
    Set {
        /// Its dotted key.
        key: String,
        /// What it was; nothing for a new key.
        old: Option<Value>,
        /// What it is.
        new: Value,
    },
    /// A value of the config was deleted.
    Deleted {
        /// Its dotted key.
        key: String,
        /// What it was.
        old: Value,
    },
    /// The text of the config is another one.
    Config,
    /// A member is new.
    Added {
        /// Its name.
        member: String,
        /// Its length in bytes.
        bytes: u64,
    },
    /// A member is gone.
    Removed {
        /// Its name.
        member: String,
        /// Its length in bytes.
        bytes: u64,
    },
    /// A member that no key refers to has other content, under the name that it had.
    Replaced {
        /// Its name.
        member: String,
        /// Its new length in bytes.
        bytes: u64,
    },
    /// The weights are others.
    Weights {
        /// Their length in bytes.
        bytes: u64,
    },
    /// The folder around everything is gone.
    Unwrapped,
    /// A file that no key refers to was left out.
    LeftOut {
        /// Its name.
        member: String,
        /// Its length in bytes.
        bytes: u64,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Set { key, old: Some(old), new } => {
                write!(f, "{key}: {} (was {})", shown(new), shown(old))
            }
            Self::Set { key, old: None, new } => write!(f, "{key}: {} (new)", shown(new)),
            Self::Deleted { key, old } => write!(f, "{key}: deleted (was {})", shown(old)),
            Self::Config => write!(f, "config replaced"),
            Self::Added { member, bytes } => write!(f, "added {member} ({bytes} bytes)"),
            Self::Removed { member, bytes } => write!(f, "removed {member} ({bytes} bytes)"),
            Self::Replaced { member, bytes } => write!(f, "replaced {member} ({bytes} bytes)"),
            Self::Weights { bytes } => write!(f, "weights replaced ({bytes} bytes)"),
            Self::Unwrapped => write!(f, "members moved out of the folder around them"),
            Self::LeftOut { member, bytes } => {
                write!(f, "left out {member} ({bytes} bytes), to which no key refers")
            }
        }
    }
}
