//! The command line as people run it, against a registry over real TLS and a supervisor's socket.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on is to panic"
)]

mod apply;
mod delete;
mod explain;
mod get;
mod isolation;
mod ledger;
mod login;
mod logs;
mod manual;
mod offline;
mod program;
mod receipts;
mod registry;
mod scene;
mod supervisor;
mod watch;
mod way_out;
