//! Tenants' networks made by hand in two namespaces: the host's, and one with everybody's other ends.
//!
//! ```text
//!  host:  bridge of t1/n1 10.0+.1.1 ── ports of leases 1 and 2     others:  their ends
//!         bridge of t2/n1           ── port of lease 1                      its end
//!         eno1 192.0.2.1                                                    out0
//! ```
//! A kernel with `vlan_filtering`, VRF or bridge conntrack is not needed: nothing here rests on them.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use bulkhead_api::id::MacAddr;
use nix::sched::{CloneFlags, CpuSet, sched_getaffinity, sched_setaffinity, setns, unshare};
use nix::unistd::Pid;

use super::super::{Nft, Outcome, part_bridges_from_ip};
use super::frame::Wire;
use super::nft;
use crate::firewall::ruleset::{Ruleset, Statement};
use crate::firewall::{Access, compile, sample};
use crate::model::{Desired, LinkName, Role};

/// Both namespaces, and what was asked of the first.
pub(super) struct Lab {
    pub(super) host: File,
    pub(super) others: File,
    pub(super) nft: Nft,
    pub(super) desired: Desired,
    pub(super) wanted: Ruleset,
}

/// Router of the site, behind the uplink.
pub(super) const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);
pub(super) const ROUTER_MAC: [u8; 6] = [0x52, 0, 0, 0, 0, 0xfe];

/// A namespace that lives as long as its file is open.
fn namespace() -> File {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace: it needs root");
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        thread.join().unwrap()
    })
}

/// Runs inside a namespace.
pub(super) fn inside<T: Send>(namespace: &File, run: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            run()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Keeps this thread on one CPU. Each has a queue of its own for what virtual links were sent: only on one does what was
/// sent first arrive first.
fn stay() {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this).unwrap();
    let first = (0..CpuSet::count()).find(|cpu| allowed.is_set(*cpu).unwrap()).unwrap();
    let mut one = CpuSet::new();
    one.set(first).unwrap();
    sched_setaffinity(this, &one).unwrap();
}

