//! The nftables table of a host: what tenants may send, rendered from the desired state.
