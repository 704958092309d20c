//! [`Page`]: the metrics over HTTP, on a TCP address or a Unix socket, beside pages that a server adds.
//!
//! Bounds: so many connections, each for so long, one request in each, a head of bounded size and no
//! body; so many answers are made at once, on threads that may block, and one that is not made in time
//! is given up. Whoever asks can slow down nobody but others who ask.

use std::{
    convert::Infallible,
    fmt, fs, io,
    net::{SocketAddr, ToSocketAddrs},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::Semaphore,
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};

use super::{classic, registry::Registry};

/// Connections that are served at once; more wait to be accepted.
const CONNECTIONS: usize = 16;
/// Answers that are made at once.
const ANSWERS: usize = 2;
/// How long an answer may take to be made.
const MAKING: Duration = Duration::from_secs(5);
/// How long a request's head may take to arrive.
const HEAD: Duration = Duration::from_secs(5);
/// How long a connection may last.
const CONNECTION: Duration = Duration::from_secs(20);
/// Bytes of a request's head, and of what is buffered of an answer.
const BUFFER: usize = 16 * 1024;
/// Pause after a connection could not be accepted: the process has no file descriptor left.
const BREATH: Duration = Duration::from_millis(100);

const OPEN_METRICS: &str = "application/openmetrics-text";
const OPEN_METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// Why there is no page; a sentence with the remedy.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// The address.
    #[error(
        "cannot serve metrics on {0}: {1}. Choose another --metrics-listen, or stop what uses it"
    )]
    Listen(SocketAddr, #[source] io::Error),
    /// The socket.
    #[error("cannot make the socket {}: {error}", .path.display())]
    Socket {
        /// Its path.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// What a page shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Its `Content-Type`.
    pub kind: &'static str,
    /// The text.
    pub body: String,
}

type Handler = Box<dyn Fn(&str) -> Content + Send + Sync>;

/// The pages of one server.
pub struct Site {
    registry: Registry,
    others: Vec<(&'static str, Handler)>,
    answers: Arc<Semaphore>,
}

impl Site {
    /// `/metrics`, from `registry`.
    pub fn new(registry: Registry) -> Self {
        Self { registry, others: Vec::new(), answers: Arc::new(Semaphore::new(ANSWERS)) }
    }

    /// Adds the page `path`. `make` gets the query and runs on a thread that may block briefly.
    #[must_use]
    pub fn with(
        mut self,
        path: &'static str,
        make: impl Fn(&str) -> Content + Send + Sync + 'static,
    ) -> Self {
        self.others.push((path, Box::new(make)));
        self
    }

    fn content(&self, path: &str, query: &str, open_metrics: bool) -> Option<Content> {
        if path != "/metrics" {
            let (_, make) = self.others.iter().find(|(known, _)| *known == path)?;
            return Some(make(query));
        }
        Some(if open_metrics {
            Content { kind: OPEN_METRICS_TYPE, body: self.registry.open_metrics() }
        } else {
            Content { kind: classic::CONTENT_TYPE, body: self.registry.classic() }
        })
    }

    fn paths(&self) -> String {
        let others = self.others.iter().map(|(path, _)| *path);
        ["/metrics"].into_iter().chain(others).collect::<Vec<_>>().join(", ")
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let why = format!("{} is not served here, only GET and HEAD are\n", request.method());
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, why);
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        let path = request.uri().path().to_owned();
        let query = request.uri().query().unwrap_or_default().to_owned();
        let accept = request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok());
        let open_metrics = accept.is_some_and(|accept| accept.contains(OPEN_METRICS));
        let missing = format!("there is nothing at this path; what is here: {}\n", self.paths());
        let slots = Arc::clone(&self.answers);
        let made = timeout(MAKING, async move {
            let slot = slots.acquire_owned().await.expect("is never closed");
            let make = move || {
                let content = self.content(&path, &query, open_metrics);
                drop(slot);
                content
            };
            tokio::task::spawn_blocking(make).await
        });
        match made.await {
            Ok(Ok(Some(content))) => respond(StatusCode::OK, content),
            Ok(Ok(None)) => plain(StatusCode::NOT_FOUND, missing),
            Ok(Err(_)) => plain(
                StatusCode::INTERNAL_SERVER_ERROR,
                "this page could not be made; the server's log says why\n".to_owned(),
            ),
            Err(_) => plain(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("this page was not made within {} s: try again\n", MAKING.as_secs()),
            ),
        }
    }
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Site({})", self.paths())
    }
}

