//! [`Refusal`]: EIO for everything that programs ask for, while there is no master whom to ask.
//!
//! Only for a daemon that follows another one and has not begun to serve: nobody else reads the
//! connection meanwhile.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::session::send_again;

/// Room for the largest request.
const REQUEST: usize = (1 << 20) + 8192;
/// How soon it ends when it is to.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
/// Requests that nobody expects an answer to: forget, interrupt, forget of many.
const UNANSWERED: [u32; 3] = [2, 36, 42];

/// See the module's head. Ends when dropped.
#[derive(Debug)]
pub struct Refusal {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Refusal {
    /// Begins to refuse what comes over `device`.
    ///
    /// # Errors
    /// When the system has no descriptor or thread left.
    pub fn begin(device: &OwnedFd) -> io::Result<Self> {
        // What the dead daemon had read waits for an answer too.
        send_again(device)?;
        let device = device.try_clone()?;
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = thread::Builder::new().name("refusal".into()).spawn(move || {
            let mut buffer = vec![0; REQUEST];
            while !told.load(Ordering::Relaxed) && refuse_next(&device, &mut buffer) {}
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Refusal {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has no way to fail but a panic, which is in the log.
            let _ = thread.join();
        }
    }
}

/// Waits a moment for a request; false when the mount is gone.
fn refuse_next(device: &OwnedFd, buffer: &mut [u8]) -> bool {
    let borrowed = device.as_fd();
    let mut events = [PollFd::new(&borrowed, PollFlags::IN)];
    if !matches!(poll(&mut events, Some(&LOOK)), Ok(1)) {
        return true;
    }
    if events[0].revents().contains(PollFlags::ERR) {
        return false;
    }
    let Ok(len) = rustix::io::read(device, &mut *buffer) else { return true };
    let header = buffer.get(..len.min(16)).and_then(|bytes| bytes.first_chunk::<16>());
    if let Some(answer) = header.and_then(refused) {
        // The caller may have gone.
        let _ = rustix::io::write(device, &answer);
    }
    true
}

/// The answer to a request that begins with `header`: its length, operation and number.
fn refused(header: &[u8; 16]) -> Option<[u8; 16]> {
    let operation = u32::from_ne_bytes(header[4..8].try_into().ok()?);
    let mut answer = [0; 16];
    answer[..4].copy_from_slice(&16u32.to_ne_bytes());
    answer[4..8].copy_from_slice(&(-libc::EIO).to_ne_bytes());
    answer[8..].copy_from_slice(&header[8..]);
    (!UNANSWERED.contains(&operation)).then_some(answer)
}
