//! The cheapest division of requests over GPUs: GPU by GPU, the cheapest way to each number of requests left.

use super::Kinds;
use super::option::{Choice, Cost};

/// The way to one number of requests left.
#[derive(Debug, Clone, Copy)]
struct Way {
    cost: Cost,
    /// Which choice the last GPU took; absent = none.
    choice: Option<u32>,
}

/// A number for each number of requests left: kinds as digits, each with a base of its own.
struct Digits {
    /// Worth of one request of each kind.
    worth: Vec<usize>,
    bases: Vec<usize>,
}

impl Digits {
    fn of(kinds: &Kinds<'_>) -> Self {
        let bases: Vec<usize> = kinds.counts.iter().map(|&count| usize::from(count) + 1).collect();
        let mut next = 1_usize;
        let mut worth = Vec::with_capacity(bases.len());
        for base in &bases {
            worth.push(next);
            next *= base;
        }
        Self { worth, bases }
    }

    fn number(&self, counts: &[u8]) -> usize {
        self.worth.iter().zip(counts).map(|(worth, &count)| worth * usize::from(count)).sum()
    }

    fn count(&self, number: usize, kind: usize) -> usize {
        let (Some(worth), Some(base)) = (self.worth.get(kind), self.bases.get(kind)) else {
            return 0;
        };
        number / worth % base
    }

    fn counts(&self, number: usize) -> Vec<u8> {
        let of = |kind| u8::try_from(self.count(number, kind)).unwrap_or(u8::MAX);
        (0..self.bases.len()).map(of).collect()
    }

    fn ways(&self) -> usize {
        self.bases.iter().product()
    }
}

/// A byte for each kind, with its highest bit free.
fn packed(counts: &[u8]) -> Vec<u64> {
    counts
        .chunks(8)
        .map(|eight| eight.iter().rev().fold(0, |all, &count| all << 8 | u64::from(count)))
        .collect()
}

const HIGH: u64 = 0x8080_8080_8080_8080;

/// Whether no byte of `part` is above that of `of`.
fn within(part: &[u64], of: &[u64]) -> bool {
    part.iter().zip(of).all(|(part, of)| (of | HIGH).wrapping_sub(*part) & HIGH == HIGH)
}

/// What each GPU takes, and how many requests of each kind are left.
pub(super) fn divide(kinds: &Kinds<'_>, lists: &[Vec<Choice>]) -> (Vec<Option<Choice>>, Vec<u8>) {
    let digits = Digits::of(kinds);
    let all = digits.number(&kinds.counts);
    let mut layers: Vec<Vec<Option<Way>>> = Vec::with_capacity(lists.len() + 1);
    let mut first = vec![None; digits.ways()];
    if let Some(way) = first.get_mut(all) {
        *way = Some(Way { cost: Cost::default(), choice: None });
    }
    layers.push(first);
    let rests: Vec<Vec<u64>> = (0..digits.ways()).map(|n| packed(&digits.counts(n))).collect();
    for list in lists {
        let next = layers.last().map(|layer| step(layer, list, &digits, &rests));
        layers.extend(next);
    }
    let mut number = layers.last().and_then(|last| cheapest(last, &digits)).unwrap_or(all);
    let left = digits.counts(number);
    let mut chosen: Vec<Option<Choice>> = Vec::new();
    for (layer, list) in layers.iter().skip(1).zip(lists).rev() {
        let way = layer.get(number).copied().flatten();
        let choice = way.and_then(|way| list.get(usize::try_from(way.choice?).ok()?));
        number += choice.map_or(0, |choice| digits.number(&choice.counts));
        chosen.push(choice.cloned());
    }
    chosen.reverse();
    (chosen, left)
}

/// One GPU more.
fn step(
    layer: &[Option<Way>],
    list: &[Choice],
    digits: &Digits,
    rests: &[Vec<u64>],
) -> Vec<Option<Way>> {
    let untouched = |way: &Option<Way>| way.map(|way| Way { choice: None, ..way });
    let mut next: Vec<Option<Way>> = layer.iter().map(untouched).collect();
    let parts: Vec<(usize, Vec<u64>, &Choice)> = list
        .iter()
        .map(|choice| (digits.number(&choice.counts), packed(&choice.counts), choice))
        .collect();
    for ((number, way), rest) in layer.iter().enumerate().zip(rests) {
        let Some(way) = way else { continue };
        for ((taken, part, choice), at) in parts.iter().zip(0_u32..) {
            if !within(part, rest) {
                continue;
            }
            let cost = way.cost.plus(choice.cost);
            if let Some(slot) = next.get_mut(number.saturating_sub(*taken))
                && slot.is_none_or(|slot| cost < slot.cost)
            {
                *slot = Some(Way { cost, choice: Some(at) });
            }
        }
    }
    next
}

/// Fewest left, then cheapest, then most of the first kinds served.
fn cheapest(last: &[Option<Way>], digits: &Digits) -> Option<usize> {
    let ways = last.iter().enumerate().filter_map(|(number, way)| Some((number, (*way)?)));
    let left =
        |number| (0..digits.bases.len()).map(|kind| digits.count(number, kind)).sum::<usize>();
    ways.min_by_key(|&(number, way)| (left(number), way.cost, number)).map(|(number, _)| number)
}
