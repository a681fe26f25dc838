//! Why a lease does not fit, class by class, with the numbers.

use std::fmt;

use bulkhead_api::id::LeaseId;
use bulkhead_api::lease::Isolation;
use bulkhead_api::mig::ProfileName;
use bulkhead_api::resource::PageSize;
use bulkhead_api::units::Bytes;

/// An amount of each class: what a host offers, or what is left of it for a lease of level `core`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// Whole physical cores.
    pub cores: u32,
    /// Memory over all nodes, ordinary or as huge pages.
    pub memory: Bytes,
    /// Storage over all pools.
    pub storage: Bytes,
}

/// Why a request does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortage {
    /// Each class that is short; never empty.
    pub lacks: Vec<Lack>,
    /// What is free.
    pub free: Amount,
    /// What the host offers to leases in all.
    pub offered: Amount,
}

impl Shortage {
    /// One sentence a class that is short. Where every class has enough in sum, the sentence says that no
    /// set of nodes has all of it together.
    #[must_use]
    pub fn short(&self) -> Vec<String> {
        self.lacks.iter().map(ToString::to_string).collect()
    }
}

impl Shortage {
    /// One class more that is short. Then it is known why no set of nodes has all of it together.
    pub(super) fn add(&mut self, lack: Option<Lack>) {
        if let Some(lack) = lack {
            self.lacks.retain(|lack| !matches!(lack, Lack::Together { .. }));
            self.lacks.push(lack);
        }
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short().join("; "))
    }
}

impl std::error::Error for Shortage {}

/// One class that is short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lack {
    /// Cores.
    Cores {
        /// Wanted.
        wanted: u32,
        /// Free for a lease of level `core`.
        free: u32,
        /// Offered in all.
        offered: u32,
    },
    /// Memory, with huge pages.
    Memory {
        /// Wanted.
        wanted: Bytes,
        /// Free.
        free: Bytes,
        /// Offered in all.
        offered: Bytes,
    },
    /// Cores that satisfy the level of isolation.
    Alone {
        /// The level.
        level: Isolation,
        /// Cores wanted.
        wanted: u32,
        /// Cores free at that level.
        free: u32,
        /// Free cores that the host's own core or memory keeps from that level.
        house: u32,
        /// Free cores whose last-level cache is not known.
        unknown: u32,
    },
    /// Ways of last-level caches.
    Ways {
        /// Ways wanted of each cache.
        ways: u32,
        /// Cores wanted.
        cores: u32,
        /// Free cores behind a cache with so many ways left.
        free: u32,
    },
    /// Groups of the processor's cache control.
    Groups {
        /// Offered in all.
        offered: u32,
    },
    /// Huge pages.
    Hugepages {
        /// Size of each.
        page_size: PageSize,
        /// Wanted.
        wanted: u64,
        /// That fit into what is free on the nodes.
        free: u64,
    },
    /// Storage in all.
    Storage {
        /// Wanted.
        wanted: Bytes,
        /// Free.
        free: Bytes,
        /// Offered in all.
        offered: Bytes,
    },
    /// There is storage enough, but not in pools that hold the volumes.
    Pools {
        /// The largest volume.
        largest: Bytes,
        /// Free in the pool with the most room.
        most: Bytes,
        /// How many volumes.
        volumes: usize,
    },
    /// Functions of devices.
    Devices {
        /// Kind.
        kind: String,
        /// Wanted.
        wanted: u32,
        /// Free.
        free: u32,
        /// Offered in all.
        offered: u32,
    },
    /// GPUs or slices.
    Gpus {
        /// `whole GPUs`, `slices 3g.40gb`.
        what: String,
        /// Wanted.
        wanted: u32,
        /// That fit beside what is held.
        free: u32,
        /// Why GPUs of the host are not given at all, a sentence each.
        closed: Vec<String>,
    },
    /// A kind of slice that no GPU of the host has.
    Profile {
        /// The kind.
        profile: ProfileName,
        /// Wanted.
        wanted: u32,
        /// What GPUs the host has.
        models: Vec<String>,
        /// What kinds they have.
        profiles: Vec<String>,
    },
    /// A whole host is wanted, and it is not empty.
    Occupied {
        /// Who is there.
        leases: Vec<LeaseId>,
    },
    /// A whole host is wanted, and some of it is in quarantine.
    Quarantined {
        /// How many resources.
        resources: usize,
    },
    /// Each class has enough, but no set of nodes has all of it.
    Together {
        /// Cores wanted.
        cores: u32,
        /// Memory wanted, with huge pages.
        memory: Bytes,
    },
}

