//! The program as a vfio-user client sees it: the client of crate `vfio_user`, which is not ours.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use bulkhead_sim_gpu::register::{IDENTITY, MAGIC, RESETS};
use vfio_user::Client;

const CONFIG: u32 = 7;
const BAR0: u32 = 0;
const BAR1: u32 = 1;

struct Gpu(Child);

impl Gpu {
    fn start(dir: &Path) -> Self {
        #[expect(clippy::disallowed_methods, reason = "the program under test")]
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_sim-gpu"));
        command.arg("--socket").arg(dir.join("gpu.sock")).arg("--vram").arg(dir.join("vram"));
        Self(command.stdin(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn attach(dir: &Path) -> Client {
    let begun = Instant::now();
    loop {
        match Client::new(&dir.join("gpu.sock")) {
            Ok(client) => return client,
            Err(error) => assert!(begun.elapsed() < Duration::from_secs(30), "{error}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn word(client: &mut Client, region: u32, at: u64) -> u32 {
    let mut bytes = [0; 4];
    client.region_read(region, at, &mut bytes).unwrap();
    u32::from_le_bytes(bytes)
}

#[test]
fn a_client_finds_a_gpu_whose_vram_outlives_resets_clients_and_the_program() {
    let dir = tempfile::tempdir().unwrap();
    let gpu = Gpu::start(dir.path());
    let mut client = attach(dir.path());
    let sizes = [CONFIG, BAR0, BAR1].map(|region| client.region(region).unwrap().size);
    assert_eq!(sizes, [4096, 64 << 10, 16 << 20]);
    assert_eq!(word(&mut client, CONFIG, 0), 0x2330_10de);
    assert_eq!(word(&mut client, BAR0, IDENTITY), MAGIC);
    client.region_write(BAR1, 4096, b"marker of a tenant").unwrap();
    client.reset().unwrap();
    client.region_write(CONFIG, 0x48, &[0, 0x80]).unwrap();
    assert_eq!(word(&mut client, BAR0, RESETS), 2);
    client.shutdown().unwrap();
    drop(client);

    let mut next = attach(dir.path());
    let mut left = [0; 18];
    next.region_read(BAR1, 4096, &mut left).unwrap();
    assert_eq!(&left, b"marker of a tenant");
    drop(next);
    drop(gpu);
    fs::remove_file(dir.path().join("gpu.sock")).unwrap();

    let _again = Gpu::start(dir.path());
    let mut client = attach(dir.path());
    client.region_read(BAR1, 4096, &mut left).unwrap();
    assert_eq!(&left, b"marker of a tenant");
}
