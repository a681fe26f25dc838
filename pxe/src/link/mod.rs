//! The site's link (temporary skeleton until the next commit).

use std::sync::Arc;

use bulkhead_api::site::Admission;

use crate::config::SiteConfig;
use crate::service::Service;

/// Why.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {}

/// Link.
#[derive(Debug)]
pub struct Link;

impl Link {
    /// Binds.
    ///
    /// # Errors
    /// none
    pub async fn bind(_config: &SiteConfig) -> Result<Self, LinkError> {
        Ok(Self)
    }
    /// Port.
    #[must_use]
    pub fn port(&self) -> u16 {
        8443
    }
    /// Admission.
    #[must_use]
    pub fn admission(&self) -> Option<Admission> {
        None
    }
    /// Serves.
    pub async fn serve(&self, _service: Arc<Service>) {
        std::future::pending::<()>().await;
    }
}
