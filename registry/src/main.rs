//! `bulkhead-registry`: founds a fleet, signs for it, serves it.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use bulkhead_api::time::Timestamp;
use bulkhead_registry::config::RegistryConfig;
use bulkhead_registry::init::init;
use bulkhead_registry::server;
use bulkhead_registry::signer::authority::Authority;
use bulkhead_registry::signer::server as signer;
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// The fleet registry.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Makes keys, trust anchors, admin token and configuration; completes what is missing of them.
    Init {
        /// Folder of the fleet.
        #[arg(long)]
        dir: PathBuf,
        /// A further DNS name or address of the registry, beside 127.0.0.1 and localhost.
        #[arg(long = "name")]
        names: Vec<String>,
    },
    /// Holds the private keys and signs what the registry asks for.
    Signer {
        /// Folder of the keys.
        #[arg(long)]
        dir: PathBuf,
        /// Where to listen.
        #[arg(long)]
        socket: PathBuf,
    },
    /// Serves REST and the link to sites.
    Serve {
        /// `registry.json`.
        #[arg(long)]
        config: PathBuf,
    },
}

fn main() -> ExitCode {
    let args = Args::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    match run(args.verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bulkhead-registry: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> Result<()> {
    match verb {
        Verb::Init { dir, names } => {
            for path in init(&dir, &names, Timestamp::now())? {
                println!("made {}", path.display());
            }
            Ok(())
        }
        Verb::Signer { dir, socket } => in_runtime(async {
            let authority = Authority::load(&dir)?;
            let listener = signer::listen(&socket)?;
            let ended = signer::run(listener, authority, told_to_stop()?).await;
            // Nobody listens there any more; the next one would take it over anyway.
            std::fs::remove_file(&socket).context("remove the signer's socket")?;
            Ok(ended?)
        }),
        Verb::Serve { config } => in_runtime(async {
            let config = RegistryConfig::load(&config)?;
            let listener = server::listen(config.listen).await?;
            Ok(server::serve(&config, listener, told_to_stop()?).await?)
        }),
    }
}

fn in_runtime(program: impl Future<Output = Result<()>>) -> Result<()> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.enable_all().build().context("start the runtime")?.block_on(program)
}

/// SIGTERM of systemd, SIGINT of a terminal.
fn told_to_stop() -> Result<impl Future<Output = ()>> {
    let mut term = signal(SignalKind::terminate()).context("listen to SIGTERM")?;
    let mut int = signal(SignalKind::interrupt()).context("listen to SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
}
