//! Builds the host image: from Debian packages and our programs to what a site serves.
//!
//! ```text
//!  machine ─► toolbox (chroot with every tool), qemu (emulator tree)
//!  packages ─► base.tar ─► root tree ─► root.img      erofs + dm-verity
//!           ├► kernel ───┘      └────► initrd modules ─┐
//!           ├► vm layer ─► sysext/vm.img               ├► stage1.initrd ─► uki.efi ─► image.json, signed
//!           ├► demo tenant ─► oci/demo     stage 1, trust ┘
//!           └► demo guest ─► oci/demo-vm
//! ```
//!
//! Each part is made again only when its inputs changed ([`cache`]); the same inputs give the same bytes ([`repro`]).

pub mod build;
pub mod cache;
pub mod command;
pub mod cpio;
pub mod files;
pub mod guest;
pub mod initrd;
pub mod keys;
pub mod layers;
pub mod layout;
pub mod lock;
pub mod machine;
pub mod manifest;
pub mod modules;
pub mod oci;
pub mod packages;
pub mod repro;
pub mod root;
pub mod toolbox;
pub mod uki;
pub mod verity;
