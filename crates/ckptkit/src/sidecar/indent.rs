//! Line breaks in JSON, so that people can read it and `diff` can compare it.

/// What fits this many bytes stays on a line.
const WIDTH: usize = 100;
/// Deeper down there are no line breaks.
const LEVELS: usize = 12;

/// Breaks open, near the top, what would make a long line. The text must be JSON without any space
/// outside of strings.
pub(super) fn indent(json: &[u8]) -> Vec<u8> {
    let ends = ends(json);
    let mut out = Vec::with_capacity(json.len() + json.len() / 8);
    let mut next = ends.iter();
    // Of each open container: whether it is broken into lines.
    let mut open: Vec<bool> = Vec::new();
    let mut text = Text::default();
    let new_line = |out: &mut Vec<u8>, levels: usize| {
        out.push(b'\n');
        out.resize(out.len() + 2 * levels, b' ');
    };
    for (at, &b) in json.iter().enumerate() {
        if text.takes(b) {
            out.push(b);
            continue;
        }
        match b {
            b'{' | b'[' => {
                let long = next.next().is_some_and(|end| end - at > WIDTH);
                let above = open.last().copied().unwrap_or(true);
                open.push(long && above && open.len() < LEVELS);
                out.push(b);
                if open.last() == Some(&true) {
                    new_line(&mut out, open.len());
                }
            }
            b'}' | b']' => {
                if open.pop() == Some(true) {
                    new_line(&mut out, open.len());
                }
                out.push(b);
            }
            b',' => {
                out.push(b);
                if open.last() == Some(&true) {
                    new_line(&mut out, open.len());
                }
            }
            b':' => {
                out.push(b);
                if open.last() == Some(&true) {
                    out.push(b' ');
                }
            }
            _ => out.push(b),
        }
    }
    out.push(b'\n');
    out
}

/// Where each container ends, in the order in which they start.
fn ends(json: &[u8]) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut open = Vec::new();
    let mut text = Text::default();
    for (at, &b) in json.iter().enumerate() {
        if text.takes(b) {
            continue;
        }
        match b {
            b'{' | b'[' => {
                open.push(ends.len());
                ends.push(at);
            }
            b'}' | b']' => {
                if let Some(i) = open.pop() {
                    ends[i] = at;
                }
            }
            _ => {}
        }
    }
    ends
}

/// Tells what is inside of a string.
#[derive(Default)]
struct Text {
    inside: bool,
    escaped: bool,
}

impl Text {
    fn takes(&mut self, b: u8) -> bool {
        if !self.inside {
            self.inside = b == b'"';
            return self.inside;
        }
        match b {
            _ if self.escaped => self.escaped = false,
            b'\\' => self.escaped = true,
            b'"' => self.inside = false,
            _ => {}
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::indent;

    #[test]
    fn long_values_are_broken_open() {
        let long = "x".repeat(90);
        let json = format!(r#"{{"a":{{"b":[1,2],"c":"{long}\",{{"}},"d":[]}}"#);
        let expected = format!(
            "{{\n  \"a\": {{\n    \"b\": [1,2],\n    \"c\": \"{long}\\\",{{\"\n  }},\n  \"d\": []\n}}\n"
        );
        assert_eq!(String::from_utf8(indent(json.as_bytes())).unwrap(), expected);
        assert_eq!(indent(br#"{"a":[1,"{"]}"#), b"{\"a\":[1,\"{\"]}\n");
    }

    #[test]
    fn depth_costs_no_space() {
        let json = "[".repeat(80) + &"1,".repeat(200) + "1" + &"]".repeat(80);
        assert!(indent(json.as_bytes()).len() < json.len() + 1000);
    }
}
