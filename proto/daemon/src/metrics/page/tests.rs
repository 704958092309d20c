//! The page, seen from the other end of a socket.

use std::os::unix::fs::PermissionsExt;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};

use super::*;

fn site() -> Site {
    Site::new(Registry::new("0")).with("/echo", |query| Content { kind: TEXT, body: query.into() })
}

async fn page() -> (Page, SocketAddr) {
    serve(site()).await
}

async fn serve(site: Site) -> (Page, SocketAddr) {
    let bound = Bound::to("127.0.0.1:0".parse().ok()).await.unwrap().unwrap();
    let page = bound.serve(site);
    let address = page.address().unwrap();
    (page, address)
}

async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, head: &str) -> String {
    stream.write_all(format!("{head}\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn tcp(address: SocketAddr, head: &str) -> String {
    ask(TcpStream::connect(address).await.unwrap(), head).await
}

#[tokio::test]
async fn every_request_has_its_answer() {
    let (page, at) = page().await;
    let metrics = tcp(at, "GET /metrics HTTP/1.1").await;
    assert!(metrics.starts_with("HTTP/1.1 200 "), "{metrics}");
    assert!(metrics.contains("content-type: text/plain; version=0.0.4"), "{metrics}");
    assert!(metrics.contains("# TYPE process_cpu_seconds_total counter\n"), "{metrics}");
    assert!(!metrics.contains("# EOF"), "{metrics}");
    let head = tcp(at, "HEAD /metrics HTTP/1.1").await;
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
    let open = "GET /metrics HTTP/1.1\r\nAccept: application/openmetrics-text;version=1.0.0,*/*";
    let open = tcp(at, open).await;
    assert!(open.contains("content-type: application/openmetrics-text; version=1.0.0"), "{open}");
    assert!(open.contains("# TYPE process_cpu_seconds counter\n"), "{open}");
    assert!(open.ends_with("# EOF\n"), "{open}");
    let echo = tcp(at, "GET /echo?a=b HTTP/1.1").await;
    assert!(echo.ends_with("\r\n\r\na=b"), "{echo}");
    let nothing = tcp(at, "GET / HTTP/1.1").await;
    assert!(nothing.starts_with("HTTP/1.1 404 "), "{nothing}");
    assert!(nothing.ends_with("what is here: /metrics, /echo\n"), "{nothing}");
    let post = tcp(at, "POST /metrics HTTP/1.1").await;
    assert!(post.starts_with("HTTP/1.1 405 ") && post.contains("only GET and HEAD"), "{post}");
    let garbage = tcp(at, "\u{1}\u{2}").await;
    assert!(garbage.starts_with("HTTP/1.1 400 "), "{garbage}");
    let long = tcp(at, &format!("GET /{} HTTP/1.1", "x".repeat(2 * BUFFER))).await;
    assert!(long.starts_with("HTTP/1.1 4"), "{long}");
    page.stop().await;
    assert!(TcpStream::connect(at).await.is_err());
}

#[tokio::test]
async fn silent_connections_keep_nobody_out_for_ever() {
    let (_page, at) = page().await;
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS {
        silent.push(TcpStream::connect(at).await.unwrap());
    }
    // Those who send no head lose their place.
    let answer = timeout(CONNECTION + HEAD, tcp(at, "GET /metrics HTTP/1.1")).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn a_socket_is_for_its_owner_and_leaves_no_trace() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("cairn/mount-0:1.sock");
    let first = Page::unix(&path, site()).unwrap();
    // As a process that was killed leaves it.
    std::mem::forget(first);
    let page = Page::unix(&path, site()).unwrap();
    let dir = path.parent().unwrap();
    assert_eq!(fs::metadata(dir).unwrap().permissions().mode() & 0o777, 0o700);
    let answer = ask(UnixStream::connect(&path).await.unwrap(), "GET /metrics HTTP/1.1").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    page.stop().await;
    assert!(!dir.exists());
}

#[tokio::test]
async fn a_page_that_is_never_made_is_given_up() {
    let (stuck, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let site = site().with("/stuck", move |_| {
        let _ = wait.lock().unwrap().recv();
        Content { kind: TEXT, body: String::new() }
    });
    let (_page, at) = serve(site).await;
    let answer = tcp(at, "GET /stuck HTTP/1.1").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    drop(stuck);
}

#[tokio::test]
async fn an_address_that_is_taken_is_a_sentence() {
    let (_page, at) = page().await;
    let taken = Bound::to(Some(at)).await.unwrap_err().to_string();
    assert!(taken.contains("--metrics-listen"), "{taken}");
    assert_eq!(address("127.0.0.1:7").unwrap().port(), 7);
    assert!(address("9500").unwrap_err().contains("HOST:PORT"));
}
