//! The arguments of `bulkhead`.

use std::path::PathBuf;
use std::time::Duration;

use bulkhead_api::document::Kind;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser as _};
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use jiff::SignedDuration;

use crate::explain;

/// The command line of a Bulkhead fleet.
#[derive(Debug, Parser)]
#[command(name = "bulkhead", version, max_term_width = 100, disable_help_subcommand = true)]
pub struct Cli {
    /// Where server and token are kept [default: $XDG_CONFIG_HOME/bulkhead/config.json]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Remember a registry and how to speak to it
    Login(LoginArgs),
    /// Forget the registry and its token
    Logout,
    /// Show objects as a table, YAML or JSON
    Get(GetArgs),
    /// Show all that is known of one object
    Describe(ObjectArgs),
    /// Create or change what a file describes
    Apply(ApplyArgs),
    /// Delete an object, or what a file describes
    Delete(DeleteArgs),
    /// Wait until an object is observed in a state
    Wait(WaitArgs),
    /// Show the console log of a lease's program
    Logs(LogsArgs),
    /// Ask the supervisor of this very host, or of another
    Host(HostArgs),
    /// Check isolation statements or receipts in a file with the fleet CA alone
    Verify(VerifyArgs),
    /// Make a one-time secret with which a site joins the fleet
    JoinTicket(JoinTicketArgs),
    /// Explain why an object is as it is, where a lease would fit, or what a field means
    Explain(ExplainArgs),
    /// Print the completion script of a shell
    Completion {
        /// The shell
        #[arg(value_name = "SHELL")]
        shell: Shell,
    },
    /// Print the version
    Version,
}

/// Arguments of `login`.
#[derive(Debug, Args)]
pub struct LoginArgs {
    /// The registry: https://HOST[:PORT]
    #[arg(long, value_name = "URL")]
    pub server: String,
    /// Certificate of the fleet CA (PEM); no other is trusted
    #[arg(long, value_name = "FILE")]
    pub ca: PathBuf,
    /// File with the token; without it the token is read from standard input
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// How objects are shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns
    #[default]
    Table,
    /// More columns
    Wide,
    /// YAML that apply reads back
    Yaml,
    /// JSON: an array, or one document where NAME is given
    Json,
}

/// Arguments of `get`.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// site, host, tenant or lease
    #[arg(value_parser = kind_parser())]
    pub kind: Kind,
    /// Name of one object; TENANT/NAME of a lease
    pub name: Option<String>,
    /// How to show it
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Format,
    /// Go on showing what changes
    #[arg(short, long)]
    pub watch: bool,
    /// Leases of this tenant only
    #[arg(long)]
    pub tenant: Option<String>,
}

/// One object.
#[derive(Debug, Args)]
pub struct ObjectArgs {
    /// site, host, tenant or lease
    #[arg(value_parser = kind_parser())]
    pub kind: Kind,
    /// Its name; TENANT/NAME of a lease
    pub name: String,
    /// The lease's tenant, where NAME does not say it
    #[arg(long)]
    pub tenant: Option<String>,
}

/// Arguments of `apply`.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// File of documents, YAML or JSON; - is standard input
    #[arg(short = 'f', long = "file", value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
}

/// Arguments of `delete`.
#[derive(Debug, Args)]
#[command(
    override_usage = "bulkhead delete [OPTIONS] <KIND> <NAME>\n       bulkhead delete [OPTIONS] -f <FILE>"
)]
pub struct DeleteArgs {
    /// site, host, tenant or lease
    #[arg(value_parser = kind_parser(), required_unless_present = "files", requires = "name")]
    pub kind: Option<Kind>,
    /// Its name; TENANT/NAME of a lease
    pub name: Option<String>,
    /// The lease's tenant, where NAME does not say it
    #[arg(long)]
    pub tenant: Option<String>,
    /// Delete what this file describes; - is standard input
    #[arg(short = 'f', long = "file", value_name = "FILE", conflicts_with_all = ["kind", "name", "tenant"])]
    pub files: Vec<PathBuf>,
    /// Return when leases are observed gone from their hosts
    #[arg(long)]
    pub wait: bool,
    /// How long --wait waits, such as 90s or 5m
    #[arg(long, value_parser = duration, default_value = "5m", value_name = "TIME")]
    pub timeout: Duration,
}

/// What can be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Goal {
    /// A lease's program is observed running
    Running,
    /// A host is observed ready for leases
    Ready,
    /// The object is observed gone
    Gone,
}

/// Arguments of `wait`.
#[derive(Debug, Args)]
pub struct WaitArgs {
    /// What to wait for.
    #[command(flatten)]
    pub object: ObjectArgs,
    /// The state
    #[arg(long = "for", value_enum, value_name = "STATE")]
    pub goal: Goal,
    /// How long, such as 90s or 5m
    #[arg(long, value_parser = duration, default_value = "5m", value_name = "TIME")]
    pub timeout: Duration,
}

/// Arguments of `logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// TENANT/NAME
    #[arg(value_name = "LEASE")]
    pub name: String,
    /// The lease's tenant, where LEASE does not say it
    #[arg(long)]
    pub tenant: Option<String>,
    /// How many of the last lines, 1 to 10000
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub lines: u32,
    /// Go on showing new lines until the lease is gone; asks every two seconds
    #[arg(short, long)]
    pub follow: bool,
}

/// Arguments of `host`.
#[derive(Debug, Args)]
pub struct HostArgs {
    /// What to ask.
    #[command(subcommand)]
    pub verb: HostVerb,
}

