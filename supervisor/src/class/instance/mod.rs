//! What ran in a lease: taken back by the engine, and here seen to have left nothing behind.
//!
//! ```text
//!  /proc/*/status, uid_map   no process with an id of the lease, none in a user namespace with them
//!  mountinfo                 no mount below its directory, no namespace file that names it
//!  sysvipc, mqueue           no object of the host's IPC namespace        ┐ what is found
//!  /dev/shm, /tmp, /var/tmp  no file                                      ├ is removed
//!  key-users                 no key                                       ┘ and looked for again
//!  cgroupfs, LEASES, RUN     no control group, no directory, no state of the runtime, no socket
//! ```
//!
//! What is left is looked at again later; it says nothing against the resource. So is a process that was killed and
//! cannot end: nobody knows what it still does, and in quarantine it would let go of all else that it still has.

mod table;

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use bulkhead_api::isolation::IdRange;
use bulkhead_api::receipt::Evidence;

use super::sys::{self, Ipc};
use super::text;
use super::{Attached, Class, ClassError, Erased, Order};
use crate::paths::Paths;
use crate::proof::process::id_map;
use crate::tenant::cgroup;
use crate::tenant::files::LeaseDir;
use crate::tenant::name::{self, Kind};

/// User and group ids of one lease.
const IDS: u32 = 65_536;
/// Directories of the host that everybody may write to.
const SHARED: [&str; 3] = ["dev/shm", "tmp", "var/tmp"];
/// Files that are looked at in one of them: enough for any host that works.
const MOST_FILES: usize = 200_000;

/// The class.
#[derive(Debug, Clone)]
pub struct Instance {
    paths: Paths,
}

impl Instance {
    /// On that host.
    #[must_use]
    pub const fn new(paths: Paths) -> Self {
        Self { paths }
    }
}

impl Class for Instance {
    fn observe(&self, _: &Order) -> Result<Attached, ClassError> {
        // The engine starts and watches it.
        Ok(Attached::Yes)
    }

    fn attach(&self, _: &Order) -> Result<(), ClassError> {
        Ok(())
    }

    fn erase(&self, order: &Order) -> Result<Erased, ClassError> {
        let look = Look {
            paths: &self.paths,
            order,
            range: IdRange { first: order.first_id, count: IDS },
        };
        let mut erased = Erased { methods: vec!["removeInstance".to_owned()], ..Erased::default() };
        // Processes first: one that lives could make anew what is removed below.
        look.processes(&mut erased)?;
        look.mounts(&mut erased)?;
        look.ipc(&mut erased)?;
        look.queues(&mut erased)?;
        look.temporary(&mut erased)?;
        look.keys(&mut erased)?;
        look.files(&mut erased)?;
        Ok(erased)
    }
}

struct Look<'a> {
    paths: &'a Paths,
    order: &'a Order,
    range: IdRange,
}

