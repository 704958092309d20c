//! [`Dial`]: a connection to a storage node, the short way where it runs on this machine, else over TCP.
//!
//! Decided anew for each connection: a node may move, start or stop in between.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use cairn_proto::{Node, NodeId, local_socket};
use http::Uri;
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use rustix::{
    net::sockopt::{set_socket_send_buffer_size, set_socket_send_buffer_size_force},
    process::geteuid,
};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::either::Either;
use tower::{BoxError, Service, ServiceExt as _};

/// Room for what the other side has not taken yet, in bytes. With the usual 208 KiB the two take turns at every
/// few chunks.
const SEND_BUFFER: usize = 2 * 1024 * 1024;

/// A connection of either kind.
type Wire = TokioIo<Either<UnixStream, TcpStream>>;

/// See the head of this file.
#[derive(Clone)]
pub(crate) struct Dial {
    node: NodeId,
    port: u16,
    tcp: HttpConnector,
    near: Arc<AtomicBool>,
}

impl Dial {
    /// To each address of the node's name for at most `timeout`. `near` is kept up to date: whether the last
    /// connection is a local one.
    pub(crate) fn new(node: &Node, timeout: Duration, near: Arc<AtomicBool>) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(timeout));
        Self { node: node.id, port: node.port, tcp, near }
    }

    async fn dial(self, address: Uri) -> Result<Wire, BoxError> {
        match local_socket::connect(self.node, self.port, geteuid().as_raw()).await {
            Ok(local) => {
                self.near.store(true, Relaxed);
                widen(&local);
                return Ok(TokioIo::new(Either::Left(local)));
            }
            Err(error) => tracing::trace!(node = %self.node, %error, "not on this machine"),
        }
        self.near.store(false, Relaxed);
        let stream = self.tcp.oneshot(address).await?;
        Ok(TokioIo::new(Either::Right(stream.into_inner())))
    }
}

/// As root beyond what the system allows everybody.
fn widen(local: &UnixStream) {
    let widened = set_socket_send_buffer_size_force(local, SEND_BUFFER)
        .or_else(|_| set_socket_send_buffer_size(local, SEND_BUFFER));
    if let Err(error) = widened {
        tracing::debug!(%error, "the socket keeps its buffer");
    }
}

impl Service<Uri> for Dial {
    type Response = Wire;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Wire, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, address: Uri) -> Self::Future {
        Box::pin(self.clone().dial(address))
    }
}
