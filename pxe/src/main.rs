//! `bulkhead-site`: the boot services and relay of one site.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use bulkhead_pxe::config::SiteConfig;
use clap::{Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Boots and relays for the machines of one site.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves until SIGTERM or SIGINT.
    Run {
        /// site.json
        #[arg(long)]
        config: PathBuf,
        /// Form of the log.
        #[arg(long, value_enum, default_value = "text")]
        log: LogForm,
    },
    /// Reads and checks a configuration, changes nothing.
    CheckConfig {
        /// site.json
        #[arg(long)]
        config: PathBuf,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogForm {
    Text,
    Json,
}

fn start_log(form: LogForm) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match form {
        LogForm::Text => log.with_ansi(false).init(),
        LogForm::Json => log.json().init(),
    }
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::CheckConfig { config: path } => {
            let config = SiteConfig::read(&path)?;
            println!("{}: site {} on {}: good", path.display(), config.site, config.interface);
            Ok(())
        }
        Command::Run { config: path, log } => {
            start_log(log);
            let config = SiteConfig::read(&path)?;
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .context("start tokio")?;
            let ended = runtime.block_on(async {
                let mut terminate = signal(SignalKind::terminate()).context("SIGTERM handler")?;
                let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT handler")?;
                let shutdown = async move {
                    tokio::select! {
                        _ = terminate.recv() => {}
                        _ = interrupt.recv() => {}
                    }
                };
                bulkhead_pxe::run::run(&config, shutdown).await.context("run site")
            });
            // Blocking transfers end by their own time limits; nobody waits for them.
            runtime.shutdown_background();
            ended
        }
    }
}
