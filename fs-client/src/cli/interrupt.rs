//! Ctrl+C and SIGTERM: a verb ends promptly, and cleans up what it left half done if there is such.
//!
//! A verb that has something to clean up waits for [`requested`] beside its work. Whatever hangs is cut
//! off after [`GRACE`], or at once by a second signal: a thread may wait in a write to a pipe that nobody
//! reads.

use std::{io, process, sync::LazyLock, time::Duration};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::sleep,
};

use super::failure::Failure;

/// Time from the signal to the end of the process.
const GRACE: Duration = Duration::from_millis(1500);

/// The signal that was received; signals are the whole process's.
static RECEIVED: LazyLock<watch::Sender<Option<i32>>> = LazyLock::new(|| watch::Sender::new(None));

/// Takes the two signals from now on. Must be called within the runtime.
pub(super) fn listen() -> io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        let number = tokio::select! {
            _ = interrupt.recv() => libc::SIGINT,
            _ = terminate.recv() => libc::SIGTERM,
        };
        RECEIVED.send_replace(Some(number));
        tokio::select! {
            () = sleep(GRACE) => {}
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        process::exit(128 + number);
    });
    Ok(())
}

/// Returns when the verb is to end, with how it ends.
pub(super) async fn requested() -> Failure {
    let mut received = RECEIVED.subscribe();
    let number = received.wait_for(Option::is_some).await.ok().and_then(|number| *number);
    // The sender is never dropped.
    Failure::interrupted(number.unwrap_or(libc::SIGINT))
}
