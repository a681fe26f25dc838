//! The site spec that the registry sent last, in `{state}/site-spec.json`.

use std::path::{Path, PathBuf};

use bulkhead_api::site::{Admission, SiteSpec};
use tracing::warn;

use crate::store::{StoreError, read_if_there, replace};

/// What the site was told.
#[derive(Debug)]
pub(super) struct Settings {
    path: PathBuf,
    spec: Option<SiteSpec>,
}

impl Settings {
    /// What is kept below `state_dir`. A file that cannot be understood counts as none: the
    /// configured admission holds until the registry sends it again.
    pub(super) fn open(state_dir: &Path) -> Result<Self, StoreError> {
        let path = state_dir.join("site-spec.json");
        let spec = read_if_there(&path)?.and_then(|bytes| {
            serde_json::from_slice(&bytes)
                .inspect_err(|error| warn!(%error, "kept site spec ignored"))
                .ok()
        });
        Ok(Self { path, spec })
    }

    /// Who may boot.
    pub(super) fn admission(&self) -> Option<Admission> {
        self.spec.as_ref().map(|spec| spec.admission.clone())
    }

    /// Keeps a new spec. It is remembered in memory even when the disk refuses.
    pub(super) fn keep(&mut self, spec: SiteSpec) -> Result<(), StoreError> {
        let json = |source| StoreError::Body { path: self.path.clone(), source };
        let bytes = serde_json::to_vec(&spec).map_err(json)?;
        self.spec = Some(spec);
        replace(&self.path, &bytes)
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_api::site::AdmissionMode;

    use super::*;

    #[test]
    fn a_spec_survives_a_restart_and_a_damaged_file_counts_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = Settings::open(dir.path()).unwrap();
        assert_eq!(settings.admission(), None);
        let auto = Admission { mode: AdmissionMode::Auto, machines: Vec::new() };
        settings.keep(SiteSpec { admission: auto.clone(), ..SiteSpec::default() }).unwrap();
        assert_eq!(Settings::open(dir.path()).unwrap().admission(), Some(auto));
        std::fs::write(dir.path().join("site-spec.json"), b"{\"admission\":").unwrap();
        assert_eq!(Settings::open(dir.path()).unwrap().admission(), None);
    }
}
