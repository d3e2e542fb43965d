//! Placements of several groups among the same candidates.

use std::collections::{HashMap, HashSet};

use super::placement::{Assignment, Bounds, Placement, fits};

/// Bytes of the states that are kept, and what a state costs beside its numbers.
const MAX_STATE_BYTES: usize = 32 << 20;
const STATE_BYTES: usize = 64;
/// Numbers that are looked at to count the states, and to search where they are too many.
const MAX_WORK: usize = 200_000_000;
const MAX_SEARCH: usize = 20_000_000;

/// How many parameters of every group are placed.
type State = Box<[u32]>;

/// Which of several moves comes first.
#[derive(Clone, Copy)]
enum Order {
    Forward,
    Backward,
}

/// The classes of shapes of the candidates and of every group's parameters (`None`: any), and where
/// each group's can be.
pub(super) struct Groups {
    pub(super) candidates: Vec<u32>,
    pub(super) groups: Vec<Vec<Option<u32>>>,
    pub(super) bounds: Vec<Bounds>,
}

impl Groups {
    pub(super) fn assignment(&self) -> Assignment {
        let start: State = vec![0; self.groups.len()].into();
        let Some(layers) = self.layers(&start) else {
            return Assignment::Ambiguous { count: None, examples: self.search(&start) };
        };
        let ways = self.count(&layers);
        let count = ways[0].get(&start).copied().unwrap_or(0);
        if count == 0 {
            return Assignment::Impossible;
        }
        let mut examples = self.examples(&start, &ways);
        match (count, examples.len()) {
            (1, 1) => Assignment::Unique(examples.remove(0)),
            _ => Assignment::Ambiguous { count: Some(count), examples },
        }
    }

    /// What can be done with a candidate: give it to one of these groups, or (`None`) to nobody.
    fn moves(&self, at: usize, state: &[u32]) -> Vec<Option<usize>> {
        let mut out = Vec::new();
        let mut must = None;
        for (g, &placed) in state.iter().enumerate() {
            let placed = placed as usize;
            let Some(&parameter) = self.groups[g].get(placed) else { continue };
            let last = self.bounds[g].last[placed];
            if last < at {
                return Vec::new();
            }
            if last == at && must.replace(g).is_some() {
                return Vec::new();
            }
            if fits(parameter, self.candidates[at]) {
                out.push(Some(g));
            }
        }
        match must {
            Some(g) => out.retain(|m| *m == Some(g)),
            None => out.push(None),
        }
        out
    }

    fn next(state: &[u32], group: Option<usize>) -> State {
        let mut next: State = state.into();
        if let Some(g) = group {
            next[g] += 1;
        }
        next
    }

    fn is_complete(&self, state: &[u32]) -> bool {
        self.groups.iter().zip(state).all(|(group, &placed)| group.len() == placed as usize)
    }

    /// The states that can be reached before every candidate, and behind the last; `None` where
    /// they are too many.
    fn layers(&self, start: &State) -> Option<Vec<Vec<State>>> {
        let (mut bytes, mut work) = (MAX_STATE_BYTES, MAX_WORK);
        let width = self.groups.len();
        let mut layers = vec![vec![start.clone()]];
        for at in 0..self.candidates.len() {
            let mut seen: HashSet<State> = HashSet::new();
            for state in layers.last().into_iter().flatten() {
                let moves = self.moves(at, state);
                work = work.checked_sub(width * (1 + moves.len()))?;
                for group in moves {
                    if seen.insert(Self::next(state, group)) {
                        bytes = bytes.checked_sub(STATE_BYTES + 4 * width)?;
                    }
                }
            }
            layers.push(seen.into_iter().collect());
        }
        Some(layers)
    }

    /// For every state of every layer, in how many ways the rest can be placed.
    fn count(&self, layers: &[Vec<State>]) -> Vec<HashMap<State, u64>> {
        let mut ways: Vec<HashMap<State, u64>> = vec![HashMap::new(); layers.len()];
        for (at, layer) in layers.iter().enumerate().rev() {
            for state in layer {
                let n = match ways.get(at + 1) {
                    None => u64::from(self.is_complete(state)),
                    Some(later) => self.moves(at, state).into_iter().fold(0, |sum: u64, group| {
                        let n = later.get(&Self::next(state, group)).copied().unwrap_or(0);
                        sum.saturating_add(n)
                    }),
                };
                if n > 0 {
                    ways[at].insert(state.clone(), n);
                }
            }
        }
        ways
    }

    /// The first placement, the last, and the second, along states that lead to the end.
    fn examples(&self, start: &State, ways: &[HashMap<State, u64>]) -> Vec<Placement> {
        let leads_on = |at: usize, state: &State| ways[at].contains_key(state);
        let mut out = self.walk(start, Order::Forward, usize::MAX, 2, &leads_on);
        let last = self.walk(start, Order::Backward, usize::MAX, 1, &leads_on).pop();
        if let Some(last) = last.filter(|last| !out.contains(last)) {
            out.insert(1, last);
        }
        out
    }

    /// Placements that are found in a bounded time.
    fn search(&self, start: &State) -> Vec<Placement> {
        let steps = MAX_SEARCH / self.groups.len().max(1);
        self.walk(start, Order::Forward, steps, 2, &|_, _| true)
    }

    /// Goes through the placements depth first, the way back in a stack of open choices.
    fn walk(
        &self,
        start: &State,
        order: Order,
        mut steps: usize,
        most: usize,
        leads_on: &dyn Fn(usize, &State) -> bool,
    ) -> Vec<Placement> {
        let mut found = Vec::new();
        let mut open = vec![(start.clone(), self.open_moves(0, start, order))];
        let mut taken: Vec<Option<usize>> = Vec::new();
        while let Some((state, moves)) = open.last_mut() {
            let at = taken.len();
            if at == self.candidates.len() {
                if self.is_complete(state) {
                    found.push(self.placement(&taken));
                    if found.len() == most {
                        return found;
                    }
                }
                open.pop();
                taken.pop();
                continue;
            }
            steps = match steps.checked_sub(1) {
                Some(steps) => steps,
                None => return found,
            };
            let Some(group) = moves.pop() else {
                open.pop();
                taken.pop();
                continue;
            };
            let next = Self::next(state, group);
            if leads_on(at + 1, &next) {
                let moves = self.open_moves(at + 1, &next, order);
                open.push((next, moves));
                taken.push(group);
            }
        }
        found
    }

    /// The moves that are open, the next one last.
    fn open_moves(&self, at: usize, state: &[u32], order: Order) -> Vec<Option<usize>> {
        if at == self.candidates.len() {
            return Vec::new();
        }
        let mut moves = self.moves(at, state);
        if let Order::Forward = order {
            moves.reverse();
        }
        moves
    }

    fn placement(&self, taken: &[Option<usize>]) -> Placement {
        let mut out: Placement = self.groups.iter().map(|g| Vec::with_capacity(g.len())).collect();
        for (at, group) in taken.iter().enumerate() {
            if let Some(g) = group {
                out[*g].push(at);
            }
        }
        out
    }
}
