//! The boot, step by step, and what happens when a step fails.
//!
//! * Network steps are tried again after a pause that grows, each time from DHCP on: addresses, tickets and servers change.
//!   After [`GIVE_UP`] the machine reboots, so that firmware fetches what may be a newer image.
//! * Anything else that fails will fail again: the machine reboots.
//!
//! Either way the console says why and how long until what.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use bulkhead_api::boot::{
    BOOT_FACTS, BootFacts, STAGE_ONE_CONFIG, STAGE_ONE_MODULES, STAGE_ONE_TRUST, SiteBoot,
    StageOneConfig, StageOneModules, TRUST_DIR, VerityImage,
};
use bulkhead_api::chain::Chain;
use bulkhead_api::id::SystemUuid;
use nix::sys::reboot::{RebootMode, reboot};
use serde::de::DeserializeOwned;

use crate::backoff::Backoff;
use crate::cmdline;
use crate::console::Console;
use crate::device::{self, DeviceError};
use crate::dhcp::Client;
use crate::dhcp_client::{self, DhcpError, Grant};
use crate::fetch::{self, Bound, FetchError};
use crate::image::{self, ImageError};
use crate::link::{self, LinkError, Nic};
use crate::modules::{self, ModuleError};
use crate::random;
use crate::root::{self, RootError};

/// After so long without success the machine reboots.
pub const GIVE_UP: Duration = Duration::from_secs(600);
/// Time to read the reason before the machine reboots.
pub const REBOOT_AFTER: Duration = Duration::from_secs(30);
/// How long to wait for a NIC and for a cable at a time.
const CARRIER: Duration = Duration::from_secs(15);
/// How long DHCP is given on one NIC, at first and at most.
const DHCP: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(30));
/// Pause between tries, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));
/// Longest `boot.json`.
const LONGEST_BOOT: u64 = 65_536;