fn mib(bytes: Bytes) -> String {
    format!("{} MiB", bytes.get() >> 20)
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cores { wanted, free, offered } => {
                write!(f, "cpus: {wanted} cores wanted, {free} free of {offered}")
            }
            Self::Memory { wanted, free, offered } => {
                let (wanted, free, offered) = (mib(*wanted), mib(*free), mib(*offered));
                write!(f, "memory: {wanted} wanted, {free} free of {offered}")
            }
            Self::Alone { level, wanted, free, house, unknown } => {
                alone(f, *level, *wanted, *free)?;
                if *house > 0 {
                    write!(f, "; {house} more are not given at this level, beside the host's own")?;
                }
                if *unknown > 0 {
                    write!(f, "; of {unknown} more the last-level cache is not known")?;
                }
                Ok(())
            }
            Self::Ways { ways, cores, free } => write!(
                f,
                "cache: {cores} cores wanted, {free} free behind last-level caches that have {ways} \
                 neighbouring ways left"
            ),
            Self::Groups { offered } => {
                write!(f, "cache: no group of the processor's cache control is free of {offered}")
            }
            Self::Hugepages { page_size, wanted, free } => {
                write!(f, "hugepages: {wanted} of {page_size} wanted, {free} fit into free memory")
            }
            Self::Storage { wanted, free, offered } => {
                let (wanted, free, offered) = (mib(*wanted), mib(*free), mib(*offered));
                write!(f, "volumes: {wanted} wanted, {free} free of {offered}")
            }
            Self::Pools { largest, most, volumes } => {
                let (largest, most) = (mib(*largest), mib(*most));
                write!(
                    f,
                    "volumes: no pools have room for {volumes} of up to {largest}, each in one pool; the \
                     most in one is {most}"
                )
            }
            Self::Devices { kind, wanted, free, offered } => {
                write!(f, "devices: {wanted} {kind} wanted, {free} free of {offered}")
            }
            Self::Gpus { what, wanted, free, closed } => {
                write!(f, "gpus: {wanted} {what} wanted, {free} free")?;
                closed.iter().try_for_each(|why| write!(f, "; {why}"))
            }
            Self::Profile { profile, wanted, models, profiles } => {
                write!(f, "gpus: {wanted} slices {profile} wanted, ")?;
                match (models.join(", "), profiles.join(", ")) {
                    (models, _) if models.is_empty() => f.write_str("the host has no GPU"),
                    (models, profiles) if profiles.is_empty() => {
                        write!(f, "{models} cannot be cut into slices")
                    }
                    (models, profiles) => write!(f, "{models} has {profiles}"),
                }
            }
            Self::Occupied { leases } => {
                let leases: Vec<String> = leases.iter().map(ToString::to_string).collect();
                write!(f, "the host is wanted as a whole and has leases: {}", leases.join(", "))
            }
            Self::Quarantined { resources } => write!(
                f,
                "the host is wanted as a whole and {resources} of its resources are in quarantine"
            ),
            Self::Together { cores, memory } => write!(
                f,
                "no set of NUMA nodes has {cores} cores and {} free together",
                mib(*memory)
            ),
        }
    }
}

fn alone(f: &mut fmt::Formatter<'_>, level: Isolation, wanted: u32, free: u32) -> fmt::Result {
    let (name, whose) = match level {
        Isolation::Core => ("core", "that nobody else has"),
        Isolation::L3 => ("l3", "behind last-level caches that nobody else is behind"),
        Isolation::Socket => ("socket", "on sockets where nobody else has a core or memory"),
    };
    write!(f, "isolation {name}: {wanted} cores wanted, {free} free {whose}")
}
