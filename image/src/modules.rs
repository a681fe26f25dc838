//! Which kernel modules the initrd holds and when stage 1 loads them, from depmod's tables.

use std::collections::BTreeMap;

use bulkhead_api::boot::{StageOneDriver, StageOneModules};

use crate::files;

/// A module list or depmod's tables cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModulesError {
    /// A line that is not `always NAME` or `driver NAME`.
    #[error("modules-initrd.list: expected `always NAME` or `driver NAME`, found `{0}`")]
    Line(String),
    /// The kernel has no such module.
    #[error("the kernel has no module {0}")]
    Unknown(String),
}

/// depmod's tables: `modules.dep`, `modules.builtin` and `modules.alias`.
#[derive(Debug)]
pub struct Tables {
    /// Path by module name.
    paths: BTreeMap<String, String>,
    /// Paths that must be loaded before, by path, the last one first.
    needs: BTreeMap<String, Vec<String>>,
    /// (alias, module name).
    aliases: Vec<(String, String)>,
    built_in: Vec<String>,
}

/// Selected modules: what stage 1 is told, and the file of each (name, path below the release's folder).
#[derive(Debug, PartialEq, Eq)]
pub struct Selection {
    /// What stage 1 is told.
    pub plan: StageOneModules,
    /// Files by module name.
    pub files: BTreeMap<String, String>,
}

impl Tables {
    /// Reads depmod's tables.
    #[must_use]
    pub fn parse(dep: &str, built_in: &str, alias: &str) -> Self {
        let (mut paths, mut needs) = (BTreeMap::new(), BTreeMap::new());
        for line in dep.lines() {
            let Some((path, list)) = line.split_once(':') else { continue };
            paths.insert(module_name(path), path.to_owned());
            let list = list.split_whitespace().map(str::to_owned).collect();
            needs.insert(path.to_owned(), list);
        }
        let aliases = alias.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            let (kind, alias, module) = (words.next()?, words.next()?, words.next()?);
            (kind == "alias").then(|| (alias.to_owned(), module.replace('-', "_")))
        });
        let built_in = built_in.lines().map(module_name).collect();
        Self { paths, needs, aliases: aliases.collect(), built_in }
    }

    /// Selects the modules of a list file.
    ///
    /// # Errors
    /// A bad line, or a module that this kernel does not have.
    pub fn select(&self, list: &str) -> Result<Selection, ModulesError> {
        let mut selection = Selection {
            plan: StageOneModules { always: vec![], drivers: vec![] },
            files: BTreeMap::new(),
        };
        for line in files::entries(list) {
            let (kind, name) =
                line.split_once(' ').ok_or_else(|| ModulesError::Line(line.to_owned()))?;
            let load = self.load_order(&name.replace('-', "_"), &mut selection.files)?;
            match kind {
                "always" => {
                    let new = load.into_iter().filter(|m| !selection.plan.always.contains(m));
                    let new: Vec<_> = new.collect();
                    selection.plan.always.extend(new);
                }
                "driver" => selection.plan.drivers.push(StageOneDriver {
                    aliases: self.device_aliases(&name.replace('-', "_")),
                    load,
                }),
                _ => return Err(ModulesError::Line(line.to_owned())),
            }
        }
        Ok(selection)
    }

    /// `name` behind everything that it needs; empty if it is built in. Adds the files to `files`.
    fn load_order(
        &self,
        name: &str,
        files: &mut BTreeMap<String, String>,
    ) -> Result<Vec<String>, ModulesError> {
        if self.built_in.iter().any(|built_in| built_in == name) {
            return Ok(Vec::new());
        }
        let path = self.paths.get(name).ok_or_else(|| ModulesError::Unknown(name.to_owned()))?;
        let needs = self.needs.get(path).into_iter().flatten().rev();
        let mut order = Vec::new();
        for path in needs.chain([path]) {
            files.insert(module_name(path), path.clone());
            order.push(module_name(path));
        }
        Ok(order)
    }

    fn device_aliases(&self, name: &str) -> Vec<String> {
        let is_device = |alias: &str| alias.starts_with("pci:") || alias.starts_with("virtio:");
        let of_module =
            self.aliases.iter().filter(|(alias, module)| module == name && is_device(alias));
        of_module.map(|(alias, _)| alias.clone()).collect()
    }
}

/// `kernel/drivers/net/virtio_net.ko.xz` is module `virtio_net`; `-` and `_` are the same in module names.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables() -> Tables {
        Tables::parse(
            "kernel/net/virtio_net.ko.xz: kernel/net/net_failover.ko.xz kernel/net/failover.ko.xz\n\
             kernel/net/net_failover.ko.xz: kernel/net/failover.ko.xz\nkernel/net/failover.ko.xz:\n\
             kernel/arch/sha256-ssse3.ko.xz:\n",
            "kernel/net/core.ko\n",
            "# head\nalias virtio:d00000001v* virtio_net\nalias fs-erofs erofs\nalias pci:v1d* other\n",
        )
    }

    #[test]
    fn modules_come_after_what_they_need_and_only_once() {
        let list = "always sha256-ssse3\nalways core\nalways net_failover\nalways failover\ndriver virtio_net\n";
        let selection = tables().select(list).unwrap();
        assert_eq!(selection.plan.always, ["sha256_ssse3", "failover", "net_failover"]);
        let driver = &selection.plan.drivers[0];
        assert_eq!(driver.load, ["failover", "net_failover", "virtio_net"]);
        assert_eq!(driver.aliases, ["virtio:d00000001v*"]);
        assert_eq!(selection.files["sha256_ssse3"], "kernel/arch/sha256-ssse3.ko.xz");
    }

    #[test]
    fn unknown_modules_and_words_are_refused() {
        assert_eq!(tables().select("always nix"), Err(ModulesError::Unknown("nix".into())));
        assert_eq!(tables().select("often core"), Err(ModulesError::Line("often core".into())));
        assert_eq!(tables().select("core"), Err(ModulesError::Line("core".into())));
    }
}
