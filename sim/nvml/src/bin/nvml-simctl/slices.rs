//! Processes on GPUs and slices, and what they leave in memory.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::{Args, Subcommand};
use nvidia_ml::Store;
use nvidia_ml::memory::{GpuMemory, Range};
use nvidia_ml::model::{Gpu, Process, ProcessKind};
use rustix::fs::{FlockOperation, flock};

use crate::faults::Place;
use crate::{change, find, refused};

#[derive(Subcommand)]
pub(crate) enum Slice {
    /// Use a GPU or a slice until this command is ended: it is busy and its memory used meanwhile.
    Hold {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        memory: Memory,
        /// Text to leave in memory.
        #[arg(long)]
        marker: Option<String>,
    },
    /// Processes that are noted and not run.
    #[command(subcommand)]
    Process(Processes),
    /// Contents of memory.
    #[command(subcommand)]
    Memory(Contents),
}

#[derive(Args)]
pub(crate) struct Memory {
    /// Memory that the process has.
    #[arg(long, default_value_t = 256)]
    memory_mib: u64,
}

#[derive(Subcommand)]
pub(crate) enum Processes {
    /// Note one.
    Add {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        memory: Memory,
        /// Its number.
        #[arg(long)]
        pid: u32,
        /// Its program.
        #[arg(long, default_value = "python3")]
        name: String,
        /// It draws instead of computing.
        #[arg(long)]
        graphics: bool,
    },
    /// Forget one.
    Remove {
        /// Index, PCI address or UUID.
        #[arg(long, default_value = "0")]
        gpu: String,
        /// Its number.
        #[arg(long)]
        pid: u32,
    },
}

#[derive(Subcommand)]
pub(crate) enum Contents {
    /// Write a text, as a tenant would.
    Write {
        #[command(flatten)]
        place: Place,
        /// The text.
        #[arg(long)]
        marker: String,
    },
    /// Print what the beginning holds, up to the first zero.
    Read {
        #[command(flatten)]
        place: Place,
    },
    /// Fail unless every byte is zero.
    Check {
        #[command(flatten)]
        place: Place,
    },
    /// Write zeros.
    Erase {
        #[command(flatten)]
        place: Place,
    },
}

pub(crate) fn run(store: &Store, command: Slice) -> Result<()> {
    match command {
        Slice::Hold { place, memory, marker } => hold(store, &place, &memory, marker.as_deref()),
        Slice::Process(Processes::Add { place, memory, pid, name, graphics }) => {
            let kind = if graphics { ProcessKind::Graphics } else { ProcessKind::Compute };
            let memory_mib = memory.memory_mib;
            add(store, &place, Process { pid, name, kind, memory_mib, lock: None })
        }
        Slice::Process(Processes::Remove { gpu, pid }) => change(store, |machine| {
            let gpu = find(machine, &gpu)?.1;
            if gpu.all_processes().all(|(process, _)| process.pid != pid) {
                bail!("no process {pid} uses GPU {}", gpu.uuid);
            }
            gpu.retain_processes(|process| process.pid != pid);
            Ok(())
        }),
        Slice::Memory(contents) => memory(store, contents),
    }
}

fn add(store: &Store, place: &Place, process: Process) -> Result<()> {
    change(store, |machine| {
        let gpu = find(machine, &place.gpu)?.1;
        gpu.add_process(place.slice(), process).map_err(refused("use the GPU"))
    })
}

fn hold(store: &Store, place: &Place, memory: &Memory, marker: Option<&str>) -> Result<()> {
    let (lock, _locked) = lock(store)?;
    let process = Process {
        pid: std::process::id(),
        name: "nvml-simctl".into(),
        kind: ProcessKind::Compute,
        memory_mib: memory.memory_mib,
        lock: Some(lock),
    };
    add(store, place, process)?;
    if let Some(marker) = marker {
        let (memory, range) = open(store, place)?;
        memory.write(range, 0, marker.as_bytes())?;
    }
    println!("holding");
    std::io::stdout().flush().context("tell that it holds")?;
    // Until a signal ends it; the kernel frees the lock and everybody sees that it is gone.
    loop {
        std::thread::park();
    }
}

/// A file beside the state that stays locked while this process lives, with its name.
fn lock(store: &Store) -> Result<(String, std::fs::File)> {
    // Another process namespace may have the same number, so a few names are tried.
    for number in 0..64 {
        let path = store.beside(&format!(".hold-{}-{number}", std::process::id()));
        let options = OpenOptions::new().create(true).append(true).open(&path);
        let file = options.with_context(|| format!("open {}", path.display()))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let name = path.file_name().and_then(|name| name.to_str());
            return Ok((name.context("a state file with a name in UTF-8")?.to_owned(), file));
        }
    }
    bail!("no free lock beside {}", store.path().display())
}

fn open(store: &Store, place: &Place) -> Result<(GpuMemory, Range)> {
    let mut machine = nvidia_ml::Machine::clone(&*store.read()?);
    let gpu = find(&mut machine, &place.gpu)?.1;
    Ok((GpuMemory::open(store, gpu)?, range(gpu, place)?))
}

fn range(gpu: &Gpu, place: &Place) -> Result<Range> {
    let Some(id) = place.gi else { return Ok(Range::whole(gpu)) };
    let instance = gpu.instance(id).map_err(|code| anyhow!("instance {id}: {code}"))?;
    Ok(Range { start: instance.start, size: instance.size })
}

fn memory(store: &Store, contents: Contents) -> Result<()> {
    match contents {
        Contents::Write { place, marker } => {
            let (memory, range) = open(store, &place)?;
            Ok(memory.write(range, 0, marker.as_bytes())?)
        }
        Contents::Read { place } => {
            let (memory, range) = open(store, &place)?;
            let bytes = memory.read(range, 0, 4096)?;
            let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
            println!("{}", String::from_utf8_lossy(text));
            Ok(())
        }
        Contents::Check { place } => {
            let (memory, range) = open(store, &place)?;
            match memory.first_dirty(range)? {
                Some(at) => bail!("byte {at} of the slice is not zero"),
                None => Ok(()),
            }
        }
        Contents::Erase { place } => {
            let (memory, range) = open(store, &place)?;
            Ok(memory.erase(range)?)
        }
    }
}

/// Makes the folder of a file.
pub(crate) fn make_folder_of(path: &Path) -> Result<()> {
    match path.parent() {
        Some(folder) => {
            std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))
        }
        None => Ok(()),
    }
}
