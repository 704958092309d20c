//! A call over hand-made bodies, on the connection that the generated client uses too.

use std::future::poll_fn;

use bytes::Bytes;
use futures_core::Stream;
use http::{HeaderValue, Method, Request, Version, header};
use prost::Message;
use tonic::{Code, Status, body::Body, client::GrpcService, codegen::StdError};

use super::{Receiving, Sending, Weighty};

/// What every gRPC message says of itself.
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// A successful answer with `body`.
pub fn answer(body: Body) -> http::Response<Body> {
    let mut response = http::Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, GRPC);
    response
}

/// Calls `path` with a stream of messages. Returns when the other side has begun to answer.
///
/// # Errors
/// What the transport or the other side says.
pub async fn call<S, M, R>(
    service: &mut S,
    path: &'static str,
    messages: impl Stream<Item = Result<M, Status>> + Send + 'static,
) -> Result<Receiving<R>, Status>
where
    S: GrpcService<Body>,
    S::ResponseBody: http_body::Body<Data = Bytes> + Send + 'static,
    <S::ResponseBody as http_body::Body>::Error: Into<StdError>,
    M: Weighty + 'static,
    R: Message + Default,
{
    let mut request = Request::new(Body::new(Sending::request(messages)));
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = http::Uri::from_static(path);
    request.headers_mut().insert(header::TE, HeaderValue::from_static("trailers"));
    request.headers_mut().insert(header::CONTENT_TYPE, GRPC);
    let failed = |e: S::Error| Status::from_error(e.into());
    poll_fn(|cx| service.poll_ready(cx)).await.map_err(failed)?;
    let response = service.call(request).await.map_err(failed)?;
    match Status::from_header_map(response.headers()) {
        Some(status) if status.code() != Code::Ok => Err(status),
        None if !response.status().is_success() => {
            Err(Status::unknown(format!("it answers with HTTP status {}", response.status())))
        }
        Some(_) | None => Ok(Receiving::new(Body::new(response.into_body()))),
    }
}
