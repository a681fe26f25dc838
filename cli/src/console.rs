//! What the program has around it: streams, terminal, clock, folder of its configuration.

use std::error::Error;
use std::fmt;
use std::io::{self, IsTerminal as _, Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use bulkhead_api::chain::Chain;
use bulkhead_api::time::Timestamp;

/// The surroundings of a run.
pub struct Console {
    /// Standard input.
    pub input: Box<dyn Read>,
    /// Standard input is a terminal.
    pub input_is_terminal: bool,
    /// Standard output is a terminal.
    pub out_is_terminal: bool,
    /// Standard output.
    pub out: Box<dyn Write>,
    /// Standard error.
    pub err: Box<dyn Write>,
    /// Standard output may be coloured.
    pub colour_out: bool,
    /// Standard error may be coloured.
    pub colour_err: bool,
    /// `$XDG_CONFIG_HOME`, else `$HOME/.config`; absent where neither is set.
    pub config_home: Option<PathBuf>,
    /// The clock.
    pub clock: fn() -> Timestamp,
    /// Time between two looks at something that is waited for.
    pub pause: Duration,
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console").field("config_home", &self.config_home).finish_non_exhaustive()
    }
}

impl Console {
    /// Those of this process. Colour goes to terminals only, and not where `NO_COLOR` is set.
    #[must_use]
    pub fn of_process() -> Self {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let colour = set("NO_COLOR").is_none();
        let absolute = |path: &PathBuf| path.is_absolute();
        let home = || set("HOME").map(|home| PathBuf::from(home).join(".config"));
        Self {
            input_is_terminal: io::stdin().is_terminal(),
            input: Box::new(io::stdin()),
            out_is_terminal: io::stdout().is_terminal(),
            colour_out: colour && io::stdout().is_terminal(),
            out: Box::new(io::stdout()),
            colour_err: colour && io::stderr().is_terminal(),
            err: Box::new(io::stderr()),
            config_home: set("XDG_CONFIG_HOME").map(PathBuf::from).filter(absolute).or_else(home),
            clock: Timestamp::now,
            pause: Duration::from_millis(500),
        }
    }

    /// Writes to standard output, at once.
    ///
    /// # Errors
    /// It cannot be written to; [`io::ErrorKind::BrokenPipe`] when its reader has left.
    pub fn print(&mut self, text: fmt::Arguments<'_>) -> io::Result<()> {
        self.out.write_fmt(text)?;
        self.out.flush()
    }

    /// Writes to standard error.
    pub fn complain(&mut self, text: fmt::Arguments<'_>) {
        // Where standard error is closed there is nobody left to tell.
        let _ = self.err.write_fmt(text).and_then(|()| self.err.flush());
    }

    /// Writes an error with its causes, and the way out.
    pub fn error(&mut self, error: &(dyn Error + 'static), help: Option<&str>) {
        let (on, off) = if self.colour_err { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
        self.complain(format_args!("{on}error:{off} {}\n", visible(&Chain(error).to_string())));
        if let Some(help) = help {
            self.complain(format_args!("  help: {help}\n"));
        }
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }
}

/// Text without what steers a terminal: it comes from the network, from files, from tenants.
#[must_use]
pub fn visible(text: &str) -> String {
    let shown = |c: char| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c };
    text.chars().map(shown).collect()
}
