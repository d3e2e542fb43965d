//! A new value in the place of an old one.

use ckptkit_core::{Error, Result};

use super::super::emit::{self, Style};
use super::super::plain;
use super::super::surface::Place;
use super::super::tree::{Form, Kind};
use super::super::value::{self, Value};
use super::{Change, Config, Edit, Splice, shared, unclear};

impl Edit<'_> {
    pub(super) fn replace(&self, value: &Value) -> Result<Config> {
        if self.trail.len() <= self.config.top.len() {
            return Err(Error::invalid("the whole config cannot be set by key"));
        }
        let is_alias = self.tree().nodes[self.id()].form == Form::Alias;
        if value::same(&plain(self.tree(), self.id()), value) && !is_alias {
            return self.config.with_text(self.config.text.clone());
        }
        shared::refuse_anchors_inside(self.tree(), &self.config.text, self.id())?;
        self.finish(self.write(value)?, &Change::Set(value))
    }

    /// The stretches that put a value in the place of the node.
    pub(super) fn write(&self, value: &Value) -> Result<Vec<Splice>> {
        let (place, node) = (self.place()?, &self.tree().nodes[self.id()]);
        let last = self.trail.len() - 1;
        let brackets = self.has_brackets(last);
        let was_block = node.form == Form::Container && !brackets;
        let empty = match &node.kind {
            Kind::List(items) => items.is_empty(),
            Kind::Map(pairs) => pairs.is_empty(),
            _ => false,
        };
        // Brackets stay where they hold something; empty ones are only how nothing is written.
        let keep = brackets && !empty && emit::is_block(value);
        let style = self.style(if keep { last + 1 } else { last });
        let becomes_block = style == Style::Block && emit::is_block(value);

        let mut out = Vec::new();
        let properties = &self.surface.text[place.properties.clone()];
        if properties.contains('!') {
            // A tag is for the value that goes; an anchor may stay.
            let anchor = properties.split_ascii_whitespace().find(|w| w.starts_with('&'));
            out.push(match anchor {
                Some(anchor) => Splice { range: place.properties.clone(), text: anchor.to_owned() },
                None => Splice::remove(place.after..place.properties.end),
            });
        }
        match (was_block, becomes_block) {
            (false, false) => {
                let text = emit::inline(value, style)?;
                out.push(match node.form {
                    Form::Empty => {
                        let colon = if self.is_introduced()? { "" } else { ":" };
                        Splice::insert(place.properties.end, format!("{colon} {text}"))
                    }
                    _ => Splice { range: place.span.clone(), text },
                });
            }
            (true, false) => self.block_to_line(place, emit::inline(value, style)?, &mut out),
            (false, true) => self.line_to_block(place, node.form, value, &mut out)?,
            (true, true) => self.block_to_block(place, value, &mut out)?,
        }
        Ok(out)
    }

    /// Whether a colon or a dash stands before the node.
    fn is_introduced(&self) -> Result<bool> {
        let siblings = self.siblings()?;
        let entry = siblings.iter().find(|e| e.value == self.id()).ok_or_else(unclear)?;
        Ok(entry.key.is_none() || entry.colon)
    }

    fn block_to_line(&self, place: &Place, text: String, out: &mut Vec<Splice>) {
        let s = &self.surface;
        if !s.opens_line(place.span.start) {
            out.push(Splice { range: place.span.clone(), text });
            return;
        }
        out.push(Splice::insert(place.properties.end, format!(" {text}")));
        out.push(Splice::remove(s.line_end(place.properties.end)..s.line_end(place.span.end)));
    }

    fn line_to_block(
        &self,
        place: &Place,
        form: Form,
        value: &Value,
        out: &mut Vec<Splice>,
    ) -> Result<()> {
        let s = &self.surface;
        let behind = place.properties.end;
        let mut range = behind..place.span.end;
        if form != Form::Empty && s.line_start(place.span.start) > behind {
            // The value has lines of its own, and a comment may stand on that of the key.
            range = s.line_end(behind)..s.line_end(place.span.end);
        }
        let lines = emit::block(value, self.column_for(value)?, self.step())?;
        let at = s.line_end(range.end);
        let text = format!("{}{}", s.line_break(behind), self.joined(&lines, behind));
        out.push(Splice::remove(range));
        out.push(Splice::insert(at, text));
        Ok(())
    }

    fn block_to_block(&self, place: &Place, value: &Value, out: &mut Vec<Splice>) -> Result<()> {
        let s = &self.surface;
        let was_list = matches!(self.tree().nodes[self.id()].kind, Kind::List(_));
        let compact = !s.opens_line(place.span.start);
        let same_kind = was_list == matches!(value, Value::List(_));
        let column = match compact || same_kind {
            true => s.column(place.span.start),
            false => self.column_for(value)?,
        };
        let lines = emit::block(value, column, self.step())?;
        let text = self.joined(&lines, place.span.start);
        out.push(if compact {
            Splice { range: place.span.clone(), text: text[column..].to_owned() }
        } else {
            let lines = s.line_start(place.span.start)..s.line_end(place.span.end);
            Splice { range: lines, text }
        });
        Ok(())
    }

    /// The column of the dashes or keys of a value that gets lines of its own.
    fn column_for(&self, value: &Value) -> Result<usize> {
        let siblings = self.siblings()?;
        let first = siblings.first().ok_or_else(unclear)?;
        let column = self.surface.column(first.start);
        Ok(match (first.key, value) {
            // As OmegaConf writes them.
            (Some(_), Value::List(_)) => column,
            (Some(_), _) => column + self.step(),
            (None, _) => column + 2,
        })
    }
}