fn plain(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    respond(status, Content { kind: TEXT, body })
}

fn respond(status: StatusCode, content: Content) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(content.body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content.kind));
    response
}

/// An address that is taken for a page: early, so that a server that cannot have it does nothing else.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
}

impl Bound {
    /// Takes `address`, if there is one; port 0 picks one.
    ///
    /// # Errors
    /// When the address is taken or not ours.
    pub async fn to(address: Option<SocketAddr>) -> Result<Option<Self>, PageError> {
        let Some(address) = address else { return Ok(None) };
        let wrong = |error| PageError::Listen(address, error);
        let listener = TcpListener::bind(address).await.map_err(wrong)?;
        let address = listener.local_addr().map_err(wrong)?;
        Ok(Some(Self { listener, address }))
    }

    /// Serves.
    pub fn serve(self, site: Site) -> Page {
        let Self { listener, address } = self;
        tracing::info!(%address, "serving metrics");
        let serving = tokio::spawn(serve(Listener::Tcp(listener), Arc::new(site)));
        Page { address: Some(address), socket: None, serving }
    }
}

/// A page that is served until it is dropped.
#[derive(Debug)]
pub struct Page {
    address: Option<SocketAddr>,
    socket: Option<PathBuf>,
    serving: JoinHandle<()>,
}

impl Page {
    /// Serves on a Unix socket in a directory that only this user can enter; both are made, and a
    /// socket that an earlier process left is replaced. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When that is not possible.
    pub fn unix(path: &Path, site: Site) -> Result<Self, PageError> {
        let wrong = |error| PageError::Socket { path: path.to_owned(), error };
        let listener = bind(path).map_err(wrong)?;
        tracing::debug!(path = %path.display(), "serving metrics");
        let serving = tokio::spawn(serve(Listener::Unix(listener), Arc::new(site)));
        Ok(Self { address: None, socket: Some(path.to_owned()), serving })
    }

    /// Where it listens, when that is a TCP address.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Ends it; what the site refers to is free when this returns.
    pub async fn stop(mut self) {
        self.serving.abort();
        // It has no way to fail but a panic, which is in the log.
        let _ = (&mut self.serving).await;
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.serving.abort();
        if let Some(path) = &self.socket {
            let _ = fs::remove_file(path);
            // Others may have sockets there; then it stays.
            let _ = path.parent().map(fs::remove_dir);
        }
    }
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
    let dir = path.parent().unwrap_or(Path::new("/"));
    let mut made = fs::DirBuilder::new();
    // Another process may remove the directory after its last socket between these steps.
    for _ in 0..8 {
        match made.recursive(true).mode(0o700).create(dir) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
        let there = match fs::symlink_metadata(dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            there => there?,
        };
        if !there.is_dir() || there.uid() != rustix::process::geteuid().as_raw() {
            return Err(io::Error::other("its directory belongs to somebody else"));
        }
        if there.permissions().mode() & 0o077 != 0 {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
        }
        match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        match UnixListener::bind(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            bound => return bound,
        }
    }
    Err(io::Error::other("its directory is removed again and again"))
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Accepts one connection and begins to serve it.
    async fn accept(&self, connections: &mut JoinSet<()>, site: &Arc<Site>) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                connections.spawn(connection(stream, Arc::clone(site)));
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                connections.spawn(connection(stream, Arc::clone(site)));
            }
        }
        Ok(())
    }
}

async fn serve(listener: Listener, site: Arc<Site>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= CONNECTIONS {
            connections.join_next().await;
        }
        if let Err(error) = listener.accept(&mut connections, &site).await {
            tracing::debug!(%error, "cannot accept a connection for metrics");
            sleep(BREATH).await;
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn connection<S>(stream: S, site: Arc<Site>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let answer = service_fn(move |request| {
        let site = Arc::clone(&site);
        async move { Ok::<_, Infallible>(site.answer(request).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(BUFFER)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), answer);
    match timeout(CONNECTION, serving).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection for metrics broke"),
        Err(_) => tracing::debug!("a connection for metrics took too long"),
    }
}

/// An address to listen on as people write it: HOST:PORT. For the command line.
///
/// # Errors
/// A sentence.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    let wrong = |why: String| format!("{why}; give HOST:PORT, for example 127.0.0.1:9500");
    let mut found = text.to_socket_addrs().map_err(|e| wrong(e.to_string()))?;
    found.next().ok_or_else(|| wrong("this name has no address".into()))
}

#[cfg(test)]
mod tests;
