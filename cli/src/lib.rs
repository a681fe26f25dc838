//! `bulkhead`, the command line of a fleet.
//!
//! ```text
//!  arguments ──args──► verbs ──rest──► registry (HTTPS, fleet CA)      errors: what, which field, the way out
//!                        │ └──local──► supervisor (unix socket)
//!      manifest ─────────┤
//!      (YAML, places)    └──► view (tables, pages, YAML, JSON) ──► Console
//! ```
//!
//! [`run`] is the whole program with its surroundings as a value, so that tests run what people run.

pub mod args;
pub mod config;
pub mod console;
pub mod explain;
pub mod local;
pub mod manifest;
pub mod rest;
pub mod schema;
pub mod verbs;
pub mod view;
pub mod way_out;

use std::ffi::OsString;

use clap::Parser as _;

use crate::console::Console;

/// Done.
pub const DONE: u8 = 0;
/// Refused, or it did not work.
pub const FAILED: u8 = 1;
/// The command line itself is wrong.
pub const USAGE: u8 = 2;

/// Runs a command line, the program's name first, and gives its exit status.
pub fn run(arguments: impl IntoIterator<Item = OsString>, console: &mut Console) -> u8 {
    let cli = match args::Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        // `--help` and `--version` come as errors too; those are for standard output.
        Err(error) if error.use_stderr() => {
            console.complain(format_args!("{error}"));
            return USAGE;
        }
        Err(text) => return finish(console.print(format_args!("{text}")).err(), console),
    };
    finish(verbs::run(&cli, console).err(), console)
}

fn finish<E: Into<verbs::VerbError>>(error: Option<E>, console: &mut Console) -> u8 {
    match error.map(Into::into) {
        None => DONE,
        Some(error) if error.reader_left() => DONE,
        Some(error) => {
            console.error(&error, error.help().as_deref());
            error.status()
        }
    }
}
