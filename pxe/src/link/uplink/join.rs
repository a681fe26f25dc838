//! The site's certificate: by the join ticket once, by the certificate itself from then on.

use bulkhead_api::link::EnrolFacts;
use bulkhead_api::link::rpc::EnrolRequest;
use bulkhead_api::link::rpc::link_client::LinkClient;
use tonic::transport::Channel;
use tracing::info;

use super::super::credentials::Current;
use super::{Uplink, UplinkError, call};

impl Uplink {
    /// Trades the join ticket for a certificate. The file is read anew at each try: an operator may
    /// have put a fresh ticket there.
    pub(super) async fn join(&self) -> Result<Current, UplinkError> {
        let path = self.registry.join_ticket_file.clone();
        let ticket = match tokio::fs::read_to_string(&path).await {
            Ok(text) => text.trim().to_owned(),
            Err(source) => return Err(UplinkError::JoinTicket { path, source }),
        };
        if ticket.is_empty() {
            return Err(UplinkError::NoJoinTicket { path });
        }
        let mut client = LinkClient::new(self.registry.connect(None).await?);
        let current = self.enrol(&mut client, ticket).await?;
        info!(site = %self.shared.site, expires = %current.expires, "site joined the fleet");
        Ok(current)
    }

    /// A new certificate for the same key, over a connection that proves the old one.
    pub(super) async fn renew(
        &self,
        client: &mut LinkClient<Channel>,
    ) -> Result<Current, UplinkError> {
        self.enrol(client, String::new()).await
    }

    async fn enrol(
        &self,
        client: &mut LinkClient<Channel>,
        ticket: String,
    ) -> Result<Current, UplinkError> {
        let facts = EnrolFacts::Site { names: self.registry.names.clone() };
        let request = EnrolRequest {
            ticket,
            csr_der: self.shared.credentials.request_der()?.into(),
            facts_json: serde_json::to_vec(&facts).map_err(UplinkError::Encode)?.into(),
        };
        let reply = call("Enrol", client.enrol(request)).await?;
        let ours = self.shared.site.as_str();
        if reply.id != ours {
            return Err(UplinkError::OtherSite { theirs: reply.id, ours: ours.to_owned() });
        }
        Ok(self.shared.credentials.accept(&reply.cert_chain_pem)?)
    }
}
