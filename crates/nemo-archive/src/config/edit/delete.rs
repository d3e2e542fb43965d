//! A key or an item that goes away.

use ckptkit_core::Result;

use super::super::emit::Style;
use super::super::surface::Entry;
use super::super::tree::Kind;
use super::super::value::Value;
use super::{Change, Config, Edit, Splice, shared, unclear};

impl Edit<'_> {
    pub(super) fn delete(&self) -> Result<Config> {
        shared::refuse_anchors_inside(self.tree(), &self.config.text, self.id())?;
        let level = self.trail.len().checked_sub(2).ok_or_else(unclear)?;
        let siblings = self.siblings()?;
        let at = siblings.iter().position(|e| e.value == self.id()).ok_or_else(unclear)?;
        let splices = if self.has_brackets(level) {
            vec![Splice::remove(self.flow_extent(&siblings, at)?)]
        } else if self.style(level + 1) != Style::Block {
            return Err(unclear()); // the one pair of a mapping without brackets
        } else if siblings.len() == 1 {
            let (trail, places) = (&self.trail[..=level], self.places[..=level].to_vec());
            Edit { trail, places, ..*self }.emptied()?
        } else {
            vec![Splice::remove(self.block_extent(&siblings, at)?)]
        };
        self.finish(splices, &Change::Delete)
    }

    /// Brackets where the node's only entry was.
    fn emptied(&self) -> Result<Vec<Splice>> {
        if self.trail.len() > 1 {
            let list = matches!(self.tree().nodes[self.id()].kind, Kind::List(_));
            let brackets = if list { Value::List(Vec::new()) } else { Value::Dict(Vec::new()) };
            return self.write(&brackets);
        }
        let (s, span) = (&self.surface, &self.place()?.span);
        let range = s.line_start(span.start)..s.line_end(span.end);
        Ok(vec![Splice { range, text: "{}".into() }])
    }

    fn block_extent(&self, siblings: &[Entry], at: usize) -> Result<std::ops::Range<usize>> {
        let s = &self.surface;
        let entry = &siblings[at];
        let end = self.end_of(entry)?;
        if s.opens_line(entry.start) {
            return Ok(s.line_start(entry.start)..s.next_line(end));
        }
        // The first of an item, on the line of its dash: the next one moves there.
        let next = siblings.get(at + 1).ok_or_else(unclear)?;
        if !s.text[end..next.start].contains('#') {
            return Ok(entry.start..next.start);
        }
        let dash = s.text[..entry.start].trim_end_matches(' ').len();
        Ok(dash..s.line_end(end))
    }

    fn flow_extent(&self, siblings: &[Entry], at: usize) -> Result<std::ops::Range<usize>> {
        let s = &self.surface;
        let entry = &siblings[at];
        let mut range = entry.start..self.end_of(entry)?;
        let comma = s.skip(range.end);
        if s.byte(comma) == Some(b',') {
            range.end = comma + 1;
            let spaces =
                |at: usize| s.text[at..].len() - s.text[at..].trim_start_matches(' ').len();
            let rest = range.end + spaces(range.end);
            let line_is_over = rest == s.line_end(rest) || s.byte(rest) == Some(b'#');
            if line_is_over && s.opens_line(entry.start) {
                return Ok(s.line_start(entry.start)..s.next_line(rest));
            }
            if !line_is_over {
                range.end = rest;
            }
        } else if at > 0 {
            // JSON has no comma behind the last.
            let before = self.end_of(&siblings[at - 1])?;
            if !s.text[before..entry.start].contains('#') {
                range.start = before;
            }
        }
        Ok(range)
    }
}
