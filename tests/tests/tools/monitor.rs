//! `cairn monitor`: in a terminal it is drawn and leaves it as it was, elsewhere it prints lines.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use cairn_tests::{Cluster, binaries, wait_for, within};

/// A pseudo terminal with the monitor in it.
struct Terminal {
    keyboard: File,
    /// The other end, kept open so that its settings can be asked for.
    line: OwnedFd,
    seen: Arc<Mutex<Vec<u8>>>,
    child: Child,
    before: String,
}

/// A pseudo terminal of 80 columns and 24 lines: the screen with its keyboard, and the program's end.
fn open() -> (File, OwnedFd) {
    let (mut first, mut second) = (0, 0);
    let size = libc::winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    let none = std::ptr::null_mut::<libc::c_char>();
    // SAFETY: the pointers are to live variables, absent ones are allowed to be null.
    let opened = unsafe {
        libc::openpty(&raw mut first, &raw mut second, none, std::ptr::null(), &raw const size)
    };
    assert_eq!(opened, 0, "no pseudo terminal: {}", std::io::Error::last_os_error());
    // SAFETY: openpty has just made these two descriptors, and nobody else owns them.
    let (screen, line) = unsafe { (File::from_raw_fd(first), OwnedFd::from_raw_fd(second)) };
    // A program that held the screen too would never see it close.
    rustix::io::fcntl_setfd(&screen, rustix::io::FdFlags::CLOEXEC).unwrap();
    (screen, line)
}

/// The monitor on the program's end of a terminal.
fn monitor(line: &OwnedFd, master: &str) -> Child {
    let share = || Stdio::from(line.try_clone().unwrap());
    let mut command = Command::new(binaries::cairn());
    command.args(["monitor", "--interval", "0.2", "--master", master]);
    command.env("TERM", "xterm").env_remove("NO_COLOR");
    command.stdin(share()).stdout(share()).stderr(share()).spawn().unwrap()
}

/// The exit status of `child`, which must end soon.
#[track_caller]
fn end_of(child: &mut Child) -> ExitStatus {
    let mut status = None;
    let ended = wait_for(Duration::from_secs(20), || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    assert!(ended, "it goes on");
    status.unwrap()
}

impl Terminal {
    fn start(master: &str) -> Self {
        let (keyboard, line) = open();
        let before = settings(&line);
        let child = monitor(&line, master);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (mut reader, sink) = (keyboard.try_clone().unwrap(), Arc::clone(&seen));
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(n) = reader.read(&mut piece) {
                sink.lock().unwrap().extend_from_slice(&piece[..n]);
            }
        });
        Self { keyboard, line, seen, child, before }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap()).into_owned()
    }

    #[track_caller]
    fn wait_to_see(&self, text: &str) {
        let seen = wait_for(Duration::from_secs(30), || self.text().contains(text));
        assert!(seen, "{text:?} was not shown: {:?}", self.text());
    }

    /// Its exit code, once it has ended; the terminal must be as it was.
    #[track_caller]
    fn ends_with(&mut self, code: i32) {
        let status = end_of(&mut self.child);
        assert_eq!(status.code(), Some(code), "{:?}", self.text());
        self.wait_to_see("\x1b[?1049l");
        assert_eq!(settings(&self.line), self.before, "the terminal's settings are not restored");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Everything that `tcsetattr` can change.
fn settings(terminal: &OwnedFd) -> String {
    // SAFETY: all zeros is a termios, which tcgetattr fills in.
    let mut termios: libc::termios = unsafe { std::mem::zeroed() };
    // SAFETY: an open descriptor and a live variable.
    let asked = unsafe { libc::tcgetattr(terminal.as_raw_fd(), &raw mut termios) };
    assert_eq!(asked, 0);
    let libc::termios { c_iflag, c_oflag, c_cflag, c_lflag, c_cc, .. } = termios;
    format!("{c_iflag} {c_oflag} {c_cflag} {c_lflag} {c_cc:?}")
}

#[test]
fn keys_and_signals_end_it_and_the_terminal_is_as_it_was() {
    within(120, || {
        let cluster = Cluster::new();
        for (keys, code) in [("q", 0), ("\x03", 0), ("\x1b", 0)] {
            let mut terminal = Terminal::start(&cluster.master_address());
            terminal.wait_to_see("healthy");
            assert_ne!(settings(&terminal.line), terminal.before, "not in raw mode");
            terminal.keyboard.write_all(keys.as_bytes()).unwrap();
            terminal.ends_with(code);
        }
        for (signal, code) in
            [(rustix::process::Signal::TERM, 143), (rustix::process::Signal::HUP, 129)]
        {
            let mut terminal = Terminal::start(&cluster.master_address());
            terminal.wait_to_see("healthy");
            let pid = rustix::process::Pid::from_child(&terminal.child);
            rustix::process::kill_process(pid, signal).unwrap();
            terminal.ends_with(code);
        }
    });
}

/// The terminal's program was killed, and nobody sends SIGHUP: the monitor is not in its session.
#[test]
fn it_ends_when_its_terminal_is_closed() {
    within(60, || {
        let cluster = Cluster::new();
        let (mut screen, line) = open();
        let mut child = monitor(&line, &cluster.master_address());
        let mut first = [0; 64];
        assert!(screen.read(&mut first).unwrap() > 0);
        drop((screen, line));
        end_of(&mut child);
    });
}

#[test]
fn a_master_that_goes_away_is_shown_and_found_again() {
    within(120, || {
        let mut cluster = Cluster::new();
        let mut terminal = Terminal::start(&cluster.master_address());
        terminal.wait_to_see("node2");
        cluster.kill_master();
        terminal.wait_to_see("still asking");
        terminal.seen.lock().unwrap().clear();
        cluster.start_master();
        cluster.wait_healthy();
        terminal.wait_to_see("healthy");
        terminal.keyboard.write_all(b"q").unwrap();
        terminal.ends_with(0);
    });
}

#[test]
fn without_a_terminal_it_prints_lines_also_while_the_master_is_away() {
    within(120, || {
        let mut cluster = Cluster::new();
        let ran = cluster.cairn(60, &["monitor", "--count", "3", "--interval", "0.2"]);
        assert!(ran.ok(), "{ran}");
        assert_eq!(ran.stdout.lines().count(), 3, "{ran}");
        assert!(ran.stdout.lines().all(|line| line.contains("nodes 2/2 up")), "{ran}");
        assert!(!ran.stdout.contains('\x1b'), "{ran}");
        cluster.kill_master();
        let ran = cluster.cairn(60, &["monitor", "--count", "2", "--interval", "0.2", "--json"]);
        assert!(ran.ok(), "{ran}");
        for line in ran.stdout.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(line["version"], 1);
            assert!(line["error"].as_str().unwrap().contains(&cluster.master_address()), "{line}");
        }
    });
}
