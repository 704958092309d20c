//! The screen and the keys. Whatever ends the view, the terminal is as it was: also after a panic, and
//! after SIGTERM, SIGINT and SIGHUP.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use super::{model::Model, poll::Look, view};
use crate::cli::{failure::Failure, interrupt, output};

/// How long a key may wait.
const TICK: Duration = Duration::from_millis(50);

/// How often it is looked whether the terminal is still there.
const LOOK: Duration = Duration::from_millis(500);

/// Shows `looks` until somebody quits.
///
/// # Errors
/// When the terminal cannot be used, or a signal ends it.
pub(super) async fn show(
    address: String,
    looks: mpsc::Receiver<Look>,
    interval: Duration,
) -> Result<(), Failure> {
    let unusable = |e: io::Error| {
        Failure::new(format!("the terminal cannot be used: {e}; try cairn monitor | cat"))
    };
    let mut hangups = signal(SignalKind::hangup()).map_err(unusable)?;
    let stopped = Arc::new(AtomicBool::new(false));
    let signals = Arc::clone(&stopped);
    let screen = tokio::task::spawn_blocking(move || {
        let mut screen = Screen::open()?;
        screen.run(Model::new(address), looks, interval, &signals)
    });
    let signals = async {
        tokio::select! {
            failure = interrupt::requested() => failure,
            _ = hangups.recv() => Failure::interrupted(libc::SIGHUP),
        }
    };
    tokio::pin!(screen);
    let (shown, stop) = tokio::select! {
        shown = &mut screen => (shown, None),
        // There is nothing to restore, and the thread that reads keys may never end.
        () = closed() => return Ok(()),
        stop = signals => {
            stopped.store(true, Ordering::Relaxed);
            (screen.await, Some(stop))
        }
    };
    shown.map_err(|broken| Failure::new(format!("the view broke: {broken}")))?.map_err(unusable)?;
    stop.map_or(Ok(()), Err)
}

/// The terminal while it is ours. Given back when dropped, and by ratatui's hook before a panic is told.
struct Screen(DefaultTerminal);

impl Screen {
    fn open() -> io::Result<Self> {
        ratatui::try_init().map(Self).inspect_err(|_| drop(ratatui::try_restore()))
    }

    fn run(
        &mut self,
        mut model: Model,
        mut looks: mpsc::Receiver<Look>,
        interval: Duration,
        stopped: &AtomicBool,
    ) -> io::Result<()> {
        let settings = view::Settings { interval, colored: output::colored() };
        let mut changed = true;
        while !stopped.load(Ordering::Relaxed) {
            while let Ok(look) = looks.try_recv() {
                model.take(look);
                changed = true;
            }
            if changed {
                self.0.draw(|frame| view::draw(frame, &model, settings))?;
            }
            changed = false;
            if event::poll(TICK)? {
                match event::read()? {
                    Event::Key(key) if quits(key) => break,
                    Event::Resize(..) => changed = true,
                    Event::Key(_)
                    | Event::Mouse(_)
                    | Event::Paste(_)
                    | Event::FocusGained
                    | Event::FocusLost => {}
                }
            }
        }
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Nobody is left to whom a failure could be shown.
        let _unchanged = ratatui::try_restore();
    }
}

/// Waits until the terminal is closed. Not every one says so with SIGHUP, and waiting for a key of one
/// that is gone goes on for ever, without a pause.
async fn closed() {
    let mut ticks = tokio::time::interval(LOOK);
    while !is_gone() {
        ticks.tick().await;
    }
}

fn is_gone() -> bool {
    let stdout = io::stdout();
    let mut terminal = [PollFd::new(&stdout, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut terminal, Some(&now)).is_ok()
        && terminal[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
}

fn quits(key: KeyEvent) -> bool {
    let pressed = key.kind != KeyEventKind::Release;
    let control_c = key.code == KeyCode::Char('c') && key.modifiers == KeyModifiers::CONTROL;
    pressed && (control_c || matches!(key.code, KeyCode::Char('q' | 'Q') | KeyCode::Esc))
}
