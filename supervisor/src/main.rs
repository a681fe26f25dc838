//! `bulkheadd`, the supervisor of a host. Started by systemd; takes no settings.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bulkhead_supervisor::daemon;
use bulkhead_supervisor::paths::Paths;
use bulkhead_supervisor::tenant::vm::power::{self, Arguments, PowerDown};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};
use tracing_subscriber::EnvFilter;

/// How long a hanging device may hold up the end.
const LAST_JOBS: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    // Standard error is the journal's, which knows the time by itself.
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .without_time()
        .init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let ended = match arguments.split_first() {
        Some((command, rest)) if command == power::COMMAND => power_down(rest),
        _ => start(arguments.into_iter()),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            error!(error = format!("{e:#}"), "supervisor ended");
            ExitCode::FAILURE
        }
    }
}

/// The command by which systemd stops a virtual machine: see [`power`].
fn power_down(arguments: &[String]) -> anyhow::Result<()> {
    let Some(Arguments { socket, within }) = Arguments::parse(arguments) else {
        bail!("usage: bulkheadd {} SOCKET --within SECONDSs", power::COMMAND);
    };
    let ended = power::power_down(&socket, within).context("switch the machine off")?;
    ensure!(ended != PowerDown::StillOn, "the guest did not heed its power button");
    info!(?ended, "power button pressed");
    Ok(())
}

fn start(arguments: impl Iterator<Item = String>) -> anyhow::Result<()> {
    let paths = paths(arguments)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(4)
        .enable_all()
        .build()
        .context("start the runtime")?;
    let ended = runtime.block_on(run(paths));
    runtime.shutdown_timeout(LAST_JOBS);
    ended
}

async fn run(paths: Paths) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("wait for SIGINT")?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    Ok(daemon::run(paths, stop).await?)
}

/// `--root DIR` puts everything below a directory, to try the supervisor beside a real one.
fn paths(mut args: impl Iterator<Item = String>) -> anyhow::Result<Paths> {
    match (args.next().as_deref(), args.next(), args.next()) {
        (None, ..) => Ok(Paths::of_host()),
        (Some("--root"), Some(root), None) => Ok(Paths::below(Path::new(&PathBuf::from(root)))),
        _ => bail!("usage: bulkheadd [--root DIR]"),
    }
}
