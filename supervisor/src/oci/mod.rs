//! Images of tenants: from the site's cache only, every byte verified, unpacked without trust.
//!
//! ```text
//!  reference ─► client (TLS, the host's certificate) ─► manifest (choose, bound) ─► unpack ─► root
//!               └──────────────────────── pull ────────────────────────────────────────────┘
//! ```

pub mod client;
pub mod manifest;
pub mod pull;
pub mod reference;
pub mod root;
pub mod unpack;
