//! The `nft` program.
