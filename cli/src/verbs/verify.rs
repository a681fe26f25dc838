//! `verify`: isolation statements or receipts in a file, checked with the fleet CA alone.

use std::path::Path;

use bulkhead_api::document::from_json;
use bulkhead_api::receipt::Receipt;
use bulkhead_api::signed::{After, Record, Signed, verify_chain};
use bulkhead_api::statement::Statement;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::error::VerbError;
use crate::args::VerifyArgs;
use crate::config;
use crate::console::{Console, visible};

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
    let not_one = |source| VerbError::NoRecord { path: args.file.clone(), source };
    // An array is a chain, anything else one record.
    let chain = bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    let signed: Vec<Signed<Unknown>> = if chain {
        from_json(&bytes).map_err(not_one)?
    } else {
        vec![from_json(&bytes).map_err(not_one)?]
    };
    if signed.first().is_some_and(is_receipt) {
        let receipts = believed::<Receipt>(signed, &ca, &args.file, console)?;
        tell_receipts(&receipts, console)
    } else {
        let statements = believed::<Statement>(signed, &ca, &args.file, console)?;
        tell_statements(&statements, console)
    }
}

/// What is signed and not looked into yet.
#[derive(Debug)]
struct Unknown;

/// A receipt names a resource; everything else is to be a statement. What it really is, is seen when it is read.
fn is_receipt(signed: &Signed<Unknown>) -> bool {
    #[derive(Deserialize)]
    struct Look {
        resource: Option<IgnoredAny>,
    }
    serde_json::from_slice(&signed.body.0).is_ok_and(|look: Look| look.resource.is_some())
}

/// All records of a file, each checked by itself and with the one before. Says which they are.
fn believed<R: Record>(
    signed: Vec<Signed<Unknown>>,
    ca: &str,
    path: &Path,
    console: &mut Console,
) -> Result<Vec<R>, VerbError> {
    let kind = |signed: Signed<Unknown>| Signed::new(signed.body, signed.chain, signed.signature);
    let signed: Vec<Signed<R>> = signed.into_iter().map(kind).collect();
    let records = verify_chain(&signed, ca).map_err(|(at, source)| {
        let number = at.saturating_add(1);
        VerbError::Unbelieved { path: path.to_owned(), number, of: signed.len(), source }
    })?;
    let (Some(first), Some(last)) = (records.first(), records.last()) else {
        return Err(VerbError::NothingToVerify { path: path.to_owned() });
    };
    let (noun, from, to) = (R::NOUN, first.place(), last.place());
    let range = if signed.len() == 1 {
        format!("{noun} {} of boot {}", to.sequence, to.boot)
    } else {
        format!(
            "{noun}s {} of boot {} to {} of boot {}",
            from.sequence, from.boot, to.sequence, to.boot
        )
    };
    let (host, time) = (last.host(), last.time());
    console.print(format_args!(
        "{range} of host {host}, the last of {time}: signed by this fleet\n"
    ))?;
    Ok(records)
}

fn tell_statements(statements: &[Statement], console: &mut Console) -> Result<(), VerbError> {
    for statement in statements {
        for violation in &statement.finding.violations {
            let (number, message) = (statement.sequence, visible(&violation.message));
            console
                .print(format_args!("statement {number}: {:?}: {message}\n", violation.class))?;
        }
    }
    if statements.iter().all(|statement| statement.finding.violations.is_empty()) {
        console.print(format_args!("no resource reachable by two leases\n"))?;
    }
    Ok(())
}

fn tell_receipts(receipts: &[Receipt], console: &mut Console) -> Result<(), VerbError> {
    for pair in receipts.windows(2) {
        let [last, this] = pair else { continue };
        if this.after(last) == After::Anew {
            let (before, boot) = (last.sequence, this.boot);
            console.print(format_args!(
                "the host lost its state after receipt {before}: a new chain begins in boot {boot}\n"
            ))?;
        }
    }
    let mut full = true;
    for receipt in receipts {
        if let Some(why) = &receipt.weaker {
            full = false;
            let (number, resource) = (receipt.sequence, visible(&receipt.resource.to_string()));
            let (lease, why) = (&receipt.lease, visible(why));
            console.print(format_args!(
                "receipt {number}: weaker erase of {resource} of {lease}: {why}\n"
            ))?;
        }
    }
    if full {
        console.print(format_args!("every resource was sanitised in full\n"))?;
    }
    Ok(())
}
