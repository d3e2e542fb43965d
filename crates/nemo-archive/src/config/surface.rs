//! How far lists and mappings reach in the text, and what stands around values: what editors must
//! know and the parser does not say.
//!
//! The parser's spans are right for scalars and wrong for most else. So the text between scalars is
//! walked again, with the tree as the guide: every step knows which character it expects.

use std::ops::Range;

use super::tree::{Form, Kind, NodeId, Tree};

/// Where a value stands.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// Behind the colon, dash, bracket or comma that introduces it.
    pub(super) after: usize,
    /// Its anchor and tag; empty where it has none.
    pub(super) properties: Range<usize>,
    /// The value itself: brackets and quotes included, comments behind it not.
    pub(super) span: Range<usize>,
}

/// One key with its value, or one item.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) key: Option<NodeId>,
    pub(super) value: NodeId,
    /// Where it starts: at its key, or its dash.
    pub(super) start: usize,
    /// Behind its colon or dash.
    pub(super) after: usize,
    /// Whether there is a colon: `{a, b}` are two keys without one.
    pub(super) colon: bool,
}

/// The text with the tree that it was parsed to. Every answer is `None` where the text is written
/// in a way that is not understood.
#[derive(Clone, Copy)]
pub(super) struct Surface<'a> {
    pub(super) text: &'a str,
    pub(super) tree: &'a Tree,
}

