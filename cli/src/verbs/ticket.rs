//! `join-ticket`: a one-time secret with which a site joins the fleet.

use super::error::VerbError;
use crate::args::JoinTicketArgs;
use crate::config::write_private;
use crate::console::Console;
use crate::rest::Registry;

pub(super) fn join_ticket(
    registry: &Registry,
    args: &JoinTicketArgs,
    console: &mut Console,
) -> Result<(), VerbError> {
    let site = args.site.parse()?;
    let ticket = registry.join_ticket(&site)?;
    let (secret, expires) = (ticket.ticket.expose(), ticket.expires);
    match &args.output {
        Some(path) => {
            write_private(path, format!("{secret}\n").as_bytes())
                .map_err(|source| VerbError::File { verb: "write", path: path.clone(), source })?;
            let path = path.display();
            console.print(format_args!(
                "ticket of site {site} in {path}, valid until {expires:.0}\n"
            ))?;
        }
        None => {
            console.print(format_args!("{secret}\n"))?;
            console.complain(format_args!("ticket of site {site}, valid until {expires:.0}\n"));
        }
    }
    Ok(())
}
