//! `bulkhead`: see the library.

use std::process::ExitCode;

use bulkhead_cli::console::Console;

fn main() -> ExitCode {
    let mut console = Console::of_process();
    ExitCode::from(bulkhead_cli::run(std::env::args_os(), &mut console))
}