/// What to ask the supervisor.
#[derive(Debug, Subcommand)]
pub enum HostVerb {
    /// Its hardware, leases and conditions
    Status {
        /// The supervisor.
        #[command(flatten)]
        at: SupervisorArgs,
        /// How to show it
        #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
        output: Format,
    },
    /// Whether its leases share anything: its latest isolation statement
    Prove {
        /// The supervisor.
        #[command(flatten)]
        at: SupervisorArgs,
        /// How to show it; JSON is what verify reads
        #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
        output: Format,
        /// All statements that are kept, as JSON, in place of the latest
        #[arg(long, conflicts_with = "output")]
        chain: bool,
    },
    /// What was sanitised when leases were taken back, how, and what was seen
    Receipts {
        /// The supervisor.
        #[command(flatten)]
        at: SupervisorArgs,
        /// What to do about them; nothing shows them.
        #[command(subcommand)]
        verb: Option<ReceiptsVerb>,
        /// How to show it; JSON is what verify reads
        #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
        output: Format,
        /// Those of one lease alone
        #[arg(long, value_name = "TENANT/NAME")]
        lease: Option<String>,
    },
    /// What nobody gets, as it could not be shown to be clean
    Quarantine {
        /// What to do about it; nothing shows it.
        #[command(subcommand)]
        verb: Option<QuarantineVerb>,
        /// The supervisor.
        #[command(flatten)]
        at: SupervisorArgs,
        /// How to show it
        #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
        output: Format,
    },
    /// Who holds what on it
    Ledger {
        /// What to do about it; nothing shows it.
        #[command(subcommand)]
        verb: Option<LedgerVerb>,
        /// The supervisor.
        #[command(flatten)]
        at: SupervisorArgs,
        /// How to show it
        #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
        output: Format,
    },
    /// What happened on it lately
    Events {
        /// The supervisor.
        #[command(flatten)]
        at: SupervisorArgs,
        /// How to show it
        #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
        output: Format,
    },
}

/// What to do about what is in quarantine.
#[derive(Debug, Subcommand)]
pub enum QuarantineVerb {
    /// Erase it again in the next pass: all of it, or one resource
    Retry {
        /// The resource as the list shows it, or a part of that which no other has
        resource: Option<String>,
    },
}

/// What to do about receipts.
#[derive(Debug, Subcommand)]
pub enum ReceiptsVerb {
    /// Put a damaged chain aside, so that a new one begins; nothing that was held is given out without a receipt of it
    Repair {
        /// Do it; without it, only what would be done is shown
        #[arg(long)]
        yes: bool,
    },
}

/// What to do about the ledger.
#[derive(Debug, Subcommand)]
pub enum LedgerVerb {
    /// Rebuild a damaged one from what is found on the host; its leases are taken back and granted anew
    Repair {
        /// Do it; without it, only what would be done is shown
        #[arg(long)]
        yes: bool,
    },
}

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// One record or an array of them, JSON, as host prove -o json, host prove --chain and host receipts -o json print them
    pub file: PathBuf,
    /// Certificate of the fleet CA (PEM) [default: that of login]
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
}

/// Which supervisor.
#[derive(Debug, Args)]
pub struct SupervisorArgs {
    /// Ask another host, by way of the registry, in place of this very host
    #[arg(long, global = true, value_name = "NAME")]
    pub host: Option<String>,
    /// The socket of the supervisor of this very host
    #[arg(
        long,
        global = true,
        conflicts_with = "host",
        default_value = "/run/bulkhead/supervisor.sock",
        value_name = "PATH"
    )]
    pub socket: PathBuf,
}

/// Arguments of `join-ticket`.
#[derive(Debug, Args)]
pub struct JoinTicketArgs {
    /// The site
    pub site: String,
    /// Write the ticket to this file, readable by its owner only, instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Arguments of `explain`.
#[derive(Debug, Args)]
#[command(
    override_usage = "bulkhead explain [OPTIONS] <KIND> <NAME>\n       bulkhead explain [OPTIONS] fit -f <FILE>\n       bulkhead explain [OPTIONS] <KIND[.FIELD]>"
)]
pub struct ExplainArgs {
    /// lease, host or site with its NAME; fit; or KIND.field.path, such as lease.spec.workload
    #[arg(value_name = "KIND[.FIELD]")]
    pub what: String,
    /// Name of an object; TENANT/NAME of a lease
    pub name: Option<String>,
    /// The lease's tenant, where NAME does not say it
    #[arg(long)]
    pub tenant: Option<String>,
    /// Leases that are to fit; - is standard input
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Explain an object again whenever that changes
    #[arg(short, long)]
    pub watch: bool,
    /// All fields below it too
    #[arg(short, long)]
    pub recursive: bool,
}

fn kind_parser() -> impl clap::builder::TypedValueParser<Value = Kind> {
    let name = |kind| match kind {
        Kind::Site => PossibleValue::new("site"),
        Kind::Host => PossibleValue::new("host"),
        Kind::Tenant => PossibleValue::new("tenant"),
        Kind::Lease => PossibleValue::new("lease"),
    };
    let names = Kind::ALL.map(|kind| name(kind).alias(kind.plural()));
    PossibleValuesParser::new(names).try_map(|name| explain::kind(&name))
}

/// Reads a time such as `90s`, `5m` or `1h30m`.
fn duration(text: &str) -> Result<Duration, String> {
    let time = text.parse::<SignedDuration>().ok().and_then(|time| Duration::try_from(time).ok());
    time.ok_or_else(|| "expected a number with its unit, such as 90s, 5m or 1h30m".to_owned())
}
