//! A site that lies: it has the real one's certificate and hands out whatever it is told.

use std::net::TcpListener;
use std::path::Path;
use std::pin::Pin;

use anyhow::{Context as _, Result};
use bulkhead_api::link::rpc::link_server::{Link, LinkServer};
use bulkhead_api::link::rpc::{Down, EnrolReply, EnrolRequest, Up, down};
use bulkhead_api::spec::SignedSpec;
use bulkhead_qemu_tests::net::{LabNet, SITE_ADDRESS};
use futures_util::{Stream, stream};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::server::Router;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

/// JSON of the spec to hand out; nothing yet.
type Order = Option<Vec<u8>>;

/// The site while it serves.
#[derive(Debug)]
pub(crate) struct RogueSite {
    order: watch::Sender<Order>,
    _runtime: Runtime,
}

impl RogueSite {
    /// Takes the place of the site at its address; `site` is the real one's folder, `ca` the fleet's.
    pub(crate) fn start(net: &LabNet, site: &Path, ca: &Path, host: &str) -> Result<Self> {
        let listener = net.listen(SITE_ADDRESS, 8443)?;
        listener.set_nonblocking(true)?;
        let read =
            |path: &Path| std::fs::read(path).with_context(|| format!("read {}", path.display()));
        let identity = site.join("identity");
        let own = Identity::from_pem(
            read(&identity.join("certificate.pem"))?,
            read(&identity.join("key.pem"))?,
        );
        let tls =
            ServerTlsConfig::new().identity(own).client_ca_root(Certificate::from_pem(read(ca)?));
        let (order, orders) = watch::channel(None);
        let link = LinkServer::new(Liar { orders, host: host.to_owned() });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .context("start tokio")?;
        let server = Server::builder().tls_config(tls)?.add_service(link);
        runtime.spawn(async {
            if let Err(error) = serve(server, listener).await {
                eprintln!("the rogue site ended: {error:#}");
            }
        });
        Ok(Self { order, _runtime: runtime })
    }

    /// Hands a spec to whoever is attached, and to whoever attaches from now on.
    pub(crate) fn hand_out(&self, signed: &SignedSpec) -> Result<()> {
        self.order.send_replace(Some(serde_json::to_vec(signed)?));
        Ok(())
    }
}

async fn serve(server: Router, listener: TcpListener) -> Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    Ok(server.serve_with_incoming(TcpListenerStream::new(listener)).await?)
}

struct Liar {
    orders: watch::Receiver<Order>,
    host: String,
}

#[tonic::async_trait]
impl Link for Liar {
    async fn enrol(&self, _: Request<EnrolRequest>) -> Result<Response<EnrolReply>, Status> {
        Err(Status::unavailable("not here"))
    }

    type AttachStream = Pin<Box<dyn Stream<Item = Result<Down, Status>> + Send>>;

    async fn attach(
        &self,
        request: Request<Streaming<Up>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let mut orders = self.orders.clone();
        orders.mark_changed();
        // The host's reports are left unread; its stream must stay open, though.
        let state = (orders, request.into_inner(), self.host.clone());
        let specs = stream::unfold(state, |(mut orders, up, host)| async move {
            loop {
                orders.changed().await.ok()?;
                let order = orders.borrow_and_update().clone();
                if let Some(json) = order {
                    let body = Some(down::Body::SignedSpecJson(json.into()));
                    let down = Down { host: host.clone(), body };
                    return Some((Ok(down), (orders, up, host)));
                }
            }
        });
        Ok(Response::new(Box::pin(specs)))
    }
}