impl Look<'_> {
    fn left(&self, why: String) -> ClassError {
        let doing = format!("see that nothing of lease {} is left", self.order.lease);
        ClassError::Refused { doing, why }
    }

    /// One more line of evidence, or the error that says what is left.
    fn none(&self, erased: &mut Erased, what: String, left: &[String]) -> Result<(), ClassError> {
        if let Some(first) = left.first() {
            let more = match left.len() - 1 {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            return Err(self.left(format!("{what}: {first}{more}")));
        }
        erased.evidence.push(Evidence { what, found: "none".to_owned() });
        Ok(())
    }

    fn in_root(&self, below: &str) -> PathBuf {
        self.paths.root.join(below)
    }

    fn processes(&self, erased: &mut Erased) -> Result<(), ClassError> {
        let proc = self.in_root("proc");
        let (mut seen, mut left) = (0_u64, Vec::new());
        for name in text::names(&proc)? {
            if name.parse::<u32>().is_err() {
                continue;
            }
            // What ended meanwhile is not left.
            let Some(status) = alive(text::read_if_there(&proc.join(&name).join("status")))? else {
                continue;
            };
            seen += 1;
            let process = table::process(&status);
            if let Some(id) = process.ids.iter().find(|id| self.range.contains(**id)) {
                let asleep = if process.unkillable {
                    ", was killed and sleeps in the kernel where no signal reaches it: reboot the host if it stays"
                } else {
                    ""
                };
                left.push(format!("process {name} has id {id}{asleep}"));
            }
            for file in ["uid_map", "gid_map"] {
                let path = proc.join(&name).join(file);
                let Some(map) = alive(text::read_if_there(&path))? else { continue };
                let map = id_map(&map).ok_or_else(|| text::odd(&path, "an id map", &map))?;
                if table::maps_into(&map, self.range) {
                    left.push(format!(
                        "process {name} is in a user namespace with the lease's ids"
                    ));
                }
            }
        }
        if seen == 0 {
            return Err(self.left(format!("{} shows no process at all", proc.display())));
        }
        self.none(erased, format!("processes with ids {} among all of /proc", self.range), &left)
    }

    fn mounts(&self, erased: &mut Erased) -> Result<(), ClassError> {
        let path = self.in_root("proc/self/mountinfo");
        let table = fs::read(&path).map_err(text::failed("read", &path))?;
        let dir = LeaseDir::new(self.paths, &self.order.lease);
        let below = dir.mounts(&table);
        let below: Vec<String> = below.iter().map(|point| point.display().to_string()).collect();
        self.none(erased, format!("mounts below {}", dir.path().display()), &below)?;
        let (stem, text) = (name::stem(&self.order.lease), String::from_utf8_lossy(&table));
        let named = |point: &str| point.split('/').any(|part| names(part, &stem));
        let held = table::mounts(&text).into_iter();
        let held = held.filter(|mount| mount.kind == "nsfs" && named(mount.point));
        let held: Vec<String> = held.map(|mount| mount.point.to_owned()).collect();
        self.none(erased, "namespace files of the lease".to_owned(), &held)
    }

    fn ipc(&self, erased: &mut Erased) -> Result<(), ClassError> {
        let kinds =
            [(Ipc::Shm, "shm", "shmid"), (Ipc::Msg, "msg", "msqid"), (Ipc::Sem, "sem", "semid")];
        for (kind, file, number) in kinds {
            let path = self.in_root("proc/sysvipc").join(file);
            let list = || -> Result<Vec<i32>, ClassError> {
                let text = text::read(&path)?;
                let objects = table::ipc(&text, number);
                let objects = objects.ok_or_else(|| text::odd(&path, "a table", &text))?;
                let ours = |id: &u32| self.range.contains(*id);
                let objects = objects.into_iter().filter(|object| object.owners.iter().any(ours));
                Ok(objects.map(|object| object.id).collect())
            };
            for id in list()? {
                sys::remove_ipc(kind, id)
                    .map_err(|error| text::failed("remove an object of", &path)(error.into()))?;
                did(erased, "removeIpcObjects");
            }
            let left: Vec<String> = list()?.iter().map(|id| format!("{number} {id}")).collect();
            self.none(erased, format!("System V objects in {}", path.display()), &left)?;
        }
        Ok(())
    }

    fn queues(&self, erased: &mut Erased) -> Result<(), ClassError> {
        let table = text::read(&self.in_root("proc/self/mountinfo"))?;
        let mounted = table::mounts(&table).iter().any(|mount| mount.kind == "mqueue");
        if !mounted {
            let why = "no file system of POSIX message queues is mounted to look into: start dev-mqueue.mount";
            return Err(self.left(why.to_owned()));
        }
        self.sweep(erased, "dev/mqueue", "removeMessageQueues")
    }

    fn temporary(&self, erased: &mut Erased) -> Result<(), ClassError> {
        SHARED.iter().try_for_each(|dir| self.sweep(erased, dir, "removeTemporaryFiles"))
    }

    /// Removes what the lease's ids own below a directory, and looks again.
    fn sweep(&self, erased: &mut Erased, below: &str, method: &str) -> Result<(), ClassError> {
        let dir = self.in_root(below);
        for path in self.owned(&dir)? {
            let removed = match fs::symlink_metadata(&path) {
                Ok(data) if data.is_dir() => fs::remove_dir_all(&path),
                Ok(_) => fs::remove_file(&path),
                Err(error) => Err(error),
            };
            match removed {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(text::failed("remove", &path)(error));
                }
                _ => did(erased, method),
            }
        }
        let left = self.owned(&dir)?;
        let left: Vec<String> = left.iter().map(|path| path.display().to_string()).collect();
        self.none(erased, format!("files with ids {} in {}", self.range, dir.display()), &left)
    }

    /// Files below a directory that one of the lease's ids owns; what is below such a directory goes with it.
    fn owned(&self, top: &Path) -> Result<Vec<PathBuf>, ClassError> {
        let (mut found, mut todo, mut seen) = (Vec::new(), vec![top.to_owned()], 0_usize);
        while let Some(dir) = todo.pop() {
            let entries = match fs::read_dir(&dir) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                entries => entries.map_err(text::failed("list", &dir))?,
            };
            for entry in entries {
                let entry = entry.map_err(text::failed("list", &dir))?;
                let Ok(data) = entry.metadata() else { continue };
                seen += 1;
                if seen > MOST_FILES {
                    return Err(
                        self.left(format!("{} has too many files to look at", top.display()))
                    );
                }
                if self.range.contains(data.uid()) || self.range.contains(data.gid()) {
                    found.push(entry.path());
                } else if data.is_dir() {
                    todo.push(entry.path());
                }
            }
        }
        Ok(found)
    }

    fn keys(&self, erased: &mut Erased) -> Result<(), ClassError> {
        let path = self.in_root("proc/key-users");
        let holders = || -> Result<BTreeSet<u32>, ClassError> {
            let text = text::read(&path)?;
            let users = table::key_users(&text);
            let users = users.ok_or_else(|| text::odd(&path, "a table of users", &text))?;
            let ours = |(user, keys): &(u32, u64)| self.range.contains(*user) && *keys > 0;
            Ok(users.into_iter().filter(ours).map(|(user, _)| user).collect())
        };
        let users = holders()?;
        for user in &users {
            // Collected by the kernel in the background: the next look finds none.
            sys::invalidate_keyrings(*user).map_err(|error| {
                self.left(format!("invalidate the keyrings of user {user}: {error}"))
            })?;
            did(erased, "invalidateKeyrings");
        }
        let left: Vec<String> = holders()?.iter().map(|user| format!("user {user}")).collect();
        self.none(erased, "kernel keys of the lease's users".to_owned(), &left)
    }

    fn files(&self, erased: &mut Erased) -> Result<(), ClassError> {
        let unit = name::unit(&self.order.lease, Kind::Slice);
        let group = cgroup::tenants(&self.paths.root).join(&unit);
        let dir = LeaseDir::new(self.paths, &self.order.lease);
        for (what, path) in [("control group", group.as_path()), ("directory", dir.path())] {
            let there = path.try_exists().map_err(text::failed("look at", path))?;
            let left = there.then(|| path.display().to_string());
            self.none(erased, format!("{what} of the lease"), left.as_slice())?;
        }
        let stem = name::stem(&self.order.lease);
        let mut left = Vec::new();
        for name in text::names(&self.paths.run)? {
            let path = self.paths.run.join(&name);
            if names(&name, &stem) {
                left.push(path.display().to_string());
            } else if path.is_dir() {
                let inside = text::names(&path)?.into_iter().filter(|name| names(name, &stem));
                left.extend(inside.map(|name| path.join(name).display().to_string()));
            }
        }
        self.none(erased, format!("state and sockets in {}", self.paths.run.display()), &left)
    }
}

/// A file name that is the lease's: its stem, alone or with something after a dot, which no name of a lease has.
fn names(file: &str, stem: &str) -> bool {
    file.strip_prefix(stem).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// A process that ends while it is read.
fn alive(read: Result<Option<String>, ClassError>) -> Result<Option<String>, ClassError> {
    match read {
        Err(ClassError::Files { source, .. }) if source.raw_os_error() == Some(libc::ESRCH) => {
            Ok(None)
        }
        other => other,
    }
}

fn did(erased: &mut Erased, method: &str) {
    if erased.methods.iter().all(|known| known != method) {
        erased.methods.push(method.to_owned());
    }
}

#[cfg(test)]
mod tests;
