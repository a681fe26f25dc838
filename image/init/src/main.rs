//! `/init` of the initrd.

use bulkhead_api::chain::Chain;
use bulkhead_init::boot;
use bulkhead_init::console::Console;

fn main() {
    // a mistake in this program ends like any other failed boot
    std::panic::set_hook(Box::new(|panic| boot::fail(&Console::default(), &panic.to_string())));
    let console = Console::default();
    match boot::run(&console) {
        Ok(never) => match never {},
        Err(error) => boot::fail(&console, &Chain(&error).to_string()),
    }
}