/// A boot that ends here.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The initrd is incomplete: the image build is at fault.
    #[error("read {path} of the initrd")]
    Initrd {
        /// The file.
        path: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// Settings that cannot be understood.
    #[error("{path}")]
    Settings {
        /// The file.
        path: &'static str,
        /// Why.
        source: serde_json::Error,
    },
    /// The kernel command line.
    #[error(transparent)]
    Cmdline(#[from] cmdline::Refused),
    /// A module.
    #[error(transparent)]
    Module(#[from] ModuleError),
    /// No success for too long.
    #[error("no boot over the network within {} s", GIVE_UP.as_secs())]
    GaveUp(#[source] AttemptError),
    /// A block device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A file system.
    #[error(transparent)]
    Root(#[from] RootError),
}

/// A try that may succeed the next time.
#[derive(Debug, thiserror::Error)]
pub enum AttemptError {
    /// No NIC.
    #[error("no NIC with a driver in this image")]
    NoNic,
    /// No cable.
    #[error("no carrier on {0}")]
    NoCarrier(String),
    /// An interface.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// No address.
    #[error(transparent)]
    Dhcp(#[from] DhcpError),
    /// A file of the site.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// What the site says.
    #[error("boot.json of the site")]
    Site(#[source] serde_json::Error),
    /// An image.
    #[error(transparent)]
    Image(#[from] ImageError),
}

impl AttemptError {
    /// Whether the site turned this boot's ticket down, so that the next try must be a new boot to it.
    fn is_refusal(&self) -> bool {
        match self {
            Self::Fetch(error) | Self::Image(ImageError::Fetch(_, error)) => error.is_refusal(),
            Self::NoNic
            | Self::NoCarrier(_)
            | Self::Link(_)
            | Self::Dhcp(_)
            | Self::Site(_)
            | Self::Image(_) => false,
        }
    }
}

/// Says why the boot ends, waits until the reason can have been read, and reboots.
pub fn fail(console: &Console, reason: &str) -> ! {
    console.say(&format!("BOOT FAILED: {reason}; reboot in {} s", REBOOT_AFTER.as_secs()));
    sleep(REBOOT_AFTER);
    // only a process without the right to reboot comes back, and ends
    let Err(error) = reboot(RebootMode::RB_AUTOBOOT);
    console.fault("reboot", &error);
    std::process::exit(1)
}

/// Boots. Returns only with an error.
///
/// # Errors
/// [`BootError`].
pub fn run(console: &Console) -> Result<Infallible, BootError> {
    root::mount_kernel()?;
    console.mark("init", "stage 1 runs");
    let config: StageOneConfig = settings(STAGE_ONE_CONFIG)?;
    let found = fs::read_to_string("/proc/cmdline")
        .map_err(|source| BootError::Initrd { path: "/proc/cmdline", source })?;
    cmdline::check(config.expected_cmdline.as_deref(), &found)?;
    let drivers: StageOneModules = settings(STAGE_ONE_MODULES)?;
    modules::load(&drivers, console)?;
    console.mark("modules", "kernel modules loaded");

    let fetched = network(console, &config)?;
    let root_device = device::verity(&config.root, fetched.memory(&config.root.name)?)?;
    let mut layers = Vec::new();
    for layer in &fetched.layers {
        layers.push((layer.name.clone(), device::verity(layer, fetched.memory(&layer.name)?)?));
    }
    root::assemble(&root_device, &layers)?;
    root::copy_trust(Path::new(STAGE_ONE_TRUST), Path::new(TRUST_DIR))?;
    console.mark("root", &format!("image {} mounted", config.image_version));
    console.mark("switch", "systemd starts");
    let facts = fetched.facts(&config, console);
    let text = serde_json::to_vec(&facts)
        .map_err(|source| BootError::Settings { path: BOOT_FACTS, source })?;
    root::write_secret(Path::new(BOOT_FACTS), &text)?;
    Ok(root::enter()?)
}

fn settings<T: DeserializeOwned>(path: &'static str) -> Result<T, BootError> {
    let text = fs::read(path).map_err(|source| BootError::Initrd { path, source })?;
    serde_json::from_slice(&text).map_err(|source| BootError::Settings { path, source })
}

/// What the network gave.
#[derive(Debug)]
struct Fetched<'a> {
    nic: Nic,
    uuid: Option<SystemUuid>,
    grant: Grant,
    site: SiteBoot,
    /// Layers asked for that this image knows.
    layers: Vec<&'a VerityImage>,
    /// Verified images by name.
    images: BTreeMap<String, OwnedFd>,
}

impl Fetched<'_> {
    fn memory(&self, name: &str) -> Result<&OwnedFd, DeviceError> {
        self.images.get(name).ok_or_else(|| DeviceError::NotFetched(name.to_owned()))
    }

    fn facts(&self, config: &StageOneConfig, console: &Console) -> BootFacts {
        BootFacts {
            site: self.site.clone(),
            image_version: config.image_version.clone(),
            nic: self.nic.name.clone(),
            mac: self.nic.mac,
            uuid: self.uuid,
            address: self.grant.offer.address,
            prefix: self.grant.offer.prefix,
            gateway: self.grant.offer.gateway,
            marks: console.marks(),
        }
    }
}

/// Tries until everything is there or [`GIVE_UP`] is over.
fn network<'a>(console: &'a Console, config: &'a StageOneConfig) -> Result<Fetched<'a>, BootError> {
    let start = Instant::now();
    let uuid = system_uuid();
    let mut pause = Backoff::new(PAUSE.0, PAUSE.1);
    let mut attempt = Attempt {
        console,
        config,
        uuid,
        xid: random::bits(),
        patience: DHCP.0,
        images: BTreeMap::new(),
    };
    loop {
        let error = match attempt.run() {
            Ok((nic, grant, site, layers)) => {
                return Ok(Fetched { nic, uuid, grant, site, layers, images: attempt.images });
            }
            Err(error) => error,
        };
        if start.elapsed() >= GIVE_UP {
            return Err(BootError::GaveUp(error));
        }
        if error.is_refusal() {
            attempt.xid = random::bits();
        }
        attempt.patience = (attempt.patience * 2).min(DHCP.1);
        let wait = pause.next(random::bits());
        console.say(&format!("FAILED: {}; next try in {:.1} s", Chain(&error), wait.as_secs_f64()));
        sleep(wait);
    }
}

/// As Linux prints it; `None` where the firmware has none.
fn system_uuid() -> Option<SystemUuid> {
    let text = fs::read_to_string("/sys/class/dmi/id/product_uuid").ok()?;
    text.trim().parse().ok().filter(|uuid: &SystemUuid| !uuid.is_unset())
}

struct Attempt<'a> {
    console: &'a Console,
    config: &'a StageOneConfig,
    uuid: Option<SystemUuid>,
    xid: u32,
    patience: Duration,
    /// What earlier tries got.
    images: BTreeMap<String, OwnedFd>,
}

type Got<'a> = (Nic, Grant, SiteBoot, Vec<&'a VerityImage>);

impl<'a> Attempt<'a> {
    fn run(&mut self) -> Result<Got<'a>, AttemptError> {
        let nics = with_carrier()?;
        let names: Vec<_> = nics.iter().map(|nic| nic.name.as_str()).collect();
        self.console.mark("link", &format!("{} up", names.join(", ")));
        let (nic, grant) = self.address(&nics)?;
        match self.load(&nic, &grant) {
            Ok((site, layers)) => {
                only(&nic)?;
                Ok((nic, grant, site, layers))
            }
            Err(error) => {
                // another NIC may be the one next time
                link::set_address(&nic, std::net::Ipv4Addr::UNSPECIFIED, 0)?;
                Err(error)
            }
        }
    }

    /// An address by the first NIC that gets one with something to boot.
    fn address(&self, nics: &[Nic]) -> Result<(Nic, Grant), AttemptError> {
        let mut last = AttemptError::NoNic;
        for nic in nics {
            let client = Client { mac: nic.mac, uuid: self.uuid, xid: self.xid };
            match dhcp_client::obtain(nic, &client, self.patience) {
                Ok(grant) => {
                    let offer = &grant.offer;
                    link::set_address(nic, offer.address, offer.prefix)?;
                    if let Some(gateway) = offer.gateway {
                        link::set_gateway(nic, gateway)?;
                    }
                    let (address, prefix, server) = (offer.address, offer.prefix, offer.server);
                    self.console
                        .mark("dhcp", &format!("{} {address}/{prefix} from {server}", nic.name));
                    return Ok((nic.clone(), grant));
                }
                Err(error) => {
                    if nics.len() > 1 {
                        self.console.fault("this NIC is not the one", &error);
                    }
                    last = error.into();
                }
            }
        }
        Err(last)
    }

    /// What the site says, and the images.
    fn load(
        &mut self,
        nic: &Nic,
        grant: &Grant,
    ) -> Result<(SiteBoot, Vec<&'a VerityImage>), AttemptError> {
        let text = fetch::open(&grant.base, "boot.json", Bound::AtMost(LONGEST_BOOT))?.whole()?;
        let site: SiteBoot = serde_json::from_slice(&text).map_err(AttemptError::Site)?;
        self.console.say(&format!("site {}, boot {} of {}", site.site, site.boot, nic.mac));
        let mut layers = Vec::new();
        for name in &site.extensions {
            match self.config.extensions.iter().find(|layer| layer.name == *name) {
                Some(layer) => layers.push(layer),
                None => self.console.say(&format!("layer {name:?} is not of this image: left out")),
            }
        }
        for image in std::iter::once(&self.config.root).chain(layers.iter().copied()) {
            if !self.images.contains_key(&image.name) {
                let memory = image::fetch(&grant.base, image, self.console)?;
                self.images.insert(image.name.clone(), memory);
            }
        }
        self.console.mark("image", "all images are here");
        Ok((site, layers))
    }
}

/// Takes every NIC up and waits for a cable.
fn with_carrier() -> Result<Vec<Nic>, AttemptError> {
    let start = Instant::now();
    let mut raised: Vec<Nic> = Vec::new();
    link::set("lo", true)?;
    loop {
        for nic in link::nics()? {
            if !raised.contains(&nic) {
                link::set(&nic.name, true)?;
                raised.push(nic);
            }
        }
        let ready: Vec<_> = raised.iter().filter(|nic| link::has_carrier(nic)).cloned().collect();
        if !ready.is_empty() {
            return Ok(ready);
        }
        if start.elapsed() >= CARRIER {
            let names: Vec<_> = raised.iter().map(|nic| nic.name.as_str()).collect();
            return Err(if names.is_empty() {
                AttemptError::NoNic
            } else {
                AttemptError::NoCarrier(names.join(", "))
            });
        }
        sleep(Duration::from_millis(20));
    }
}

/// Takes the other NICs down again: they are the supervisor's to configure.
fn only(chosen: &Nic) -> Result<(), LinkError> {
    for nic in link::nics()?.iter().filter(|nic| *nic != chosen) {
        link::set(&nic.name, false)?;
    }
    Ok(())
}
