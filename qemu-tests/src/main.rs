//! `bulkhead-lab`: the virtual site. `cargo xtask` builds what it needs and calls it.

use std::process::ExitCode;

use anyhow::Result;
use bulkhead_qemu_tests::artifacts::Workspace;
use bulkhead_qemu_tests::lab::{
    self, bench, bench_firewall, bench_lease, bench_mig, bench_net, up,
};
use bulkhead_qemu_tests::vm::Lane;
use clap::{Parser, Subcommand, ValueEnum};

/// A virtual site: registry, provisioner and servers in a network namespace of their own.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Power servers on, boot them over the network, run a tenant's lease
    Up {
        /// How many servers
        #[arg(long, default_value_t = 1)]
        hosts: u8,
        /// How they boot
        #[arg(long, value_enum, default_value = "http")]
        lane: Lane,
        /// With Secure Boot
        #[arg(long)]
        secure_boot: bool,
    },
    /// End what `up` started and leave nothing behind
    Down,
    /// Run `bulkhead` against the site that is up
    Cli {
        /// Its arguments
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Measure beside the floor of the same run
    Bench {
        /// What to measure
        #[arg(value_enum)]
        name: Bench,
        /// One lane instead of all, or no server at all
        #[arg(long)]
        quick: bool,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Bench {
    /// Phases from power-on to joined, sizes, memory
    Boot,
    /// What deciding, granting and holding leases costs
    Lease,
    /// What 1000 tenants' rules cost
    Firewall,
    /// What the network of 200 tenants costs
    Net,
    /// What planning MIG slices costs, and serves
    Mig,
}

fn run(command: Command) -> Result<ExitCode> {
    let workspace = Workspace::find()?;
    match command {
        Command::Up { hosts, lane, secure_boot } => {
            up::up(&workspace, up::Wish { hosts, lane, secure_boot })?;
        }
        Command::Down => lab::down(&workspace)?,
        Command::Cli { arguments } => return lab::cli(&workspace, &arguments).map(ExitCode::from),
        Command::Bench { name, quick } => {
            let good = match name {
                Bench::Boot => bench::boot(&workspace, quick)?,
                Bench::Lease => bench_lease::lease(&workspace, quick)?,
                Bench::Firewall => bench_firewall::firewall(&workspace)?,
                Bench::Net => bench_net::net(&workspace, quick)?,
                Bench::Mig => bench_mig::mig(&workspace)?,
            };
            if !good {
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
