//! Stage 1: the only program in the initrd. Static, no shell; it trusts nothing but what the initrd holds.
//!
//! ```text
//!  mounts ─► command line as expected? ─► drivers ─► link ─► DHCP ─► boot.json ─► root image, layers
//!                                                     ▲                               │ checksum, hash tree
//!                                                     └── back-off ◄── reason printed ┤
//!                                          systemd ◄─ switch root ◄─ dm-verity, erofs ┘
//! ```
//!
//! Pure: [`alias`], [`backoff`], [`cmdline`], [`dhcp`], [`http`], [`tree`]. Edges: the rest. A failed boot prints its reason
//! and the time of the next try or reboot; nothing waits in silence ([`boot`]).

pub mod alias;
pub mod backoff;
pub mod boot;
pub mod cmdline;
pub mod console;
pub mod device;
pub mod dhcp;
pub mod dhcp_client;
pub mod fetch;
pub mod http;
pub mod image;
pub mod link;
pub mod modules;
pub mod random;
pub mod root;
pub mod sys;
pub mod tree;
