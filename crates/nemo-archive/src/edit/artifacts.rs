//! Artifacts: other content, new ones, none.

use ckptkit_core::{EntryPath, Error, Result, ResultExt, Section};

use super::{Editor, base_name};
use crate::config::Value;
use crate::write::Change;
use crate::write::members::{Content, Member, Role, of_section};
use crate::write::names;

/// How an artifact is replaced.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Replace {
    /// Whether every key that refers to the old content gets the new one. By default only the one
    /// that was named does, and the old member stays where others refer to it.
    pub all_refs: bool,
    /// The name of the file, where it is not to keep the old one.
    pub base_name: Option<String>,
}

impl Replace {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Editor {
    /// Gives an artifact other content. `target` is a key of the config that refers to it, or the
    /// name of its member, or the name of its file where only one is called that. The new member is
    /// called after its content, and the key gets its URI; the old member goes when no key refers
    /// to it any more. A member that no key refers to keeps its name.
    ///
    /// # Errors
    /// [`NotFound`](ckptkit_core::ErrorKind::NotFound) for a target that is no artifact;
    /// [`InvalidArgument`](ckptkit_core::ErrorKind::InvalidArgument) for a name that fits several,
    /// or a member that several keys refer to; those of [`Config::set`](crate::Config::set) for
    /// the key, and of reading the content to hash it.
    pub fn replace(&mut self, target: &str, content: &Section, options: &Replace) -> Result<()> {
        let at = |e: Error| e.within(format_args!("artifact {target}"));
        self.try_replace(target, content, options).map_err(at)
    }

    fn try_replace(&mut self, target: &str, content: &Section, options: &Replace) -> Result<()> {
        let (at, key) = self.artifact(target)?;
        let mut keys = self.references(at)?;
        match key {
            Some(key) if !options.all_refs => keys = vec![key],
            None if keys.len() > 1 && !options.all_refs => {
                return Err(Error::invalid(format!("{} keys refer to it", keys.len()))
                    .hint(format!("name one of them ({}), or all of them", keys.join(", "))));
            }
            _ => {}
        }
        let old = self.members.0[at].path.clone();
        if keys.is_empty() {
            let file = of_section(content)?;
            let (member, bytes) = (old.as_str().to_owned(), file.len());
            self.members.0[at].content = Content::New(file);
            self.changes.push(Change::Replaced { member, bytes });
            return Ok(());
        }
        let base = options.base_name.as_deref().unwrap_or_else(|| base_name(&old)).to_owned();
        let new = names::of_content(content, &base)?;
        self.refuse_other_content(&new, content)?;
        let uri = Value::Str(format!("nemo:{new}"));
        let values: Vec<_> = keys.into_iter().map(|key| (key, uri.clone())).collect();
        self.set_all(&values)?;
        self.put(new, content, Some(&old))?;
        self.drop_unreferenced(&old)
    }

    /// Adds an artifact and sets a key of the config to its URI.
    ///
    /// # Errors
    /// [`InvalidArgument`](ckptkit_core::ErrorKind::InvalidArgument) where the key refers to an
    /// artifact already, or the name of the file is none; those of
    /// [`Config::set`](crate::Config::set), and of reading the content to hash it.
    pub fn add(&mut self, key: &str, base_name: &str, content: &Section) -> Result<()> {
        let at = |e: Error| e.within(format_args!("artifact {key}"));
        self.try_add(key, base_name, content).map_err(at)
    }

    fn try_add(&mut self, key: &str, base_name: &str, content: &Section) -> Result<()> {
        if let Some(Value::Str(text)) = self.config()?.get(key) {
            if let Some(at) = self.members.resolve(&text)? {
                let member = &self.members.0[at].path;
                return Err(Error::invalid(format!(
                    "the key refers to the member {member} already"
                ))
                .hint("replace it instead"));
            }
        }
        let path = names::of_content(content, base_name)?;
        self.refuse_other_content(&path, content)?;
        self.set_value(key, &Value::Str(format!("nemo:{path}")))?;
        self.put(path, content, None)
    }

    /// Removes a member: by its name, or the name of its file where only one is called that.
    ///
    /// # Errors
    /// [`NotFound`](ckptkit_core::ErrorKind::NotFound);
    /// [`InvalidArgument`](ckptkit_core::ErrorKind::InvalidArgument) while keys refer to it.
    pub fn remove(&mut self, name: &str) -> Result<()> {
        let at = |e: Error| e.within(format_args!("member {name}"));
        let position = self.member(name).map_err(at)?;
        let keys = self.references(position).map_err(at)?;
        if !keys.is_empty() {
            return Err(at(Error::invalid(format!(
                "the config refers to it ({})",
                keys.join(", ")
            ))
            .hint("delete the keys first, or replace the artifact")));
        }
        self.take_out(position);
        Ok(())
    }