impl Surface<'_> {
    /// The places of the nodes from the root to a value.
    pub(super) fn places(&self, trail: &[NodeId]) -> Option<Vec<Place>> {
        let (&root, rest) = trail.split_first()?;
        let mut places = vec![self.place(root, self.document_start()?)?];
        let mut parent = root;
        for &id in rest {
            let entries = self.entries(parent, places.last()?.span.start)?;
            let entry = entries.iter().find(|e| e.value == id)?;
            places.push(self.place(id, entry.after)?);
            parent = id;
        }
        Some(places)
    }

    /// Where a value stands that is introduced before `after`.
    pub(super) fn place(&self, id: NodeId, after: usize) -> Option<Place> {
        let properties = self.properties(after, self.first_key(id));
        let node = &self.tree.nodes[id];
        let behind = properties.end;
        let span = match node.form {
            Form::Empty => behind..behind,
            Form::Container => {
                let start = self.skip(behind);
                start..self.container_end(id, start)?
            }
            Form::Block => node.span.start..self.block_end(&node.span),
            _ => node.span.clone(),
        };
        let expected = if node.form == Form::Empty { behind } else { self.skip(behind) };
        (span.start == expected).then_some(Place { after, properties, span })
    }

    /// What a list or mapping that starts at `start` holds, in order.
    pub(super) fn entries(&self, id: NodeId, start: usize) -> Option<Vec<Entry>> {
        match &self.tree.nodes[id].kind {
            Kind::Map(pairs) => match self.tree.written.get(&id) {
                Some(written) => written.iter().map(|&(k, v)| self.pair(k, v)).collect(),
                None => pairs.iter().map(|p| self.pair(p.key, p.value)).collect(),
            },
            Kind::List(items) => {
                let flow = self.is_flow(start);
                let mut at = if flow { start + 1 } else { start };
                let mut out = Vec::with_capacity(items.len());
                for &value in items {
                    let start = self.skip(at);
                    let after = match (flow, self.byte(start)) {
                        (false, Some(b'-')) => start + 1,
                        (true, Some(b',')) if !out.is_empty() => start + 1,
                        (true, Some(_)) if out.is_empty() => start,
                        _ => return None,
                    };
                    let start = if flow { self.skip(after) } else { start };
                    out.push(Entry { key: None, value, start, after, colon: false });
                    at = self.place(value, after)?.span.end;
                }
                Some(out)
            }
            _ => None,
        }
    }

    fn pair(&self, key: NodeId, value: NodeId) -> Option<Entry> {
        let node = &self.tree.nodes[key];
        if matches!(node.form, Form::Empty | Form::Container | Form::Block) {
            return None;
        }
        let line = self.line_start(node.outer);
        let before = self.text[line..node.outer].trim_end();
        // `? key` begins at its mark.
        let start = if before.ends_with('?') { line + before.len() - 1 } else { node.outer };
        let behind = self.skip(node.span.end);
        let colon = self.byte(behind) == Some(b':');
        let after = if colon { behind + 1 } else { node.span.end };
        Some(Entry { key: Some(key), value, start, after, colon })
    }

    /// Whether the list or mapping that starts here has brackets.
    pub(super) fn is_flow(&self, start: usize) -> bool {
        matches!(self.byte(start), Some(b'{' | b'['))
    }

    fn container_end(&self, id: NodeId, start: usize) -> Option<usize> {
        let list = matches!(self.tree.nodes[id].kind, Kind::List(_));
        let bracketed = self.is_flow(start);
        let last = match self.last(id, start, bracketed)? {
            Some((value, after)) => self.place(value, after)?.span.end,
            None => start + 1,
        };
        if !bracketed {
            return Some(last);
        }
        let mut at = self.skip(last);
        if self.byte(at) == Some(b',') {
            at = self.skip(at + 1);
        }
        (self.byte(at) == Some(if list { b']' } else { b'}' })).then_some(at + 1)
    }

    /// The last value of a container, and what is before it.
    fn last(&self, id: NodeId, start: usize, bracketed: bool) -> Option<Option<(NodeId, usize)>> {
        if let Kind::List(items) = &self.tree.nodes[id].kind {
            let Some(&last) = items.last() else { return Some(None) };
            // A long list need not be walked where its last item says where it is itself.
            let node = &self.tree.nodes[last];
            if node.form != Form::Empty && node.form != Form::Container && node.form != Form::Block
            {
                return Some(Some((last, node.outer)));
            }
        }
        let entries = self.entries(id, start)?;
        match entries.last() {
            Some(entry) => Some(Some((entry.value, entry.after))),
            None => bracketed.then_some(None),
        }
    }

    /// Blank lines behind a block scalar with `+` are part of it.
    fn block_end(&self, span: &Range<usize>) -> usize {
        let header_end = self.line_end(span.start).min(span.end);
        let header = &self.text[span.start..header_end];
        let indicator = header.split([' ', '\t']).next().unwrap_or_default();
        let mut end = span.end;
        while indicator.contains('+') {
            let next = self.next_line(end);
            let line_end = self.line_end(next);
            if next == line_end && next == self.text.len()
                || !self.text[next..line_end].trim().is_empty()
            {
                break;
            }
            end = line_end;
        }
        end
    }

    /// Where the first key of a mapping starts, whose anchor is not the mapping's.
    fn first_key(&self, id: NodeId) -> usize {
        let Kind::Map(pairs) = &self.tree.nodes[id].kind else { return usize::MAX };
        let first = match self.tree.written.get(&id) {
            Some(written) => written.first().map(|&(key, _)| key),
            None => pairs.first().map(|p| p.key),
        };
        first.and_then(|key| self.pair(key, key)).map_or(usize::MAX, |entry| entry.start)
    }

    /// Where the anchor and the tag of a value stand; they end before `limit`.
    fn properties(&self, after: usize, limit: usize) -> Range<usize> {
        let start = self.skip(after);
        let mut end = None;
        let mut at = start;
        while let (Some(b'&' | b'!'), true) = (self.byte(at), at < limit) {
            let rest = &self.text[at..];
            let stop =
                |c: char| c.is_ascii_whitespace() || matches!(c, ',' | '[' | ']' | '{' | '}');
            let len = rest.find(stop).unwrap_or(rest.len());
            end = Some(at + len);
            at = self.skip(at + len);
        }
        end.map_or(after..after, |end| start..end)
    }

    /// Where the root stands, behind directives and `---`.
    fn document_start(&self) -> Option<usize> {
        let mut at = self.text.len() - self.text.trim_start_matches('\u{feff}').len();
        loop {
            at = self.skip(at);
            if self.text[at..].starts_with('%') {
                at = self.line_end(at);
            } else if self.text[at..].starts_with("---") {
                return Some(at + 3);
            } else {
                return Some(at);
            }
        }
    }

    /// Behind white space and comments.
    pub(super) fn skip(&self, mut at: usize) -> usize {
        let bytes = self.text.as_bytes();
        loop {
            match bytes.get(at) {
                Some(b' ' | b'\t' | b'\n' | b'\r') => at += 1,
                Some(b'#') if at == self.line_start(at) || bytes[at - 1].is_ascii_whitespace() => {
                    at = self.line_end(at);
                }
                _ => return at,
            }
        }
    }

    pub(super) fn byte(&self, at: usize) -> Option<u8> {
        self.text.as_bytes().get(at).copied()
    }

    /// The first byte of the line.
    pub(super) fn line_start(&self, at: usize) -> usize {
        let start = self.text[..at].rfind(['\n', '\r']).map_or(0, |i| i + 1);
        if start == 0 && self.text.starts_with('\u{feff}') {
            '\u{feff}'.len_utf8().min(at)
        } else {
            start
        }
    }

    /// The line break that ends the line, or the end of the text.
    pub(super) fn line_end(&self, at: usize) -> usize {
        self.text[at..].find(['\n', '\r']).map_or(self.text.len(), |i| at + i)
    }

    /// The first byte of the next line, or the end of the text.
    pub(super) fn next_line(&self, at: usize) -> usize {
        let end = self.line_end(at);
        let rest = &self.text[end..];
        end + if rest.starts_with("\r\n") { 2 } else { usize::from(!rest.is_empty()) }
    }

    /// The line break that this line, or else the one before it, ends with.
    pub(super) fn line_break(&self, at: usize) -> &str {
        let end = self.line_end(at);
        let own = &self.text[end..self.next_line(at)];
        if !own.is_empty() {
            return own;
        }
        let before = &self.text[..self.line_start(at)];
        if before.ends_with("\r\n") {
            "\r\n"
        } else if before.ends_with('\r') {
            "\r"
        } else {
            "\n"
        }
    }

    /// Whether only spaces stand before it on its line.
    pub(super) fn opens_line(&self, at: usize) -> bool {
        self.text[self.line_start(at)..at].bytes().all(|b| b == b' ')
    }

    /// How many characters stand before it on its line.
    pub(super) fn column(&self, at: usize) -> usize {
        self.text[self.line_start(at)..at].chars().count()
    }
}
