//! The edge: netlink, sysfs, nftables.

pub mod nft;
