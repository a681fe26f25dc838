//! A fleet of one site: the real programs, in a namespace, with everything they keep in one folder.
//!
//! ```text
//!  DIR/registry/   what `bulkhead-registry init` made: signer's keys, trust/, admin-token, database
//!  DIR/boot/       stage 1 and UKI with this fleet's trust in them
//!  DIR/site/       the site's own state
//!  DIR/logs/       a file a program
//!  DIR/hosts/N/    a folder a virtual server
//! ```

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bulkhead_api::document::{API_VERSION, Document, Host, Lease};
use bulkhead_api::id::SiteName;
use serde_json::{Value, json};

use crate::artifacts::{Tools, Workspace, required};
use crate::cmd::Cmd;
use crate::listen::{Port, listens};
use crate::net::{LabNet, SITE_ADDRESS};
use crate::process::{Daemon, ProcessId, tail};
use crate::vm::{DirectBoot, Lifetime};

/// Where the registry listens, inside the namespace.
pub const REGISTRY: &str = "127.0.0.1:7443";
const REGISTRY_PORT: u16 = 7443;
/// The site's link: gRPC and OCI by TLS.
const LINK_PORT: u16 = 8443;
/// Starting a program takes a fraction of a second; an emulator beside it takes the rest.
const START: Duration = Duration::from_secs(30);

/// Which image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layers {
    /// As it is released.
    Product,
    /// With a root shell for tests that hosts may be told to mount.
    Test,
}

/// The folder of a fleet and the programs that use it.
#[derive(Debug, Clone)]
pub struct Fleet {
    workspace: Workspace,
    /// Everything of this fleet is below it.
    pub dir: PathBuf,
    /// The one site.
    pub site: SiteName,
    /// Extension layers that its hosts are told to mount.
    pub extensions: Vec<String>,
}

impl Fleet {
    /// A fleet in `dir`, which must be absolute. Nothing is made yet.
    ///
    /// # Errors
    /// The site's name is wrong.
    pub fn at(workspace: &Workspace, dir: &Path, extensions: &[&str]) -> Result<Self> {
        let extensions = extensions.iter().map(ToString::to_string).collect();
        let site = "lab-01".parse().context("name of the lab's site")?;
        Ok(Self { workspace: workspace.clone(), dir: dir.to_owned(), site, extensions })
    }

    /// Makes keys, trust and admin token.
    ///
    /// # Errors
    /// `bulkhead-registry init` fails.
    pub fn init(&self) -> Result<()> {
        fs::create_dir_all(self.dir.join("logs")).context("make the fleet's folder")?;
        let init = Cmd::new(self.workspace.program("bulkhead-registry")?);
        init.arg("init").arg("--dir").arg(self.registry()).run().map(drop)
    }

    /// The command that builds the image as far as it is missing, with this fleet's trust in stage 1.
    ///
    /// # Errors
    /// `bulkhead-image` was not built.
    pub fn image_build(&self, layers: Layers) -> Result<Cmd> {
        let build = Cmd::new(self.workspace.program("bulkhead-image")?).arg("build");
        let build = build.arg("--repo").arg(&self.workspace.root).arg("--out").arg(self.image());
        let build = build.arg("--trust").arg(self.registry().join("trust"));
        let build = build.arg("--boot").arg(self.served());
        Ok(match layers {
            Layers::Product => build,
            Layers::Test => build.arg("--test-layer"),
        })
    }

    /// Folder of keys, trust, token and database.
    #[must_use]
    pub fn registry(&self) -> PathBuf {
        self.dir.join("registry")
    }

    /// Folder of everything that the site serves: stage 1, UKI, manifest, root image, layers.
    #[must_use]
    pub fn served(&self) -> PathBuf {
        self.dir.join("image")
    }

    fn join_ticket(&self) -> PathBuf {
        self.dir.join("join-ticket")
    }

    /// The site as it is told to the registry: it boots every machine that asks.
    fn site_document(&self) -> Value {
        json!({
            "apiVersion": API_VERSION,
            "kind": "Site",
            "metadata": { "name": self.site },
            "spec": { "admission": { "mode": "auto" } },
        })
    }

    /// The build's folder of everything that does not depend on the fleet.
    #[must_use]
    pub fn image(&self) -> PathBuf {
        self.workspace.target.join("image")
    }

