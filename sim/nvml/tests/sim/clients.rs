//! Unmodified Python clients from PyPI: nvidia-ml-py, walked call by call, and nvitop.
//!
//! They are installed once into the target folder. Without Python 3 or the network these tests fail
//! and say so: nothing else shows that programs of others accept the library.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FlockOperation, flock};

use crate::common::{command, control, demand, library, simctl};

/// A virtual environment with the clients of `requirements.txt`.
fn python() -> PathBuf {
    let requirements =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sim/clients/requirements.txt");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("nvml-clients");
    fs::create_dir_all(&folder).unwrap();
    let options = OpenOptions::new().create(true).append(true).open(folder.join("lock"));
    let lock: File = options.unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    let wanted = fs::read(&requirements).unwrap();
    let (done, python) = (folder.join("installed"), folder.join("venv/bin/python"));
    if fs::read(&done).is_ok_and(|installed| installed == wanted) {
        return python;
    }
    let venv = command("python3").args(["-m", "venv", "--clear"]).arg(folder.join("venv")).output();
    demand("make a virtual environment with python3", &venv.unwrap());
    let mut pip = command(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]);
    demand("install nvidia-ml-py and nvitop from PyPI", &pip.arg(&requirements).output().unwrap());
    fs::write(done, wanted).unwrap();
    python
}

/// A machine, and a client that finds the library as the dynamic linker would NVIDIA's.
struct Client {
    folder: tempfile::TempDir,
}

impl Client {
    fn new(models: &[&str]) -> Self {
        let client = Self { folder: tempfile::tempdir().unwrap() };
        std::os::unix::fs::symlink(library(), client.folder.path().join("libnvidia-ml.so.1"))
            .unwrap();
        control(&client.state(), &[&["init"], models].concat());
        client
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state.json")
    }

    fn python(&self) -> Command {
        let mut client = command(python());
        client.env("NVML_SIM_STATE", self.state()).env("LD_LIBRARY_PATH", self.folder.path());
        client.env("NVML_SIMCTL", simctl(&self.state()).get_program());
        client
    }

    fn run(&self, what: &str, arguments: &[&str]) -> String {
        demand(what, &self.python().args(arguments).output().unwrap())
    }
}

#[test]
fn nvidia_ml_py_walks_every_call_that_we_use() {
    let walk = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sim/clients/walk.py");
    for models in [
        ["h100-80", "h100-80"],
        ["a100-40", "l40s"],
        ["rtxpro6000-bse", "a30"],
        ["b200", "gh200-96"],
    ] {
        let client = Client::new(&models);
        let printed = client.run("walk.py", &[walk]);
        assert!(printed.ends_with("walked 2 GPUs\n"), "{models:?}: {printed}");
    }
}

#[test]
fn nvitop_shows_gpus_slices_and_their_processes() {
    let client = Client::new(&["h100-80", "l40s"]);
    let state = client.state();
    let made = nvidia_ml::Store::at(&state).update(|machine| {
        let gpu = machine.gpu_mut(0)?;
        gpu.set_mig_mode(true)?;
        let id = gpu.create_instance(9, Some((0, 4)))?;
        gpu.create_compute(id, 2, None)
    });
    made.unwrap().unwrap();
    control(&state, &["measure", "1", "--temperature", "77", "--utilization", "42"]);
    // A process that exists, since nvitop asks the kernel about it.
    let pid = std::process::id().to_string();
    control(&state, &["process", "add", "--gi", "1", "--pid", &pid, "--memory-mib", "5000"]);

    let shown = client.run("nvitop --once", &["-m", "nvitop", "--once", "--ascii", "--no-unicode"]);
    for text in ["H100 80GB HBM3", "L40S", "3g.40gb", "77C", "42%", &pid] {
        assert!(shown.contains(text), "nvitop does not show {text}:\n{shown}");
    }
}
