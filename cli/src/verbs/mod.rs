//! What each verb does: one file a verb.

mod apply;
mod delete;
mod describe;
mod error;
mod explain;
mod get;
mod host;
mod ledger;
mod login;
mod logs;
mod manifests;
mod supervisor;
pub mod target;
mod ticket;
mod verify;
mod wait;
mod watch;

use std::path::Path;

use clap::CommandFactory as _;

use crate::args::{Cli, Verb};
use crate::config;
use crate::console::Console;
use crate::rest::Registry;

pub use self::error::VerbError;

/// Does what the arguments say.
///
/// # Errors
/// The first thing that was refused or did not work.
pub fn run(cli: &Cli, console: &mut Console) -> Result<(), VerbError> {
    match &cli.verb {
        Verb::Login(args) => login::login(cli, args, console),
        Verb::Logout => login::logout(cli, console),
        Verb::Get(args) => get::get(&registry(cli, console)?, args, console),
        Verb::Describe(args) => describe::describe(&registry(cli, console)?, args, console),
        Verb::Apply(args) => {
            // Files first: their faults need no registry.
            let manifests = manifests::read(&args.files, console)?;
            apply::apply(&registry(cli, console)?, manifests, console)
        }
        Verb::Delete(args) => {
            let targets = delete::targets(args, console)?;
            delete::delete(&registry(cli, console)?, &targets, args, console)
        }
        Verb::Wait(args) => wait::wait(&registry(cli, console)?, args, console),
        Verb::Logs(args) => logs::logs(&registry(cli, console)?, args, console),
        Verb::Host(args) => {
            let home = console.config_home.clone();
            host::host(&args.verb, || registry_of(cli, home.as_deref()), console)
        }
        Verb::Verify(args) => verify::verify(cli.config.as_deref(), args, console),
        Verb::JoinTicket(args) => ticket::join_ticket(&registry(cli, console)?, args, console),
        Verb::Explain(args) => explain::explain(|console| registry(cli, console), args, console),
        Verb::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "bulkhead", &mut script);
            let script = String::from_utf8_lossy(&script);
            Ok(console.print(format_args!("{script}"))?)
        }
        Verb::Version => {
            Ok(console.print(format_args!("bulkhead {}\n", env!("CARGO_PKG_VERSION")))?)
        }
    }
}

/// The registry that was logged in to.
fn registry(cli: &Cli, console: &Console) -> Result<Registry, VerbError> {
    registry_of(cli, console.config_home.as_deref())
}

fn registry_of(cli: &Cli, config_home: Option<&Path>) -> Result<Registry, VerbError> {
    let path = config::path(cli.config.as_deref(), config_home)?;
    Ok(Registry::new(&config::load(&path)?)?)
}
