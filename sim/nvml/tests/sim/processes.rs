//! Several processes on one machine.
#![expect(unsafe_code, reason = "raw functions of a C library")]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;

use crate::common::{STATE, alone, command, control, demand, library, simctl};
use nvidia_ml::Store;
use nvidia_ml::memory::{GpuMemory, Range};
use nvml_wrapper_sys::bindings as sys;

const RACER: &str = "NVML_SIM_TEST_RACER";
const ROUNDS: usize = 150;

/// Takes a place on the grid, writes its own name there and finds it unchanged, again and again.
#[test]
fn two_processes_never_have_the_same_place() {
    const NAME: &str = "processes::two_processes_never_have_the_same_place";
    if let Some(racer) = std::env::var_os(RACER) {
        return race(racer.to_str().unwrap());
    }
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state.json");
    control(&state, &["init", "h100-80"]);
    Store::at(&state).update(|machine| machine.gpu_mut(0)?.set_mig_mode(true)).unwrap().unwrap();
    let racers: Vec<_> = ["one", "two"]
        .into_iter()
        .map(|name| {
            let mut racer = command(std::env::current_exe().unwrap());
            racer.args(["--exact", NAME, "--nocapture"]).env(STATE, &state).env(RACER, name);
            racer.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for racer in racers {
        demand("racer", &racer.wait_with_output().unwrap());
    }
    let machine = Store::at(&state).read().unwrap();
    assert_eq!(machine.check(), Ok(()));
    let gpu = machine.gpu(0).unwrap();
    assert!(gpu.instances.is_empty());
    assert_eq!(gpu.generation as usize, 2 * ROUNDS, "each round made one instance");
}

fn race(name: &str) {
    let store = Store::from_env();
    // SAFETY: loading runs no code but the Rust runtime's initialisers.
    let lib = unsafe { sys::NvmlLib::new(library()) }.unwrap();
    // SAFETY (all calls below): handles of the library, and memory of the types that it asks for.
    let (init, by_index) =
        (lib.nvmlInit_v2.as_ref().unwrap(), lib.nvmlDeviceGetHandleByIndex_v2.as_ref().unwrap());
    let create = lib.nvmlDeviceCreateGpuInstanceWithPlacement.as_ref().unwrap();
    let destroy = lib.nvmlGpuInstanceDestroy.as_ref().unwrap();
    let mut gpu = std::ptr::null_mut();
    // SAFETY: no arguments.
    assert_eq!(unsafe { init() }, 0);
    // SAFETY: room for one handle.
    assert_eq!(unsafe { by_index(0, &raw mut gpu) }, 0);
    let memory = GpuMemory::open(&store, store.read().unwrap().gpu(0).unwrap()).unwrap();
    let mut made = 0;
    for start in (0..2).cycle() {
        if made == ROUNDS {
            break;
        }
        let place = sys::nvmlGpuInstancePlacement_t { start, size: 1 };
        let mut instance = std::ptr::null_mut();
        // SAFETY: a handle of the library, a placement and room for one handle.
        match unsafe { create(gpu, 19, &raw const place, &raw mut instance) } {
            0 => {}
            23 => continue,
            code => panic!("create: {code}"),
        }
        made += 1;
        let range = Range { start, size: 1 };
        memory.write(range, 0, name.as_bytes()).unwrap();
        std::thread::yield_now();
        assert_eq!(memory.read(range, 0, 3).unwrap(), name.as_bytes(), "somebody else was here");
        // SAFETY: a handle that this process made.
        assert_eq!(unsafe { destroy(instance) }, 0);
    }
}

#[test]
fn a_held_slice_is_busy_until_its_holder_dies_and_what_it_wrote_stays() {
    alone("processes::a_held_slice_is_busy_until_its_holder_dies_and_what_it_wrote_stays", held);
}

fn held(state: &Path) {
    let store = Store::at(state);
    let made = store.update(|machine| {
        let gpu = machine.gpu_mut(0)?;
        gpu.set_mig_mode(true)?;
        let id = gpu.create_instance(14, Some((2, 2)))?;
        gpu.create_compute(id, 1, None)?;
        Ok::<_, nvidia_ml::Code>(id)
    });
    let id = made.unwrap().unwrap();
    let gi = id.to_string();
    let mut holder = simctl(state)
        .args(["hold", "--gi", &gi, "--marker", "tenant a", "--memory-mib", "300"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "holding\n");
    assert_eq!(store.read_live().unwrap().gpu(0).unwrap().used_mib(Some(id)), 300);
    let destroy = || store.update(|machine| machine.gpu_mut(0)?.destroy_compute(id, 0)).unwrap();
    assert_eq!(destroy(), Err(nvidia_ml::Code::IN_USE));
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert_eq!(destroy(), Ok(()));

    assert_eq!(control(state, &["memory", "read", "--gi", &gi]), "tenant a\n");
    assert!(
        !simctl(state).args(["memory", "check", "--gi", &gi]).output().unwrap().status.success()
    );
    control(state, &["memory", "erase", "--gi", &gi]);
    control(state, &["memory", "check", "--gi", &gi]);
}
