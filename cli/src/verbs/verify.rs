//! `verify`: isolation statements in a file, checked with the fleet CA alone.

use std::path::Path;

use bulkhead_api::document::from_json;
use bulkhead_api::statement::{SignedStatement, Statement, verify_chain};

use super::error::VerbError;
use crate::args::VerifyArgs;
use crate::config;
use crate::console::Console;

pub(super) fn verify(
    config: Option<&Path>,
    args: &VerifyArgs,
    console: &mut Console,
) -> Result<(), VerbError> {
    let read = |path: &Path| {
        std::fs::read(path).map_err(|source| VerbError::File {
            verb: "read",
            path: path.to_owned(),
            source,
        })
    };
    let ca = match &args.ca {
        Some(path) => String::from_utf8_lossy(&read(path)?).into_owned(),
        None => config::load(&config::path(config, console.config_home.as_deref())?)?.ca,
    };
    let bytes = read(&args.file)?;
    let not_one = |source| VerbError::NoStatement { path: args.file.clone(), source };
    // An array is a chain, anything else one statement.
    let chain = bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    let signed: Vec<SignedStatement> = if chain {
        from_json(&bytes).map_err(not_one)?
    } else {
        vec![from_json(&bytes).map_err(not_one)?]
    };
    let statements = verify_chain(&signed, &ca).map_err(|(at, source)| {
        let number = at.saturating_add(1);
        VerbError::Unbelieved { path: args.file.clone(), number, of: signed.len(), source }
    })?;
    let (Some(first), Some(last)) = (statements.first(), statements.last()) else {
        return Err(VerbError::NothingToVerify { path: args.file.clone() });
    };
    let range = if signed.len() == 1 {
        format!("statement {} of boot {}", last.sequence, last.boot)
    } else {
        let (from, to) = ((first.boot, first.sequence), (last.boot, last.sequence));
        format!("statements {} of boot {} to {} of boot {}", from.1, from.0, to.1, to.0)
    };
    let (host, time) = (&last.host, last.time);
    console.print(format_args!(
        "{range} of host {host}, the last of {time}: signed by this fleet\n"
    ))?;
    for statement in &statements {
        tell(statement, console)?;
    }
    let clean = statements.iter().all(|statement| statement.finding.violations.is_empty());
    if clean {
        console.print(format_args!("no resource reachable by two leases\n"))?;
    }
    Ok(())
}

fn tell(statement: &Statement, console: &mut Console) -> Result<(), VerbError> {
    for violation in &statement.finding.violations {
        let (number, message) = (statement.sequence, &violation.message);
        let message = crate::console::visible(message);
        console.print(format_args!("statement {number}: {:?}: {message}\n", violation.class))?;
    }
    Ok(())
}