    /// Folder for what is learnt of this machine, made when it is asked for.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn cache(&self) -> Result<PathBuf> {
        let cache = self.workspace.target.join("lab-cache");
        fs::create_dir_all(&cache).context("make the lab's cache")?;
        Ok(cache)
    }

    /// QEMU and firmware.
    #[must_use]
    pub fn tools(&self) -> Tools {
        Tools::of(&self.workspace, &self.served())
    }

    /// Kernel, stage 1 and command line for the direct lane.
    ///
    /// # Errors
    /// A file is missing.
    pub fn direct_boot(&self) -> Result<DirectBoot> {
        let cmdline = required(self.served().join("cmdline"))?;
        let cmdline = fs::read_to_string(cmdline).context("read the kernel's command line")?;
        Ok(DirectBoot {
            kernel: required(self.served().join("vmlinuz"))?,
            initrd: required(self.served().join("stage1.initrd"))?,
            cmdline: cmdline.trim().to_owned(),
        })
    }

    /// Writes the programs' configuration.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn configure(&self) -> Result<()> {
        let site = json!({
            "site": self.site,
            "interface": "br0",
            "address": SITE_ADDRESS,
            "prefix": 24,
            "pool": { "first": "10.9.0.100", "last": "10.9.0.199" },
            "stateDir": self.dir.join("site"),
            "imageDir": self.served(),
            "trustDir": self.registry().join("trust"),
            "ociDir": self.image().join("oci"),
            "extensions": self.extensions,
            "registry": {
                "url": format!("https://{REGISTRY}"),
                "joinTicketFile": self.join_ticket(),
            },
        });
        write_json(&self.dir.join("site.json"), &site)
    }

    fn log(&self, name: &str) -> PathBuf {
        self.dir.join("logs").join(format!("{name}.log"))
    }

    /// `bulkhead`, logged in to this fleet, in its namespace.
    ///
    /// # Errors
    /// The program was not built.
    pub fn cli(&self, net: &LabNet) -> Result<Cmd> {
        let cli = Cmd::new(self.workspace.program("bulkhead")?);
        Ok(net.inside(cli.arg("--config").arg(self.dir.join("cli.json"))))
    }
}

fn write_json(path: &Path, value: &Value) -> Result<()> {
    let text = serde_json::to_vec_pretty(value)?;
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

/// A program of the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Program {
    /// Signs; holds the private keys.
    Signer,
    /// The registry.
    Registry,
    /// The site.
    Site,
}

impl Program {
    fn name(self) -> &'static str {
        match self {
            Self::Signer => "signer",
            Self::Registry => "registry",
            Self::Site => "site",
        }
    }
}

/// The fleet's programs while they run.
#[derive(Debug)]
pub struct Running<'a> {
    /// The fleet.
    pub fleet: &'a Fleet,
    /// Where its programs and servers are.
    pub net: &'a LabNet,
    lifetime: Lifetime,
    daemons: BTreeMap<Program, Daemon>,
}

impl<'a> Running<'a> {
    /// Starts signer and registry, admits the site, starts it: ready to boot machines.
    ///
    /// # Errors
    /// A program does not come up: then with the end of its log.
    pub fn start(fleet: &'a Fleet, net: &'a LabNet, lifetime: Lifetime) -> Result<Self> {
        let mut running = Self { fleet, net, lifetime, daemons: BTreeMap::new() };
        running.start_program(Program::Signer)?;
        running.start_program(Program::Registry)?;
        running.log_in()?;
        running.admit_site()?;
        running.start_program(Program::Site)?;
        Ok(running)
    }

    /// Starts one program and waits until it serves.
    ///
    /// # Errors
    /// It does not come up: then with the end of its log.
    pub fn start_program(&mut self, program: Program) -> Result<()> {
        let name = program.name();
        let cmd = self.net.inside(self.command(program)?);
        let cmd = match self.lifetime {
            Lifetime::Scoped => cmd,
            Lifetime::Lasting => cmd.under(["setsid"]),
        };
        let mut daemon = Daemon::start(name, &cmd, &self.fleet.log(name))?;
        let until = Instant::now() + START;
        while !self.serves(program, daemon.id) {
            if !daemon.alive() {
                bail!("{name} ended at once: {}", daemon.log_tail(15));
            }
            if Instant::now() > until {
                bail!("{name} does not serve after {} s: {}", START.as_secs(), daemon.log_tail(15));
            }
            sleep(Duration::from_millis(50));
        }
        self.daemons.insert(program, daemon);
        Ok(())
    }

    fn command(&self, program: Program) -> Result<Cmd> {
        let (workspace, dir) = (&self.fleet.workspace, &self.fleet.dir);
        let registry = || workspace.program("bulkhead-registry").map(Cmd::new);
        Ok(match program {
            Program::Signer => registry()?
                .args(["signer", "--dir"])
                .arg(self.fleet.registry().join("signer"))
                .arg("--socket")
                .arg(self.signer_socket()),
            Program::Registry => registry()?
                .args(["serve", "--config"])
                .arg(self.fleet.registry().join("registry.json")),
            Program::Site => Cmd::new(workspace.program("bulkhead-site")?)
                .args(["run", "--config"])
                .arg(dir.join("site.json")),
        })
    }

