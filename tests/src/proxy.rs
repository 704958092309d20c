//! [`Proxy`]: a wire between two parts that a test can cut, hold up or make slow.
//!
//! It listens where one part looks for the other and passes bytes on. Nothing is lost while it is held
//! up: as on a network that is down, what was sent arrives when it is up again. One thread for each
//! direction of each connection, which ends with the connection or with the proxy.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// How long a thread waits before it looks whether the proxy is still wanted.
const LOOK: Duration = Duration::from_millis(100);
/// How long the other side may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(2);

/// What becomes of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// They pass.
    Open,
    /// Connections are broken and refused.
    Cut,
    /// They wait. Nobody is told.
    Silent,
    /// Each piece of up to 64 KiB passes after this time.
    Slow(Duration),
}

struct Shared {
    to: SocketAddr,
    flow: Mutex<Flow>,
    changed: Condvar,
    ended: AtomicBool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Flow> {
        self.flow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until bytes may pass; false when the connection is to be broken.
    fn may_pass(&self) -> bool {
        let mut flow = self.lock();
        loop {
            if self.ended.load(Ordering::Relaxed) {
                return false;
            }
            match *flow {
                Flow::Open => return true,
                Flow::Cut => return false,
                Flow::Slow(by) => {
                    drop(flow);
                    thread::sleep(by);
                    return true;
                }
                Flow::Silent => {
                    let waited = self.changed.wait_timeout(flow, LOOK);
                    flow = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }

    fn is_cut(&self) -> bool {
        self.ended.load(Ordering::Relaxed) || *self.lock() == Flow::Cut
    }
}

/// See the head of this file. Ends, with all connections, when dropped.
pub struct Proxy {
    shared: Arc<Shared>,
    address: SocketAddr,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Proxy({} to {})", self.address, self.shared.to)
    }
}

impl Proxy {
    /// A wire to `to`, open.
    ///
    /// # Panics
    /// When there is no port left.
    pub fn new(to: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has a port left");
        let address = listener.local_addr().expect("a listener has an address");
        listener.set_nonblocking(true).expect("sockets can be asked without waiting");
        let shared = Arc::new(Shared {
            to,
            flow: Mutex::new(Flow::Open),
            changed: Condvar::new(),
            ended: AtomicBool::new(false),
        });
        let served = Arc::clone(&shared);
        thread::spawn(move || accept(&listener, &served));
        Self { shared, address }
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on.
    pub fn set(&self, flow: Flow) {
        *self.shared.lock() = flow;
        self.shared.changed.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        self.shared.changed.notify_all();
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while !shared.ended.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((caller, _)) => {
                let shared = Arc::clone(shared);
                thread::spawn(move || connect(caller, &shared));
            }
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
}

fn connect(caller: TcpStream, shared: &Arc<Shared>) {
    if !shared.may_pass() {
        return;
    }
    let Ok(callee) = TcpStream::connect_timeout(&shared.to, CONNECT) else { return };
    let (Ok(from), Ok(to)) = (caller.try_clone(), callee.try_clone()) else { return };
    let back = Arc::clone(shared);
    thread::spawn(move || pass(to, from, &back));
    pass(caller, callee, shared);
}

/// Until one side ends, or the wire is cut.
fn pass(mut from: TcpStream, mut to: TcpStream, shared: &Shared) {
    let mut buffer = vec![0; 65_536];
    let patient = from.set_nonblocking(false).and_then(|()| from.set_read_timeout(Some(LOOK)));
    let prompt = to.set_nodelay(true).and_then(|()| to.set_write_timeout(None));
    while patient.is_ok() && prompt.is_ok() && !shared.is_cut() {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => {
                if !shared.may_pass() || to.write_all(&buffer[..n]).is_err() {
                    break;
                }
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
    }
    // One of them may be closed already.
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wire_passes_holds_up_and_breaks() {
        let there = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let proxy = Proxy::new(there.local_addr().unwrap());
        let mut caller = TcpStream::connect(proxy.address()).unwrap();
        caller.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let (mut callee, _) = there.accept().unwrap();
        let mut byte = [0];
        callee.write_all(b"a").unwrap();
        caller.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"a");
        proxy.set(Flow::Silent);
        callee.write_all(b"b").unwrap();
        assert!(caller.read_exact(&mut byte).is_err(), "it passes what is to wait");
        proxy.set(Flow::Open);
        caller.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        caller.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"b", "what waited is lost");
        proxy.set(Flow::Cut);
        assert!(matches!(caller.read(&mut byte), Ok(0) | Err(_)), "it is not broken");
    }
}
