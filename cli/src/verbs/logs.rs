//! `logs`: the console log of a lease's program.

use std::thread;

use bulkhead_api::chain::Chain;
use bulkhead_api::id::LeaseId;

use super::error::VerbError;
use super::target::lease;
use crate::args::LogsArgs;
use crate::console::{Console, visible};
use crate::rest::Registry;

/// How far back a follower looks for the lines that it has shown already.
const OVERLAP: u32 = 1000;

pub(super) fn logs(
    registry: &Registry,
    args: &LogsArgs,
    console: &mut Console,
) -> Result<(), VerbError> {
    let lease = lease(&args.name, args.tenant.as_deref())?;
    let text = registry.log(&lease, args.lines)?;
    show(text.lines(), console)?;
    if args.follow { follow(registry, &lease, &text, args.lines, console) } else { Ok(()) }
}

/// Asks again and again, and shows the lines behind those known. The log is where the host is: a stream of
/// every follower would cross the site's uplink, a question every two seconds is bounded.
fn follow(
    registry: &Registry,
    lease: &LeaseId,
    first: &str,
    lines: u32,
    console: &mut Console,
) -> Result<(), VerbError> {
    let mut known: Vec<String> = first.lines().map(str::to_owned).collect();
    let mut troubled = false;
    loop {
        thread::sleep(console.pause.saturating_mul(4));
        let text = match registry.log(lease, lines.max(OVERLAP)) {
            Ok(text) => text,
            Err(error) if error.is_not_found() => {
                console.complain(format_args!("lease {lease} is gone\n"));
                return Ok(());
            }
            Err(error) if error.is_passing() => {
                if !troubled {
                    console.complain(format_args!("{}; asking again\n", Chain(&error)));
                }
                troubled = true;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        troubled = false;
        let now: Vec<String> = text.lines().map(str::to_owned).collect();
        let (new, gap) = news(&known, &now);
        if gap {
            console.complain(format_args!("lines may be missing here\n"));
        }
        show(new.iter().map(String::as_str), console)?;
        known = now;
    }
}

/// The lines of `now` that follow those of `known`, and whether some may be missing in between.
///
/// Both are the end of one growing log, of different lengths. The longest end of `known` that is found in
/// `now` with only new lines behind it counts; equal lines that repeat without end can hide new ones.
fn news<'a>(known: &[String], now: &'a [String]) -> (&'a [String], bool) {
    let all = (now, !known.is_empty() && !now.is_empty());
    let Some(last) = known.last() else { return all };
    let ends = (1..=now.len()).rev().filter(|&end| now.get(end - 1) == Some(last));
    let longest = ends.max_by_key(|&end| {
        let before = now.get(..end).unwrap_or_default();
        let same = known.iter().rev().zip(before.iter().rev()).take_while(|(a, b)| a == b);
        // Of equally long ones the earliest loses nothing: what is shown twice is better than not at all.
        (same.count(), usize::MAX - end)
    });
    match longest {
        Some(end) => (now.get(end..).unwrap_or_default(), false),
        None => all,
    }
}

fn show<'a>(lines: impl Iterator<Item = &'a str>, console: &mut Console) -> Result<(), VerbError> {
    let mut text = String::new();
    for line in lines {
        // What a tenant prints must not steer the terminal of an operator; a file gets it as it is.
        text.push_str(&if console.out_is_terminal { visible(line) } else { line.to_owned() });
        text.push('\n');
    }
    Ok(console.print(format_args!("{text}"))?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::news;

    fn lines(text: &str) -> Vec<String> {
        text.chars().map(String::from).collect()
    }

    fn new(known: &str, now: &str) -> (String, bool) {
        let (known, now) = (lines(known), lines(now));
        let (new, gap) = news(&known, &now);
        (new.concat(), gap)
    }

    #[test]
    fn only_lines_behind_the_known_ones_are_new() {
        assert_eq!(new("abc", "abcde"), ("de".to_owned(), false));
        assert_eq!(new("abc", "bcde"), ("de".to_owned(), false));
        assert_eq!(new("bc", "abc"), (String::new(), false));
        assert_eq!(new("", "ab"), ("ab".to_owned(), false));
        assert_eq!(new("abab", "ababab"), ("ab".to_owned(), false));
    }

    #[test]
    fn a_log_that_moved_on_entirely_may_miss_lines() {
        assert_eq!(new("abc", "xyz"), ("xyz".to_owned(), true));
    }

    proptest! {
        #[test]
        fn lines_that_differ_are_shown_once_each(total in 1..40_usize, seen in 0..40_usize, back in 1..40_usize) {
            let log: Vec<String> = (0..total).map(|n| n.to_string()).collect();
            let seen = seen.min(total);
            let known = &log[seen.saturating_sub(back)..seen];
            let (new, gap) = news(known, &log);
            let want = if known.is_empty() { &log[..] } else { &log[seen..] };
            prop_assert_eq!((new, gap), (want, false));
        }

        #[test]
        fn any_lines_end_without_a_panic(known in "[ab]{0,12}", now in "[ab]{0,12}") {
            new(&known, &now);
        }
    }
}
