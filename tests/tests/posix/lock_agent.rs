//! [`Agent`]: a program that holds files open and locks them as it is told.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

/// A program that holds files open and does as it is told, a line at a time: `open NAME PATH MODE`,
/// `flock NAME sh|ex|un [nb]`, `posix|ofd NAME r|w|u START LEN [nb]`, `get NAME START LEN`,
/// `write NAME TEXT`, `read NAME`, `close NAME`, `dup OLD NEW`, `alarm SECONDS`, `fork`.
const AGENT: &str = r#"
import errno, fcntl, os, signal, struct, sys
OFD_SETLK, OFD_SETLKW = 37, 38
files = {}
signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(InterruptedError(errno.EINTR, 'alarm')))
def say(text):
    sys.stdout.write(text + '\n'); sys.stdout.flush()
def record(kind, start, length, pid=0):
    typ = {'r': fcntl.F_RDLCK, 'w': fcntl.F_WRLCK, 'u': fcntl.F_UNLCK}[kind]
    return struct.pack('hhqqi4x', typ, 0, start, length, pid)
def do(verb, *a):
    if verb == 'open':
        modes = {'r': os.O_RDONLY, 'w': os.O_RDWR | os.O_CREAT, 'a': os.O_WRONLY | os.O_APPEND | os.O_CREAT}
        files[a[0]] = os.open(a[1], modes[a[2]], 0o644)
    elif verb == 'dup': files[a[1]] = os.dup(files[a[0]])
    elif verb == 'close': os.close(files.pop(a[0]))
    elif verb == 'flock':
        how = {'sh': fcntl.LOCK_SH, 'ex': fcntl.LOCK_EX, 'un': fcntl.LOCK_UN}[a[1]]
        fcntl.flock(files[a[0]], how | (fcntl.LOCK_NB if 'nb' in a else 0))
    elif verb in ('posix', 'ofd'):
        wait = 'nb' not in a
        cmd = ((OFD_SETLKW if wait else OFD_SETLK) if verb == 'ofd'
               else (fcntl.F_SETLKW if wait else fcntl.F_SETLK))
        fcntl.fcntl(files[a[0]], cmd, record(a[1], int(a[2]), int(a[3])))
    elif verb == 'get':
        got = fcntl.fcntl(files[a[0]], fcntl.F_GETLK, record('w', int(a[1]), int(a[2])))
        typ, _, start, length, pid = struct.unpack('hhqqi4x', got)
        name = {fcntl.F_RDLCK: 'r', fcntl.F_WRLCK: 'w', fcntl.F_UNLCK: 'u'}[typ]
        return 'free' if name == 'u' else f'{name} {start} {length} {"known" if pid else "unknown"}'
    elif verb == 'write': os.pwrite(files[a[0]], a[1].encode(), 0)
    elif verb == 'read': return os.pread(files[a[0]], 1000, 0).decode()
    elif verb == 'size': return str(os.fstat(files[a[0]]).st_size)
    elif verb == 'alarm': signal.setitimer(signal.ITIMER_REAL, float(a[0]))
    elif verb == 'fork':
        r, w = os.pipe()
        if os.fork() == 0:
            os.close(w); os.read(r, 1); os._exit(0)
        os.close(r); files['child'] = w
    return 'ok'
say('ready')
for line in sys.stdin:
    try: say(do(*line.split()))
    except OSError as e: say('EDEADLK' if e.errno == errno.EDEADLK else errno.errorcode[e.errno])
"#;

/// The program, running.
pub(crate) struct Agent {
    child: Child,
    orders: ChildStdin,
    answers: mpsc::Receiver<String>,
}

impl Agent {
    pub(crate) fn new() -> Self {
        let mut child = Command::new("python3")
            .args(["-c", AGENT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let orders = child.stdin.take().unwrap();
        let answers = lines(child.stdout.take().unwrap());
        let agent = Self { child, orders, answers };
        assert_eq!(agent.answer(), "ready");
        agent
    }

    /// One that has `path` open as `f`.
    pub(crate) fn with(path: &Path, mode: &str) -> Self {
        let mut agent = Self::new();
        assert_eq!(agent.ask(&format!("open f {} {mode}", path.display())), "ok");
        agent
    }

    pub(crate) fn order(&mut self, line: &str) {
        writeln!(self.orders, "{line}").unwrap();
    }

    pub(crate) fn answer(&self) -> String {
        self.answers.recv_timeout(Duration::from_secs(90)).unwrap()
    }

    pub(crate) fn ask(&mut self, line: &str) -> String {
        self.order(line);
        self.answer()
    }

    /// Whether it is still at what it was ordered, a while later.
    pub(crate) fn waits(&self) -> bool {
        self.answers.recv_timeout(Duration::from_millis(600)).is_err()
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn lines(output: ChildStdout) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::sync_channel(100);
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have been killed by the test.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
