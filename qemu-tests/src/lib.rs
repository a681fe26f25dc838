//! The virtual MGX server, the lab around it, and the end-to-end tests.
//!
//! ```text
//!  artifacts   what was built, and the command that builds what is missing
//!  cmd, process, net, qcow2      the edges: programs, process ids, a namespace, disk images
//!  qemu ── vm ── guest           a server with console, monitor, snapshots, command channel
//!  fault       damage done on purpose
//!  fleet       registry, signer, site: the real programs in a namespace
//!  timeline    phases of a boot, from the console
//!  lab         up, down, cli, bench: what `cargo xtask` calls        fixture  what the tests start from
//! ```

pub mod artifacts;
pub mod cmd;
pub mod fault;
pub mod fixture;
pub mod fleet;
pub mod guest;
pub mod lab;
pub mod listen;
pub mod net;
pub mod process;
pub mod qcow2;
pub mod qemu;
pub mod timeline;
pub mod vm;
