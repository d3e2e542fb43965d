//! The members of an archive in the making.

use std::collections::HashMap;

use ckptkit_core::{EntryPath, Error, OutputFile, Result, ResultExt, Section, Segment};

use super::options::WriteOptions;
use super::tar::TarLayout;
use crate::artifact;
use crate::config::Config;
use crate::entry::Entry;

/// What a member is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    Config,
    Artifact,
    Weights,
}

/// Where a member's bytes come from.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    Directory,
    /// As a member of the source, copied as it is.
    Kept(Entry),
    New(OutputFile),
}

#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) path: EntryPath,
    pub(crate) role: Role,
    pub(crate) content: Content,
}

impl Member {
    pub(crate) fn is_dir(&self) -> bool {
        match &self.content {
            Content::Directory => true,
            Content::Kept(entry) => entry.is_dir(),
            Content::New(_) => false,
        }
    }

    /// The bytes of an artifact, wherever it comes from.
    pub(crate) fn section(&self) -> Result<Section> {
        match &self.content {
            Content::Kept(entry) => entry.section(),
            Content::New(file) => match file.segments() {
                [] => Ok(Section::from_bytes([], self.path.as_str())),
                [(_, Segment::Section(section))] => Ok(section.clone()),
                [(_, Segment::Literal(bytes))] => {
                    Ok(Section::from_bytes(bytes.clone(), self.path.as_str()))
                }
                _ => Err(Error::invalid("is laid out and not yet written")),
            },
            Content::Directory => Err(Error::invalid("is a directory, it has no bytes")),
        }
        .within(|| format!("member {}", self.path))
    }

    /// Whether a key of a config may refer to it.
    pub(crate) fn is_artifact(&self) -> bool {
        self.role == Role::Artifact && !self.is_dir()
    }
}

/// A file of bytes that lie somewhere.
pub(crate) fn of_section(section: &Section) -> Result<OutputFile> {
    let mut file = OutputFile::default();
    file.push(Segment::Section(section.clone()))?;
    Ok(file)
}

pub(crate) fn of_bytes(bytes: Vec<u8>) -> Result<OutputFile> {
    let mut file = OutputFile::default();
    file.push(Segment::Literal(bytes))?;
    Ok(file)
}

/// All members, in the order that they are written in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Members(pub(crate) Vec<Member>);

impl Members {
    pub(crate) fn position(&self, path: &EntryPath) -> Option<usize> {
        self.0.iter().position(|m| m.path == *path)
    }

    /// Adds an artifact or the weights, before the weights where they come last.
    pub(crate) fn add(&mut self, member: Member) -> Result<()> {
        let folded = member.path.as_str().to_lowercase();
        if let Some(other) = self.0.iter().find(|m| m.path.as_str().to_lowercase() == folded) {
            return Err(Error::invalid(format!("there is a member {} already", other.path))
                .within(format_args!("member {}", member.path)));
        }
        let first = self.0.iter().position(|m| m.role == Role::Weights);
        let at = match first.filter(|_| member.role != Role::Weights) {
            Some(at) if self.0[at..].iter().all(|m| m.role == Role::Weights) => at,
            _ => self.0.len(),
        };
        self.0.insert(at, member);
        Ok(())
    }

    /// The member that a value of the config refers to: the one that it names, else the one with
    /// its base name.
    pub(crate) fn resolve(&self, text: &str) -> Result<Option<usize>> {
        if let Some(path) = artifact::uri(text) {
            let path = path?;
            return Ok(self.position(&path).filter(|&i| !self.0[i].is_dir()));
        }
        let base = artifact::base_name(text);
        let same = |m: &Member| !base.is_empty() && m.is_artifact() && m.path.file_name() == base;
        Ok(self.0.iter().position(same))
    }

    /// The keys of the config that refer to each member, by its position.
    pub(crate) fn references(&self, config: &Config) -> HashMap<usize, Vec<String>> {
        let mut by_path = HashMap::new();
        let mut by_base = HashMap::new();
        for (i, member) in self.0.iter().enumerate().filter(|(_, m)| m.is_artifact()) {
            by_path.insert(member.path.as_str(), i);
            by_base.entry(member.path.file_name()).or_insert(i);
        }
        let mut out: HashMap<usize, Vec<String>> = HashMap::new();
        for (key, text) in config.strings() {
            let found = match artifact::uri(text) {
                Some(Ok(path)) => by_path.get(path.as_str()),
                Some(Err(_)) => None,
                None => by_base.get(artifact::base_name(text)),
            };
            if let Some(&i) = found {
                out.entry(i).or_default().push(key);
            }
        }
        out
    }

    /// References of the config that name no member, with their keys.
    ///
    /// # Errors
    /// `Denied` for a reference that leaves the archive.
    pub(crate) fn unresolved(&self, config: &Config) -> Result<Vec<(String, String)>> {
        let mut out = Vec::new();
        for (key, text) in config.strings() {
            let Some(path) = artifact::uri(text) else { continue };
            let path = path.within(|| format!("key {key}")).within(|| "model_config.yaml")?;
            if !self.position(&path).is_some_and(|i| self.0[i].is_artifact()) {
                out.push((key, text.to_owned()));
            }
        }
        Ok(out)
    }

    /// Config, artifacts by name, weights; directories before what lies in them.
    pub(crate) fn sort(&mut self) {
        self.0.sort_by(|a, b| (a.role, a.path.as_str()).cmp(&(b.role, b.path.as_str())));
    }

    /// Adds the directories that members lie in.
    pub(crate) fn add_directories(&mut self) -> Result<()> {
        let mut wanted: Vec<(String, Role)> = Vec::new();
        for member in &self.0 {
            let mut path = member.path.as_str();
            while let Some((above, _)) = path.rsplit_once('/') {
                wanted.push((above.to_owned(), member.role));
                path = above;
            }
        }
        wanted.sort();
        wanted.dedup_by(|a, b| a.0 == b.0);
        let has: std::collections::HashSet<String> =
            self.0.iter().map(|m| m.path.as_str().to_owned()).collect();
        for (path, role) in wanted.into_iter().filter(|(path, _)| !has.contains(path)) {
            let path = EntryPath::new(&path)?;
            self.0.push(Member { path, role, content: Content::Directory });
        }
        Ok(())
    }

    /// The whole archive.
    pub(crate) fn lay_out(self, options: &WriteOptions) -> Result<OutputFile> {
        let epoch = options.epoch()?;
        let mut tar = TarLayout::new(epoch.unwrap_or(0))?;
        for member in self.0 {
            let place = || format!("member {}", member.path);
            let path = &member.path;
            match member.content {
                Content::Directory => tar.directory(path, epoch.unwrap_or(0))?,
                Content::Kept(entry) => {
                    let mtime = options.mtime_of(&entry, epoch);
                    if entry.is_dir() {
                        tar.directory(path, mtime)?;
                    } else {
                        let section = entry.section().within(place)?;
                        tar.file(path, mtime, of_section(&section)?)?;
                    }
                }
                Content::New(file) => tar.file(path, epoch.unwrap_or(0), file)?,
            }
        }
        tar.finish()
    }
}
