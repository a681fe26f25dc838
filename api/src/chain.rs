//! Prints an error with its causes on one line.

use std::error::Error;
use std::fmt;

/// An error and its sources, joined by `: `.
///
/// Log fields use it because the JSON format of tracing-subscriber prints only the outermost error.
#[derive(Debug, Clone, Copy)]
pub struct Chain<'a>(pub &'a (dyn Error + 'a));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut next = self.0.source();
        while let Some(cause) = next {
            write!(f, ": {cause}")?;
            next = cause.source();
        }
        Ok(())
    }
}
