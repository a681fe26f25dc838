//! Figures beside their goals, as every bench prints them.

use super::table;

/// A figure, its goal, and whether it holds.
#[derive(Debug)]
pub(super) struct Goal {
    pub(super) what: &'static str,
    pub(super) key: &'static str,
    pub(super) found: f64,
    pub(super) at_most: f64,
}

impl Goal {
    fn holds(&self) -> bool {
        self.found > 0.0 && self.found <= self.at_most
    }
}

/// Prints a table for people and one line for programs; `true` where every goal holds.
pub(super) fn judge(bench: &str, goals: &[Goal]) -> bool {
    let rows: Vec<Vec<String>> = goals
        .iter()
        .map(|goal| {
            let word = if goal.holds() { "holds" } else { "MISSED" };
            let (found, most) = (format!("{:.2}", goal.found), format!("{:.2}", goal.at_most));
            vec![goal.what.to_owned(), found, most, word.to_owned()]
        })
        .collect();
    println!("{}\n", table::render(&["goal", "found", "at most", ""], &rows));
    let keys: Vec<String> = goals.iter().map(|g| format!("{}={:.2}", g.key, g.found)).collect();
    println!("BENCH {bench} {}", keys.join(" "));
    goals.iter().all(Goal::holds)
}
