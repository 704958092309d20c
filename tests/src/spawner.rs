//! Starts every child from one thread that lives as long as the test program.
//!
//! Children ask the kernel to be killed when the *thread* that started them ends; started from the
//! threads of tests they would die too early, and without that they would outlive a killed test run.

use std::{
    io,
    os::unix::process::CommandExt as _,
    process::{Child, Command},
    sync::{
        OnceLock,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
};

type Order = (Command, SyncSender<io::Result<Child>>);

fn serve(orders: &Receiver<Order>) {
    while let Ok((mut command, answer)) = orders.recv() {
        let _caller_gone = answer.send(command.spawn());
    }
}

/// Starts `command`; it is killed when this test program ends, however that happens.
///
/// # Errors
/// When the program cannot be started.
///
/// # Panics
/// When threads cannot be started.
pub fn spawn(mut command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<SyncSender<Order>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (send, receive) = sync_channel(0);
        let thread = std::thread::Builder::new().name("spawner".into());
        thread.spawn(move || serve(&receive)).expect("the system has a thread left");
        send
    });
    // SAFETY: prctl is a plain system call, which may be made between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    let (send, receive) = sync_channel(1);
    spawner.send((command, send)).expect("the spawner never ends");
    receive.recv().expect("the spawner answers every order")
}
