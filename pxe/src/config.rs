//! `site.json`: what an operator says about a site.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use bulkhead_api::id::SiteName;
use bulkhead_api::site::Admission;
use serde::{Deserialize, Serialize};

use crate::bindings::Pool;
use crate::machines::LoopLimits;
use crate::policy::Subnet;

/// Configuration of `bulkhead-site`. Unknown fields are refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SiteConfig {
    /// The site's name.
    pub site: SiteName,
    /// Interface that machines boot from.
    pub interface: String,
    /// This server's address on it, which clients must reach.
    pub address: Ipv4Addr,
    /// Length of the network prefix, 8..=30.
    pub prefix: u8,
    /// Addresses to give out.
    pub pool: Pool,
    /// UDP and TCP ports; absent = the well-known ones.
    #[serde(default)]
    pub ports: Ports,
    /// Where bindings, tickets, cached specs and the site's identity are kept (0700).
    pub state_dir: PathBuf,
    /// Boot artefacts: `uki.efi`, `image.json`, `root.img`, `sysext/{name}.img`.
    pub image_dir: PathBuf,
    /// Trust anchors of the fleet: `ca.pem`, `spec-keys.json`.
    pub trust_dir: PathBuf,
    /// OCI layouts, one folder a name; absent = `{stateDir}/oci`.
    #[serde(default)]
    pub oci_dir: Option<PathBuf>,
    /// Who may boot until the registry says otherwise; absent = nobody.
    #[serde(default)]
    pub admission: Admission,
    /// Extension layers that machines of this site are told to load.
    #[serde(default)]
    pub extensions: Vec<String>,
    /// Whether this is the only DHCP server of the network; absent = yes.
    #[serde(default = "yes")]
    pub authoritative: bool,
    /// When a machine that boots in a circle is held.
    #[serde(default)]
    pub boot_loop: LoopLimits,
    /// The registry; absent = a site on its own, which boots machines but enrols none.
    #[serde(default)]
    pub registry: Option<RegistryConfig>,
}

/// How to reach the registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RegistryConfig {
    /// `https://name-or-address:port`.
    pub url: String,
    /// File with the join ticket of this site; needed until the site has its certificate.
    pub join_ticket_file: PathBuf,
}

/// Ports served. 0 = any free one, which [`crate::run::Bound`] tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Ports {
    /// DHCP, 67.
    pub dhcp: u16,
    /// PXE boot server, 4011.
    pub boot_server: u16,
    /// TFTP, 69.
    pub tftp: u16,
    /// Plain HTTP, 80.
    pub http: u16,
    /// Link and OCI images over TLS, 8443.
    pub tls: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Self { dhcp: 67, boot_server: 4011, tftp: 69, http: 80, tls: 8443 }
    }
}

fn yes() -> bool {
    true
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not JSON of this form.
    #[error("{}: field {field}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Path of the field, `.` for the whole.
        field: String,
        /// Why, with line and column.
        source: serde_json::Error,
    },
    /// A value that contradicts another or its range.
    #[error("field {field}: {problem}")]
    Field {
        /// Path of the field.
        field: &'static str,
        /// What is wrong and what was expected.
        problem: String,
    },
}

