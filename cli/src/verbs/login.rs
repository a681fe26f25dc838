//! `login`, `logout`.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use bulkhead_api::document::Kind;

use super::error::VerbError;
use crate::args::{Cli, LoginArgs};
use crate::config::{self, Login, Token};
use crate::console::Console;
use crate::rest::Registry;

/// A token is some 64 characters; a file much longer is not one.
const MAX_TOKEN: u64 = 8 << 10;

/// Tries the registry, then remembers it.
pub(super) fn login(cli: &Cli, args: &LoginArgs, console: &mut Console) -> Result<(), VerbError> {
    let path = config::path(cli.config.as_deref(), console.config_home.as_deref())?;
    let ca = fs::read_to_string(&args.ca).map_err(|source| unread(&args.ca, source))?;
    let token = token(args, console)?;
    let login = Login { server: args.server.trim_end_matches('/').to_owned(), ca, token };
    let registry = Registry::new(&login)?;
    registry.list(Kind::Site, None)?;
    config::save(&path, &login)?;
    let server = registry.server();
    Ok(console.print(format_args!("logged in to {server}, kept in {}\n", path.display()))?)
}

/// Forgets the registry. The token stays valid: it is the registry's to revoke.
pub(super) fn logout(cli: &Cli, console: &mut Console) -> Result<(), VerbError> {
    let path = config::path(cli.config.as_deref(), console.config_home.as_deref())?;
    let said =
        if config::remove(&path)? { "logged out, removed" } else { "not logged in, there is no" };
    Ok(console.print(format_args!("{said} {}\n", path.display()))?)
}

fn token(args: &LoginArgs, console: &mut Console) -> Result<Token, VerbError> {
    let mut text = String::new();
    let from = match &args.token_file {
        Some(path) => {
            let file = fs::File::open(path).map_err(|source| unread(path, source))?;
            let read = file.take(MAX_TOKEN).read_to_string(&mut text);
            read.map_err(|source| unread(path, source))?;
            path.display().to_string()
        }
        None if console.input_is_terminal => return Err(VerbError::TokenOnTerminal),
        None => {
            let read = (&mut console.input).take(MAX_TOKEN).read_to_string(&mut text);
            read.map_err(|source| unread(Path::new("standard input"), source))?;
            "standard input".to_owned()
        }
    };
    Token::try_from(text).map_err(|source| VerbError::Token { from, source })
}

fn unread(path: &Path, source: std::io::Error) -> VerbError {
    VerbError::File { verb: "read", path: path.to_owned(), source }
}
