//! `nvml-simctl`: what hardware, kernel, tenants and misfortune do to the simulated GPUs.
//!
//! Every command changes the state file that `NVML_SIM_STATE` (or `--state`) names; the libraries
//! of all processes see it at their next call.

mod faults;
mod nodes;
mod slices;

use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::{Parser, Subcommand};
use nvidia_ml::model::{Bdf, Gpu, Platform};
use nvidia_ml::profiles::{model, models};
use nvidia_ml::{Code, Machine, Store};

/// Does to the simulated GPUs what hardware, kernel, tenants and misfortune do.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The state file [default: the one that NVML_SIM_STATE names].
    #[arg(long, global = true)]
    state: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a machine with these GPUs, in place of the one that is there.
    Init {
        /// Keys of models, one for each GPU; `models` lists them.
        #[arg(required = true)]
        models: Vec<String>,
        /// As in a virtual machine, where the driver cannot reset GPUs.
        #[arg(long)]
        passthrough: bool,
    },
    /// List the models.
    Models,
    /// Print the state.
    Show,
    /// Reset a GPU, as sysfs or `nvidia-smi -r` do.
    Reset {
        /// Index, PCI address or UUID.
        gpu: String,
    },
    /// Take the driver away or bring it back.
    Driver {
        /// What to do.
        action: faults::DriverAction,
    },
    /// Restart the machine.
    Reboot,
    #[command(flatten)]
    Fault(faults::Fault),
    #[command(flatten)]
    Slice(slices::Slice),
    /// Device nodes of GPUs and MIG capabilities.
    #[command(subcommand)]
    Nodes(nodes::Nodes),
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let store = arguments.state.map_or_else(Store::from_env, Store::at);
    match arguments.command {
        Command::Init { models, passthrough } => init(&store, &models, passthrough),
        Command::Models => {
            for model in models() {
                println!("{:16} {}", model.key, model.product());
            }
            Ok(())
        }
        Command::Show => {
            println!("{}", serde_json::to_string_pretty(&*store.read_live()?)?);
            Ok(())
        }
        Command::Reset { gpu } => {
            change(&store, |machine| find(machine, &gpu)?.1.reset().map_err(refused("reset")))
        }
        Command::Driver { action } => change(&store, |machine| {
            faults::driver(machine, action);
            Ok(())
        }),
        Command::Reboot => change(&store, |machine| {
            machine.reboot();
            Ok(())
        }),
        Command::Fault(fault) => change(&store, |machine| faults::inject(machine, fault)),
        Command::Slice(slice) => slices::run(&store, slice),
        Command::Nodes(command) => nodes::run(&store, command),
    }
}

fn init(store: &Store, keys: &[String], passthrough: bool) -> Result<()> {
    let known =
        keys.iter().map(|key| model(key).ok_or_else(|| anyhow!("no model is called {key}")));
    let mut made = Machine::with(&known.collect::<Result<Vec<_>>>()?);
    if passthrough {
        made.gpus.iter_mut().for_each(|gpu| gpu.platform = Platform::Passthrough);
    }
    // What is there may be damaged, so it is not read.
    match std::fs::remove_file(store.path()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove {}", store.path().display()));
        }
        _ => {}
    }
    change(store, |machine| {
        *machine = made;
        Ok(())
    })
}

/// Changes the machine, or leaves it when `change` refuses.
fn change<T>(store: &Store, change: impl FnOnce(&mut Machine) -> Result<T>) -> Result<T> {
    store.update(change)?
}

/// Says what NVML's code refused.
fn refused(what: &'static str) -> impl Fn(Code) -> anyhow::Error {
    move |code| anyhow!("{what}: {code}")
}

/// A GPU, lost or not, by index, PCI address or UUID.
fn find<'a>(machine: &'a mut Machine, text: &str) -> Result<(u32, &'a mut Gpu)> {
    let bdf = text.parse::<Bdf>().ok();
    let mut all = (0_u32..).zip(machine.gpus.iter_mut());
    let found = all
        .find(|(index, gpu)| index.to_string() == text || gpu.uuid == text || bdf == Some(gpu.bdf));
    let Some(found) = found else { bail!("no GPU is {text}") };
    Ok(found)
}