    fn signer_socket(&self) -> PathBuf {
        self.fleet.registry().join("signer.sock")
    }

    fn serves(&self, program: Program, id: ProcessId) -> bool {
        match program {
            Program::Signer => UnixStream::connect(self.signer_socket()).is_ok(),
            Program::Registry => listens(id, Port::Tcp(REGISTRY_PORT)),
            Program::Site => {
                let ports = [Port::Udp(67), Port::Udp(69), Port::Tcp(80), Port::Tcp(LINK_PORT)];
                ports.into_iter().all(|port| listens(id, port))
            }
        }
    }

    /// SIGKILL: the program gets no last word.
    pub fn kill_program(&mut self, program: Program) {
        if let Some(mut daemon) = self.daemons.remove(&program) {
            daemon.kill();
        }
    }

    /// The processes by name.
    #[must_use]
    pub fn processes(&self) -> Vec<(&'static str, ProcessId)> {
        self.daemons.iter().map(|(program, daemon)| (program.name(), daemon.id)).collect()
    }

    /// The programs that ended without being told to, with the ends of their logs.
    pub fn fallen(&mut self) -> Option<String> {
        self.daemons.iter_mut().find_map(|(program, daemon)| {
            let fallen = !daemon.alive();
            fallen.then(|| format!("{} ended by itself: {}", program.name(), daemon.log_tail(15)))
        })
    }

    /// The last lines of a program's log.
    #[must_use]
    pub fn log_tail(&self, program: Program, lines: usize) -> String {
        tail(&self.fleet.log(program.name()), lines)
    }

    /// Leaves the programs running when this value goes.
    pub fn let_run(self) -> Vec<(&'static str, ProcessId)> {
        let daemons = self.daemons.into_iter();
        daemons.map(|(program, daemon)| (program.name(), daemon.let_run())).collect()
    }

    /// Runs `bulkhead` with arguments and gives what it printed.
    ///
    /// # Errors
    /// It ends with a status other than 0: then with what it said.
    pub fn bulkhead<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Result<String> {
        self.fleet.cli(self.net)?.args(args).run()
    }

    /// Every host that the registry knows, machines that never enrolled too.
    ///
    /// # Errors
    /// The registry does not answer, or not with hosts.
    pub fn hosts(&self) -> Result<Vec<Host>> {
        let hosts = self.list("hosts")?.into_iter().filter_map(|document| match document {
            Document::Host(host) => Some(host),
            Document::Site(_) | Document::Tenant(_) | Document::Lease(_) => None,
        });
        Ok(hosts.collect())
    }

    /// Every lease.
    ///
    /// # Errors
    /// The registry does not answer, or not with leases.
    pub fn leases(&self) -> Result<Vec<Lease>> {
        let leases = self.list("leases")?.into_iter().filter_map(|document| match document {
            Document::Lease(lease) => Some(lease),
            Document::Site(_) | Document::Tenant(_) | Document::Host(_) => None,
        });
        Ok(leases.collect())
    }

    fn list(&self, kind: &str) -> Result<Vec<Document>> {
        let text = self.bulkhead(["get", kind, "-o", "json"])?;
        serde_json::from_str(&text).with_context(|| format!("read the list of {kind}: {text}"))
    }

    fn log_in(&self) -> Result<()> {
        let registry = self.fleet.registry();
        let login = self.fleet.cli(self.net)?.args(["login", "--server"]);
        let login = login.arg(format!("https://{REGISTRY}"));
        let login = login.arg("--ca").arg(registry.join("trust/ca.pem"));
        login.arg("--token-file").arg(registry.join("admin-token")).run().map(drop)
    }

    /// Tells the registry of the site and fetches the ticket with which it joins, unless it has joined.
    fn admit_site(&self) -> Result<()> {
        let ticket = self.fleet.join_ticket();
        if ticket.exists() {
            return Ok(());
        }
        self.apply(&self.fleet.site_document())?;
        let fetch = self.fleet.cli(self.net)?.arg("join-ticket").arg(self.fleet.site.as_str());
        fetch.arg("-o").arg(ticket).run().map(drop)
    }

    /// Applies one document.
    ///
    /// # Errors
    /// The registry refuses it: then with what the command line said.
    pub fn apply(&self, document: &Value) -> Result<String> {
        let file = self.fleet.dir.join("apply.json");
        write_json(&file, document)?;
        self.fleet.cli(self.net)?.args(["apply", "-f"]).arg(file).run()
    }
}