    /// Whether a key, or a name, means an artifact.
    pub(crate) fn has(&self, target: &str) -> bool {
        self.artifact(target).is_ok()
    }

    /// The bytes of an artifact.
    pub(crate) fn content(&self, target: &str) -> Result<Section> {
        let (at, _) = self.artifact(target)?;
        self.members.0[at].section()
    }

    /// Removes the artifact of that name if no key refers to it.
    pub(crate) fn remove_if_unreferenced(&mut self, name: &str) -> Result<()> {
        let at = self.member(name)?;
        let path = self.members.0[at].path.clone();
        self.drop_unreferenced(&path)
    }

    /// The keys of the config that refer to a member.
    fn references(&self, at: usize) -> Result<Vec<String>> {
        Ok(self.members.references(self.config()?).remove(&at).unwrap_or_default())
    }

    /// The artifact that a key or a name means, and the key where it was one.
    fn artifact(&self, target: &str) -> Result<(usize, Option<String>)> {
        if let Some(Value::Str(text)) = self.config()?.get(target) {
            let found = self.members.resolve(&text).within(|| format!("key {target}"))?;
            if let Some(at) = found.filter(|&at| self.members.0[at].is_artifact()) {
                return Ok((at, Some(target.to_owned())));
            }
            return Err(Error::not_found(format!("the key's value {text:?} names no artifact"))
                .hint("add one there instead"));
        }
        self.member(target).map(|at| (at, None))
    }

    /// The artifact of that member's or file's name.
    fn member(&self, name: &str) -> Result<usize> {
        let artifacts = || self.members.0.iter().enumerate().filter(|(_, m)| m.is_artifact());
        let path = EntryPath::new(name)?;
        if let Some((at, _)) = artifacts().find(|(_, m)| m.path == path) {
            return Ok(at);
        }
        let found: Vec<(usize, &Member)> =
            artifacts().filter(|(_, m)| base_name(&m.path) == path.as_str()).collect();
        let list = |members: Vec<&Member>| {
            members.iter().map(|m| m.path.as_str()).collect::<Vec<_>>().join(", ")
        };
        match found[..] {
            [(at, _)] => Ok(at),
            [] => Err(Error::not_found("no artifact is called that")
                .hint(format!("there are: {}", list(artifacts().map(|(_, m)| m).collect())))),
            _ => Err(Error::invalid("several artifacts are called that")
                .hint(format!("name one of {}", list(found.iter().map(|(_, m)| *m).collect())))),
        }
    }

    /// Adds content under the name made of it, unless it is there; in the place of `before`.
    fn put(
        &mut self,
        path: EntryPath,
        content: &Section,
        before: Option<&EntryPath>,
    ) -> Result<()> {
        if self.members.position(&path).is_some() {
            return Ok(());
        }
        let file = of_section(content)?;
        let change = Change::Added { member: path.as_str().to_owned(), bytes: file.len() };
        let member = Member { path, role: Role::Artifact, content: Content::New(file) };
        match before.and_then(|old| self.members.position(old)) {
            Some(at) => self.members.0.insert(at, member),
            None => self.members.add(member)?,
        }
        self.changes.push(change);
        Ok(())
    }

    /// A member of that name may be anything in a file that someone made by hand.
    fn refuse_other_content(&self, path: &EntryPath, content: &Section) -> Result<()> {
        let Some(at) = self.members.position(path) else { return Ok(()) };
        let same = match &self.members.0[at].content {
            Content::Kept(entry) if !entry.is_dir() => {
                let old = entry.section()?;
                old.len() == content.len() && names::sha256(&old)? == names::sha256(content)?
            }
            // The name is that of the content.
            Content::New(_) => true,
            _ => false,
        };
        if same {
            return Ok(());
        }
        Err(Error::invalid(format!("there is a member {path} with other content")))
    }

    /// Removes a member if no key refers to it any more.
    fn drop_unreferenced(&mut self, path: &EntryPath) -> Result<()> {
        let Some(at) = self.members.position(path) else { return Ok(()) };
        if self.references(at)?.is_empty() {
            self.take_out(at);
        }
        Ok(())
    }

    fn take_out(&mut self, at: usize) {
        let member = self.members.0.remove(at);
        let bytes = match &member.content {
            Content::Kept(entry) => entry.size(),
            Content::New(file) => file.len(),
            Content::Directory => 0,
        };
        self.changes.push(Change::Removed { member: member.path.as_str().to_owned(), bytes });
    }
}
