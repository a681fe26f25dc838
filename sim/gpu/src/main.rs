//! `sim-gpu`: a PCI GPU for a virtual server, until it is killed.

use std::fs::OpenOptions;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use bulkhead_api::units::Bytes;
use bulkhead_sim_gpu::config::Identity;
use bulkhead_sim_gpu::device::Device;
use bulkhead_sim_gpu::server::serve;
use clap::Parser;

/// A PCI GPU that QEMU attaches over vfio-user
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Where it listens; the socket must not be there
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// The file that is its VRAM; made where it is not there, kept as it is where it is
    #[arg(long, value_name = "FILE")]
    vram: PathBuf,
    /// Size of its VRAM, a power of two
    #[arg(long, default_value = "16Mi", value_name = "SIZE")]
    size: Bytes,
    /// PCI vendor and device id
    #[arg(long, default_value = "10de:2330", value_name = "ID", value_parser = identity)]
    id: Identity,
}

fn identity(text: &str) -> Result<Identity, String> {
    let (vendor, device) = text.split_once(':').ok_or("expected VENDOR:DEVICE in hexadecimal")?;
    let part = |text: &str| u16::from_str_radix(text, 16).map_err(|e| format!("{text:?}: {e}"));
    // A 3D controller, as GPUs without an output for a screen are.
    Ok(Identity { vendor: part(vendor)?, device: part(device)?, class: 0x03_0200 })
}

fn main() -> Result<()> {
    let args = Args::parse();
    let mut options = OpenOptions::new();
    let vram = options.read(true).write(true).create(true).truncate(false).open(&args.vram);
    let vram = vram.with_context(|| format!("open {}", args.vram.display()))?;
    let mut device = Device::new(args.id, vram, args.size.get())?;
    serve(&mut device, &args.socket).with_context(|| format!("serve {}", args.socket.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_hexadecimal() {
        let gpu = Identity { vendor: 0x10de, device: 0x2330, class: 0x03_0200 };
        assert_eq!(identity("10de:2330"), Ok(gpu));
        for text in ["10de", "10de:", "10de:zz", "110de:1"] {
            assert!(identity(text).is_err(), "{text}");
        }
    }
}
