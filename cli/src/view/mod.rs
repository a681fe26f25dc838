//! Documents as people read them: tables, pages, YAML and JSON. Pure: the clock is an argument.

pub mod describe;
pub mod explain;
pub mod host;
pub mod isolation;
pub mod ledger;
pub mod receipt;
pub mod rows;
#[cfg(test)]
mod share_tests;
pub mod table;
#[cfg(test)]
mod tests;
pub mod text;
