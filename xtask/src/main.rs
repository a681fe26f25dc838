//! The only task runner: `cargo xtask COMMAND`. It builds the programs and calls them; what the commands
//! do lives in the crates (`image` builds the image, `qemu-tests` runs the virtual site).
//!
//! ```text
//!  image  = setup, programs, bulkhead-image build
//!  up     = setup, programs, bulkhead-lab up        (which adds the site's trust to the image)
//!  test   = setup, programs and tests, test image, cargo nextest run --profile machine
//!  check  = fmt, clippy, cargo deny, rules
//!  mutants = each hand-made mutant in a copy of the workspace, cargo test
//! ```

mod mutants;
mod phase;
mod programs;
mod rules;
mod setup;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::phase::Phase;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Builds, runs and checks Bulkhead")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what this machine lacks, and say what.
    Setup,
    /// Build the image into target/image; nothing is built twice.
    Image {
        /// Build the unsigned parts twice and compare them byte by byte.
        #[arg(long)]
        check_reproducible: bool,
        /// Passed on to bulkhead-image.
        #[arg(last = true)]
        rest: Vec<String>,
    },
    /// Power on virtual servers, boot them over the network, run a tenant's lease.
    Up {
        /// How many servers.
        #[arg(long, default_value_t = 1)]
        hosts: u32,
        /// Passed on to bulkhead-lab up.
        #[arg(last = true)]
        rest: Vec<String>,
    },
    /// Stop what `up` started and leave nothing behind.
    Down,
    /// Run the bulkhead command line against the site that `up` started: cargo xtask cli -- get hosts
    Cli {
        /// Arguments of bulkhead.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run every test, those with virtual servers too.
    Test {
        /// Passed on to cargo nextest run.
        #[arg(last = true)]
        rest: Vec<String>,
    },
    /// Formatting, lints, dependency policy, crate rules.
    Check,
    /// Break the code on purpose, one hand-made mutant after the other: the tests must notice each.
    Mutants {
        /// Only those whose name, or crate's name, contains one of these.
        names: Vec<String>,
    },
    /// Measure, beside the floor or peer of the same run: cargo xtask bench boot
    Bench {
        /// What to measure: boot, lease, firewall, net, mig.
        name: String,
        /// Fewer repetitions.
        #[arg(long)]
        quick: bool,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    programs::enter_workspace()?;
    match command {
        Command::Setup => setup::machine(),
        Command::Image { check_reproducible, rest } => {
            setup::machine()?;
            programs::build()?;
            let verb = if check_reproducible { "check-reproducible" } else { "build" };
            Phase::new("image").run(programs::image(verb).args(rest))
        }
        Command::Up { hosts, rest } => {
            setup::machine()?;
            programs::build()?;
            let hosts = hosts.to_string();
            programs::replace(programs::lab("up").args(["--hosts", &hosts]).args(rest))
        }
        Command::Down => programs::replace(&mut programs::built_lab("down")?),
        Command::Cli { arguments } => {
            programs::replace(programs::built_lab("cli")?.arg("--").args(arguments))
        }
        Command::Test { rest } => test(&rest),
        Command::Check => check(),
        Command::Mutants { names } => mutants::run(&names),
        Command::Bench { name, quick } => {
            setup::machine()?;
            match name.as_str() {
                "lease" => programs::build_with_examples(&["lease_speed"])?,
                "firewall" => programs::build_with_examples(&["firewall_speed"])?,
                "net" => programs::build_with_examples(&["firewall_speed", "links_speed"])?,
                "mig" => programs::build_with_examples(&["slice_speed"])?,
                _ => programs::build()?,
            }
            let quick = quick.then_some("--quick");
            programs::replace(programs::lab("bench").arg(name).args(quick))
        }
    }
}

fn test(rest: &[String]) -> Result<()> {
    setup::machine()?;
    setup::nextest()?;
    programs::build_with_tests()?;
    Phase::new("test image").run(programs::image("build").arg("--test-layer"))?;
    // Nothing may hide what the tests print: CI reads their closing line.
    let mut nextest = phase::command("cargo");
    nextest.args(["nextest", "run", "--workspace", "--profile", "machine"]).args(rest);
    Phase::new("tests").run_in_sight(&mut nextest)
}

fn check() -> Result<()> {
    Phase::new("format").run(phase::command("cargo").args(["fmt", "--all", "--check"]))?;
    Phase::new("crate rules").call(rules::check)?;
    let mut clippy = phase::command("cargo");
    clippy.args(["clippy", "--workspace", "--all-targets", "--all-features", "--quiet"]);
    Phase::new("clippy").run(clippy.args(["--", "-D", "warnings"]))?;
    setup::deny()?;
    Phase::new("dependency policy")
        .run(phase::command("cargo").args(["deny", "check", "bans", "licenses", "sources"]))
}