impl SiteConfig {
    /// Reads and checks `path`.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let mut json = serde_json::Deserializer::from_str(&text);
        let config: Self = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let field = error.path().to_string();
            ConfigError::Parse { path: path.to_owned(), field, source: error.into_inner() }
        })?;
        json.end().map_err(|source| ConfigError::Parse {
            path: path.to_owned(),
            field: ".".to_owned(),
            source,
        })?;
        config.check()?;
        Ok(config)
    }

    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// [`ConfigError::Field`].
    pub fn check(&self) -> Result<(), ConfigError> {
        let bad = |field, problem: String| Err(ConfigError::Field { field, problem });
        if self.interface.is_empty() || self.interface.len() > 15 {
            return bad("interface", format!("{:?}: expected 1 to 15 bytes", self.interface));
        }
        if !(8..=30).contains(&self.prefix) {
            return bad("prefix", format!("{}: expected 8 to 30", self.prefix));
        }
        let subnet = self.subnet();
        for (field, address) in [("pool.first", self.pool.first), ("pool.last", self.pool.last)] {
            if !subnet.contains(address) {
                let problem = format!("{address} is outside {}/{}", self.address, self.prefix);
                return bad(field, problem);
            }
        }
        let (first, last) = (self.pool.first, self.pool.last);
        if first > last {
            return bad("pool", format!("first {first} is above last {last}"));
        }
        if self.pool.contains(self.address) {
            return bad(
                "pool",
                format!("{first} to {last} holds the server's own {}", self.address),
            );
        }
        let network = subnet.mask().to_bits() & self.address.to_bits();
        let broadcast = network | !subnet.mask().to_bits();
        if first.to_bits() == network || last.to_bits() == broadcast {
            return bad("pool", "holds the network or broadcast address".to_owned());
        }
        let name_of_layer = |name: &String| !name.is_empty() && !name.contains(['/', '.']);
        if let Some(name) = self.extensions.iter().find(|name| !name_of_layer(name)) {
            return bad("extensions", format!("{name:?}: expected the name of a layer"));
        }
        if let Some(registry) = &self.registry
            && !registry.url.starts_with("https://")
        {
            return bad("registry.url", format!("{:?}: expected https://…", registry.url));
        }
        Ok(())
    }

    /// The site network.
    #[must_use]
    pub fn subnet(&self) -> Subnet {
        Subnet { address: self.address, prefix: self.prefix }
    }

    /// Where OCI layouts are.
    #[must_use]
    pub fn oci_dir(&self) -> PathBuf {
        self.oci_dir.clone().unwrap_or_else(|| self.state_dir.join("oci"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> serde_json::Value {
        serde_json::json!({
            "site": "lab", "interface": "br0", "address": "10.9.0.1", "prefix": 24,
            "pool": { "first": "10.9.0.100", "last": "10.9.0.199" },
            "stateDir": "state", "imageDir": "image", "trustDir": "trust",
            "admission": { "mode": "auto" }
        })
    }

    fn read(value: &serde_json::Value) -> Result<SiteConfig, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("site.json");
        std::fs::write(&path, value.to_string()).unwrap();
        SiteConfig::read(&path)
    }

    #[test]
    fn a_short_configuration_has_the_well_known_ports() {
        let config = read(&example()).unwrap();
        assert_eq!(
            config.ports,
            Ports { dhcp: 67, boot_server: 4011, tftp: 69, http: 80, tls: 8443 }
        );
        assert!(config.authoritative);
        assert_eq!(config.oci_dir(), Path::new("state/oci"));
    }

    #[test]
    fn every_mistake_names_its_field() {
        let cases: [(&str, serde_json::Value, &str); 9] = [
            ("/prefix", 31.into(), "prefix"),
            ("/pool/first", "10.8.0.1".into(), "pool.first"),
            ("/pool/last", "10.9.0.50".into(), "pool"),
            ("/pool/first", "10.9.0.0".into(), "pool"),
            ("/address", "10.9.0.150".into(), "own 10.9.0.150"),
            ("/interface", "".into(), "interface"),
            ("/site", "Lab".into(), "site"),
            ("/admission/mode", "everybody".into(), "admission.mode"),
            ("/pool/last", "10.9.0".into(), "pool.last"),
        ];
        for (pointer, value, expected) in cases {
            let mut config = example();
            *config.pointer_mut(pointer).unwrap() = value;
            let error = read(&config).unwrap_err();
            let text = bulkhead_api::chain::Chain(&error).to_string();
            assert!(text.contains(expected), "{pointer}: {text}");
        }
        let mut config = example();
        config["pol"] = serde_json::json!({});
        let text = bulkhead_api::chain::Chain(&read(&config).unwrap_err()).to_string();
        assert!(text.contains("unknown field `pol`"), "{text}");
    }
}
