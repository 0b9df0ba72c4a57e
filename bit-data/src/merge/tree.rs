//! A tree of losers: who of many comes first, for one comparison per level when the first one changes.
//!
//! ```text
//!            [0] winner of all
//!            [1] loser of the last match
//!         [2]         [3]   losers of the matches before
//!       in0 in1     in2 in3
//! ```
//!
//! Players are numbers from 0 on; who beats whom is asked of the caller, whose answer is a total order.

/// Order of the players.
#[derive(Debug, Default)]
pub(super) struct LoserTree {
    /// The winner, then the losers of all matches; empty before the first order.
    nodes: Vec<usize>,
}

/// A match that nobody has come to yet.
const NOBODY: usize = usize::MAX;

impl LoserTree {
    /// The first of all; `None` without players.
    pub(super) fn winner(&self) -> Option<usize> {
        self.nodes.first().copied()
    }

    /// Orders `players` for the first time, or again after the winner alone has changed.
    pub(super) fn order(&mut self, players: usize, beats: impl Fn(usize, usize) -> bool) {
        if self.nodes.is_empty() {
            self.nodes = vec![NOBODY; players];
            (0..players).for_each(|player| self.enter(player, &beats));
        } else {
            self.replay(beats);
        }
    }

    /// `player` plays upwards until it meets nobody, which is where the loser waits.
    fn enter(&mut self, player: usize, beats: impl Fn(usize, usize) -> bool) {
        let (mut winner, mut node) = (player, self.parent(player));
        while node > 0 {
            let other = self.nodes[node];
            if other == NOBODY {
                self.nodes[node] = winner;
                return;
            }
            if beats(other, winner) {
                self.nodes[node] = winner;
                winner = other;
            }
            node /= 2;
        }
        self.nodes[0] = winner;
    }

    /// The winner after the last one has changed.
    pub(super) fn replay(&mut self, beats: impl Fn(usize, usize) -> bool) -> usize {
        let mut winner = self.nodes[0];
        let mut node = self.parent(winner);
        while node > 0 {
            let other = self.nodes[node];
            if beats(other, winner) {
                self.nodes[node] = winner;
                winner = other;
            }
            node /= 2;
        }
        self.nodes[0] = winner;
        winner
    }

    /// Who would be first without the winner: one of those that it has beaten.
    pub(super) fn second(&self, beats: impl Fn(usize, usize) -> bool) -> Option<usize> {
        let first = self.parent(self.winner()?);
        let path = std::iter::successors(Some(first), |node| Some(node / 2));
        let beaten = path
            .take_while(|&node| node > 0)
            .map(|node| self.nodes[node]);
        beaten.reduce(|best, other| if beats(other, best) { other } else { best })
    }

    fn parent(&self, player: usize) -> usize {
        usize::midpoint(self.nodes.len(), player)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes all rows of `inputs` one by one and compares every step with a search.
    fn check(inputs: &[Vec<u32>]) {
        let mut next = vec![0; inputs.len()];
        let mut tree = LoserTree::default();
        let rank = |next: &[usize], player: usize| {
            let row = inputs[player].get(next[player]);
            (row.copied().unwrap_or(u32::MAX), player)
        };
        tree.order(inputs.len(), |a, b| rank(&next, a) < rank(&next, b));
        for _ in 0..=inputs.iter().map(Vec::len).sum() {
            let mut all: Vec<_> = (0..inputs.len()).collect();
            all.sort_by_key(|&player| rank(&next, player));
            assert_eq!(tree.winner(), all.first().copied());
            let second = tree.second(|a, b| rank(&next, a) < rank(&next, b));
            assert_eq!(second, all.get(1).copied());
            if let Some(winner) = tree.winner() {
                next[winner] += 1;
                tree.replay(|a, b| rank(&next, a) < rank(&next, b));
            }
        }
    }

    #[test]
    fn the_first_and_the_second_are_right_for_any_number_of_players() {
        for players in 0..=17 {
            let rows = |player: u32| {
                let step = 1 + player % 3;
                (0..5).map(|row| row * step + player % 2).collect()
            };
            check(&(0..players).map(rows).collect::<Vec<_>>());
        }
    }

    #[test]
    fn every_order_of_four_players_is_right() {
        for code in 0..256_u32 {
            let row = |player: u32| vec![code >> (2 * player) & 3];
            check(&(0..4).map(row).collect::<Vec<_>>());
        }
    }
}
