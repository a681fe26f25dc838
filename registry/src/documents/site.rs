//! Documents of sites.

use bulkhead_api::condition::{Condition, Truth};
use bulkhead_api::document::{ApiVersion, Site, SiteMetadata};
use bulkhead_api::site::SiteStatus;

use super::Picture;
use crate::store::sites::SiteRow;

impl Picture {
    /// The document of a site.
    #[must_use]
    pub fn site(&self, row: &SiteRow) -> Site {
        let live = self.live.sites.get(&row.name);
        let connected = live.is_some_and(|live| live.connected);
        let last_seen = row.last_seen.max(live.map(|live| live.seen));
        let enrolled = row.enrolled_key.is_some();
        let status = SiteStatus {
            connected,
            last_seen,
            conditions: vec![
                Condition {
                    kind: "Enrolled".to_owned(),
                    status: if enrolled { Truth::True } else { Truth::False },
                    reason: if enrolled { "Enrolled" } else { "WaitingForTicket" }.to_owned(),
                    message: if enrolled {
                        String::new()
                    } else {
                        format!("site {} has not joined with a join ticket yet", row.name)
                    },
                    owner: if enrolled { "registry" } else { "operator" }.to_owned(),
                    since: row.created_at,
                    next_retry: None,
                },
                Condition {
                    kind: "Connected".to_owned(),
                    status: if connected { Truth::True } else { Truth::False },
                    reason: if connected { "StreamOpen" } else { "NoStream" }.to_owned(),
                    message: String::new(),
                    owner: "site".to_owned(),
                    since: last_seen.unwrap_or(row.created_at),
                    next_retry: None,
                },
            ],
        };
        Site {
            api_version: ApiVersion::V1,
            metadata: SiteMetadata { name: row.name.clone() },
            spec: row.spec.clone(),
            status: Some(status),
        }
    }
}
