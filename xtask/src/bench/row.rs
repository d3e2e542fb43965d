//! What a case came to.

use serde_json::{Value, json};

use super::cases::{Against, Case, Limit};
use super::measure::{Cost, Memory};

/// The middle of some numbers, and what they lie between.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) least: f64,
    pub(super) most: f64,
}

impl Spread {
    pub(super) fn of(numbers: &[f64]) -> Option<Self> {
        let mut sorted = numbers.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        let half = sorted.len() / 2;
        let upper = sorted[half];
        let median = if sorted.len() % 2 == 1 { upper } else { (sorted[half - 1] + upper) / 2.0 };
        Some(Self { median, least, most })
    }

    fn json(numbers: &[f64]) -> Value {
        Self::of(numbers).map_or(
            Value::Null,
            |s| json!({"median": s.median, "least": s.least, "most": s.most, "rounds": numbers}),
        )
    }
}

/// The rounds of one program in one case.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    /// Ratios to what the case is held against, or seconds.
    pub(super) values: Vec<f64>,
    pub(super) wall: Vec<f64>,
    pub(super) cpu: Vec<f64>,
    pub(super) memory: Memory,
    /// Why its times do not count.
    pub(super) failure: Option<String>,
}

impl Rounds {
    pub(super) fn push(&mut self, value: f64, cost: Cost) {
        self.values.push(value);
        self.wall.push(cost.wall);
        self.cpu.push(cost.cpu);
    }

    fn json(&self) -> Value {
        let numbers = |numbers: &[f64]| match self.failure {
            Some(_) => Value::Null, // Not timed.
            None => Spread::json(numbers),
        };
        json!({
            "failure": self.failure,
            "value": numbers(&self.values),
            "wall_seconds": numbers(&self.wall),
            "cpu_seconds": numbers(&self.cpu),
            "anonymous_bytes": self.memory.anonymous,
            "resident_bytes": self.memory.resident,
        })
    }
}

pub(super) struct Row {
    pub(super) case: &'static Case,
    pub(super) source_bytes: u64,
    pub(super) ours: Rounds,
    /// What the case is held against, in seconds.
    pub(super) base: Vec<f64>,
    /// Seconds in one process, without its start.
    pub(super) inside: Vec<f64>,
    /// Bytes that stay in memory for each chunk of an index.
    pub(super) chunk: Vec<f64>,
    pub(super) peers: Vec<Rounds>,
}

/// How a median lies to its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Target,
    Within,
    Over,
    /// A difference that came out below nothing.
    Noise,
    Failed,
}

impl Verdict {
    pub(super) fn of(value: f64, limit: Limit) -> Self {
        match value {
            v if v <= 0.0 => Self::Noise,
            v if v <= limit.0 => Self::Target,
            v if v <= limit.1 => Self::Within,
            _ => Self::Over,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Target => "meets the target",
            Self::Within => "within",
            Self::Over => "OVER",
            Self::Noise => "lost in noise: take more bytes or rounds",
            Self::Failed => "FAILED",
        }
    }
}

impl Row {
    pub(super) fn new(case: &'static Case, source_bytes: u64, peers: bool) -> Self {
        let peers = if peers { case.peers } else { &[] };
        Self {
            case,
            source_bytes,
            ours: Rounds::default(),
            base: Vec::new(),
            inside: Vec::new(),
            chunk: Vec::new(),
            peers: peers.iter().map(|_| Rounds::default()).collect(),
        }
    }

    /// Whether values are ratios; seconds otherwise.
    pub(super) fn is_ratio(&self) -> bool {
        self.case.against != Against::Nothing
    }

    pub(super) fn verdict(&self) -> Verdict {
        match (&self.ours.failure, Spread::of(&self.ours.values)) {
            (None, Some(spread)) => Verdict::of(spread.median, self.case.limit),
            _ => Verdict::Failed,
        }
    }

    pub(super) fn json(&self) -> Value {
        let peers = self.case.peers.iter().zip(&self.peers);
        let peers: Vec<Value> = peers
            .map(|(peer, rounds)| {
                let mut value = rounds.json();
                value["name"] = json!(peer.name);
                value
            })
            .collect();
        json!({
            "name": self.case.name,
            "row": self.case.row,
            "unit": if self.is_ratio() { "ratio" } else { "seconds" },
            "source_bytes": self.source_bytes,
            "ours": self.ours.json(),
            "against_seconds": Spread::json(&self.base),
            "inside_seconds": Spread::json(&self.inside),
            "bytes_a_chunk": Spread::json(&self.chunk),
            "target": self.case.limit.0,
            "at_most": self.case.limit.1,
            "verdict": self.verdict().name(),
            "peers": peers,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_or_between_the_two_in_the_middle() {
        let middle = |numbers: &[f64]| Spread::of(numbers).map(|s| (s.least, s.median, s.most));
        assert_eq!(middle(&[]), None);
        assert_eq!(middle(&[3.0]), Some((3.0, 3.0, 3.0)));
        assert_eq!(middle(&[3.0, 1.0, 2.0]), Some((1.0, 2.0, 3.0)));
        assert_eq!(middle(&[4.0, 1.0, 2.0, 3.0]), Some((1.0, 2.5, 4.0)));
    }

    #[test]
    fn limits_are_met_by_what_equals_them() {
        let verdict = |value| Verdict::of(value, Limit(0.9, 1.1));
        assert_eq!(verdict(0.9), Verdict::Target);
        assert_eq!(verdict(1.1), Verdict::Within);
        assert_eq!(verdict(1.11), Verdict::Over);
        assert_eq!(verdict(f64::NAN), Verdict::Over);
        assert_eq!(verdict(-0.1), Verdict::Noise);
    }
}
