//! The device over vfio-user (QEMU, docs/interop/vfio-user.rst): regions as a PCI device of `vfio-pci` has them.

use std::fs::File;
use std::io;
use std::path::Path;

use vfio_bindings::bindings::vfio::{
    VFIO_PCI_BAR0_REGION_INDEX, VFIO_PCI_BAR1_REGION_INDEX, VFIO_PCI_CONFIG_REGION_INDEX,
    VFIO_PCI_NUM_IRQS, VFIO_PCI_NUM_REGIONS, VFIO_REGION_INFO_FLAG_READ,
    VFIO_REGION_INFO_FLAG_WRITE, vfio_region_info,
};
use vfio_user::{DmaMapFlags, DmaUnmapFlags, IrqInfo, Server, ServerBackend, ServerRegion};

use crate::config;
use crate::device::{Device, REGISTERS};
use crate::dma::Access;

/// What QEMU asks is passed on to a device.
#[derive(Debug)]
pub struct Backend<'a>(pub &'a mut Device);

impl ServerBackend for Backend<'_> {
    fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]) -> io::Result<()> {
        match region {
            VFIO_PCI_CONFIG_REGION_INDEX => self.0.config_read(offset, data),
            VFIO_PCI_BAR0_REGION_INDEX => self.0.registers_read(offset, data),
            VFIO_PCI_BAR1_REGION_INDEX => self.0.vram_read(offset, data)?,
            other => return Err(no_region(other)),
        }
        Ok(())
    }

    fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> io::Result<()> {
        match region {
            VFIO_PCI_CONFIG_REGION_INDEX => self.0.config_write(offset, data),
            VFIO_PCI_BAR0_REGION_INDEX => self.0.registers_write(offset, data),
            VFIO_PCI_BAR1_REGION_INDEX => self.0.vram_write(offset, data)?,
            other => return Err(no_region(other)),
        }
        Ok(())
    }

    fn dma_map(
        &mut self,
        flags: DmaMapFlags,
        offset: u64,
        address: u64,
        size: u64,
        fd: Option<File>,
    ) -> io::Result<()> {
        let read = flags.contains(DmaMapFlags::READ);
        let access = Access { read, write: flags.contains(DmaMapFlags::WRITE) };
        // QEMU maps stretches without a file too, such as its own ROMs and other devices' BARs: no memory, never reached.
        let Some(file) = fd else { return Ok(()) };
        let mapped = self.0.memory.map(address, size, access, Some((file, offset)));
        mapped.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
    }

    fn dma_unmap(&mut self, flags: DmaUnmapFlags, address: u64, size: u64) -> io::Result<()> {
        if flags.contains(DmaUnmapFlags::UNMAP_ALL) {
            self.0.memory.unmap_all();
        } else {
            self.0.memory.unmap(address, size);
        }
        Ok(())
    }

    fn reset(&mut self) -> io::Result<()> {
        self.0.reset();
        Ok(())
    }

    fn set_irqs(&mut self, _: u32, _: u32, _: u32, _: u32, _: Vec<File>) -> io::Result<()> {
        // The device has no interrupts; QEMU turns off what it never turned on.
        Ok(())
    }
}

fn no_region(region: u32) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("region {region} is not there"))
}

/// Listens at `path` and serves one client after the other. What one client mapped is gone with it.
///
/// # Errors
/// The socket cannot be made, or a client broke the protocol.
pub fn serve(device: &mut Device, path: &Path) -> Result<(), vfio_user::Error> {
    let server = Server::new(path, true, interrupts(), regions(device.vram_size()))?;
    loop {
        let ended = server.run(&mut Backend(device));
        device.memory.unmap_all();
        ended?;
    }
}

fn regions(vram: u64) -> Vec<ServerRegion> {
    let region = |index| {
        let size = match index {
            VFIO_PCI_CONFIG_REGION_INDEX => u64::try_from(config::SIZE).unwrap_or(0),
            VFIO_PCI_BAR0_REGION_INDEX => REGISTERS.into(),
            VFIO_PCI_BAR1_REGION_INDEX => vram,
            _ => 0,
        };
        let flags =
            if size > 0 { VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE } else { 0 };
        let argsz = u32::try_from(size_of::<vfio_region_info>()).unwrap_or(0);
        let region_info = vfio_region_info { argsz, flags, index, size, ..Default::default() };
        ServerRegion { region_info, sparse_areas: Vec::new(), mmap_fd: None }
    };
    (0..VFIO_PCI_NUM_REGIONS).map(region).collect()
}

fn interrupts() -> Vec<IrqInfo> {
    (0..VFIO_PCI_NUM_IRQS).map(|index| IrqInfo { index, flags: 0, count: 0 }).collect()
}