fn ip(words: &str) {
    #[expect(clippy::disallowed_methods, reason = "a test makes its links by hand")]
    let output = Command::new("ip").args(words.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
}

fn set(path: &str, value: &str) {
    std::fs::write(format!("/proc/sys/net/{path}"), value).unwrap();
}

/// A link sends nothing before the kernel, a while after its carrier came, gave it a queue (Linux, net/core/link_watch.c).
fn wait_until_links_send() {
    let latest = Instant::now() + Duration::from_secs(20);
    loop {
        #[expect(clippy::disallowed_methods, reason = "a test looks at its links by hand")]
        let output = Command::new("ip").args(["-o", "link", "show", "up"]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        if !text.contains("qdisc noop ") {
            return;
        }
        assert!(Instant::now() < latest, "links without a queue: {text}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Address of a lease of a tenant's first network.
pub(super) fn address(tenant: u16, lease: u8) -> Ipv4Addr {
    let [a, b] = tenant.to_be_bytes();
    Ipv4Addr::new(10 + a, b, 1, 10 + lease)
}

pub(super) fn gateway(tenant: u16) -> Ipv4Addr {
    let [a, b] = tenant.to_be_bytes();
    Ipv4Addr::new(10 + a, b, 1, 1)
}

pub(super) fn station(tenant: u16, lease: u16) -> [u8; 6] {
    sample::mac(tenant, lease, 1).octets()
}

fn end(tenant: u16, lease: u16, role: Role) -> LinkName {
    LinkName::of_port(role, &sample::port(tenant, lease, 1))
}

pub(super) fn bridge(tenant: u16) -> LinkName {
    LinkName::of_network(Role::Bridge, &sample::id(tenant, 1))
}

impl Lab {
    /// Tenants 1 and 2 with one network each, of two ports that may talk.
    pub(super) fn new(access: &Access) -> Self {
        let mut desired = sample::desired(2, 1, 2);
        for network in desired.networks.values_mut() {
            network.ports_talk = true;
        }
        Self::of(desired, access)
    }

    pub(super) fn of(desired: Desired, access: &Access) -> Self {
        stay();
        let (host, others) = (namespace(), namespace());
        let path = format!("/proc/{}/fd/{}", std::process::id(), others.as_raw_fd());
        inside(&host, || {
            // Nothing else may speak or refuse: routes and rules alone decide.
            for family in ["ipv4/conf/all/rp_filter", "ipv4/conf/default/rp_filter"] {
                set(family, "0");
            }
            set("ipv6/conf/default/disable_ipv6", "1");
            set("ipv4/ip_forward", "1");
            part_bridges_from_ip(Path::new("/proc/sys")).unwrap();
            ip("link set lo up");
            for tenant in [1, 2] {
                let (bridge, group) = (bridge(tenant), 1_000_000 + u32::from(tenant));
                ip(&format!(
                    "link add {bridge} group {group} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
                ));
                ip(&format!("addr add {}/24 dev {bridge}", gateway(tenant)));
                ip(&format!("link set {bridge} up"));
                for lease in [1, 2] {
                    let ends = [Role::Port, Role::Peer].map(|role| end(tenant, lease, role));
                    let mac = sample::mac(tenant, lease, 1);
                    let [ours, theirs] = ends;
                    ip(&format!(
                        "link add {ours} group {group} type veth peer name {theirs} address {mac}"
                    ));
                    ip(&format!("link set {theirs} netns {path}"));
                    ip(&format!("link set {ours} master {bridge} up"));
                }
                // Only now: a bridge takes the lowest address of its ports, and forgets its neighbours when that changes.
                for lease in [1, 2_u16] {
                    let at = address(tenant, lease.to_be_bytes()[1]);
                    let mac = sample::mac(tenant, lease, 1);
                    ip(&format!("neigh add {at} lladdr {mac} dev {bridge} nud permanent"));
                }
            }
            ip("link add eno1 type veth peer name out0");
            ip(&format!("link set out0 netns {path}"));
            ip("addr add 192.0.2.1/24 dev eno1");
            ip("link set eno1 up");
            let router = MacAddr::new(ROUTER_MAC);
            ip(&format!("neigh add {ROUTER} lladdr {router} dev eno1 nud permanent"));
            ip(&format!("route add default via {ROUTER}"));
        });
        inside(&others, || {
            set("ipv6/conf/all/disable_ipv6", "1");
            for tenant in [1, 2] {
                for lease in [1, 2] {
                    ip(&format!("link set {} up", end(tenant, lease, Role::Peer)));
                }
            }
            ip("link set out0 up");
        });
        for namespace in [&host, &others] {
            inside(namespace, wait_until_links_send);
        }
        let wanted = compile(&desired, access).ruleset;
        let lab = Self { host, others, nft: nft(), desired, wanted };
        lab.apply(&lab.wanted);
        lab
    }

    /// Makes the rules so.
    pub(super) fn apply(&self, rules: &Ruleset) {
        let done = inside(&self.host, || self.nft.converge(rules)).unwrap();
        assert!(matches!(done, Outcome::Changed | Outcome::AlreadySo));
    }

    /// The rules without those of one chain whose text has these words.
    pub(super) fn without(&self, chain: &str, words: &str) -> Ruleset {
        let mut rules = self.wanted.clone();
        let mut gone = 0;
        for table in rules.tables.values_mut() {
            if let Some(chain) = table.chains.get_mut(chain) {
                let before = chain.rules.len();
                chain.rules.retain(|rule| !rule.to_string().contains(words));
                gone += before - chain.rules.len();
            }
        }
        assert!(gone > 0, "no rule of {chain} says {words}");
        rules
    }

    /// The rules with everything let through that comes to the end of a chain.
    pub(super) fn open(&self, chain: &str) -> Ruleset {
        let mut rules = self.wanted.clone();
        for table in rules.tables.values_mut() {
            if let Some(chain) = table.chains.get_mut(chain) {
                let accept = Statement::Verdict(crate::firewall::ruleset::Verdict::Accept);
                chain.rules.push(crate::firewall::ruleset::Rule(vec![accept]));
            }
        }
        rules
    }

    /// A lease's end.
    pub(super) fn port(&self, tenant: u16, lease: u16) -> Wire {
        inside(&self.others, || Wire::on(end(tenant, lease, Role::Peer).as_str()))
    }

    /// The end of the site's router.
    pub(super) fn router(&self) -> Wire {
        inside(&self.others, || Wire::on("out0"))
    }

    /// Hardware address of a link of the host.
    pub(super) fn mac(&self, link: &str) -> [u8; 6] {
        let text = inside(&self.host, || {
            #[expect(clippy::disallowed_methods, reason = "a test looks at its links by hand")]
            let output = Command::new("ip").args(["-o", "link", "show", link]).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        });
        let (_, rest) = text.split_once("link/ether ").unwrap();
        rest[..17].parse::<MacAddr>().unwrap().octets()
    }
}
