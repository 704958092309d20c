//! [`Bulk`]: the streams of chunks with bodies of their own (see [`cairn_proto::bulk`]); everything else is the
//! generated service's.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use cairn_proto::{
    bulk::{self, Receiving, Sending, Weighty},
    handshake,
    pb::storage_service_server::StorageServiceServer,
};
use http::{Request, Response};
use tonic::{
    body::Body, codegen::Service, metadata::MetadataMap, server::NamedService,
    transport::server::UdsConnectInfo,
};

use super::{Caller, ChunkService, Replies, get_stream, put_stream};

/// See the module.
#[derive(Clone)]
pub struct Bulk {
    chunks: Arc<ChunkService>,
    generated: StorageServiceServer<ChunkService>,
}

impl Bulk {
    /// Serves `chunks`; messages of other calls have at most `message_max` bytes.
    pub fn new(chunks: ChunkService, message_max: usize) -> Self {
        let chunks = Arc::new(chunks);
        let generated = StorageServiceServer::from_arc(Arc::clone(&chunks))
            .max_decoding_message_size(message_max)
            .max_encoding_message_size(message_max);
        Self { chunks, generated }
    }

    fn put(&self, body: Body, _: Caller) -> Body {
        let ChunkService { store, stopping, .. } = &*self.chunks;
        answer(put_stream::open(Arc::clone(store), Receiving::new(body), stopping.clone()))
    }

    fn get(&self, body: Body, caller: Caller) -> Body {
        let ChunkService { store, stopping, .. } = &*self.chunks;
        let batches = Receiving::new(body);
        answer(get_stream::open(Arc::clone(store), batches, caller, stopping.clone()))
    }
}

fn answer<M: Weighty + 'static>(replies: Replies<M>) -> Body {
    Body::new(Sending::answer(replies))
}

impl Service<Request<Body>> for Bulk {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request<Body>>::poll_ready(&mut self.generated, cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let open = match request.uri().path() {
            bulk::PUT => Self::put,
            bulk::GET => Self::get,
            _ => return self.generated.call(request),
        };
        let (head, body) = request.into_parts();
        let near = head.extensions.get::<UdsConnectInfo>().is_some();
        let caller = if near { Caller::Near } else { Caller::Far };
        let response = match handshake::require(&MetadataMap::from_headers(head.headers)) {
            Ok(()) => bulk::answer(open(self, body, caller)),
            Err(status) => status.into_http(),
        };
        Box::pin(std::future::ready(Ok(response)))
    }
}

impl NamedService for Bulk {
    const NAME: &'static str = <StorageServiceServer<ChunkService> as NamedService>::NAME;
}
