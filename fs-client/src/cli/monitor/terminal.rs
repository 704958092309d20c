//! The screen and the keys. Whatever ends the view, the terminal is as it was: also after a panic, and
//! after SIGTERM, SIGINT and SIGHUP.

use std::{
    io, process,
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
    time::Duration,
};

use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use super::{model::Model, poll::Look, view};
use crate::cli::{failure::Failure, output};

/// How long a key may wait.
const TICK: Duration = Duration::from_millis(50);

/// Shows `looks` until somebody quits.
///
/// # Errors
/// When the terminal cannot be used.
pub(super) async fn show(
    address: String,
    looks: mpsc::Receiver<Look>,
    interval: Duration,
) -> Result<(), Failure> {
    let stopped = Arc::new(AtomicI32::new(0));
    let unusable = |e: io::Error| {
        Failure::new(format!("the terminal cannot be used: {e}; try cairn monitor | cat"))
    };
    for kind in [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()] {
        let mut arrivals = signal(kind).map_err(unusable)?;
        let stopped = Arc::clone(&stopped);
        tokio::spawn(async move {
            arrivals.recv().await;
            stopped.store(kind.as_raw_value(), Ordering::Relaxed);
        });
    }
    let signals = Arc::clone(&stopped);
    let screen = move || {
        let mut screen = Screen::open()?;
        screen.run(Model::new(address), looks, interval, &signals)
    };
    match tokio::task::spawn_blocking(screen).await {
        Ok(shown) => shown.map_err(unusable)?,
        Err(broken) => return Err(Failure::new(format!("the view broke: {broken}"))),
    }
    match stopped.load(Ordering::Relaxed) {
        0 => Ok(()),
        signal => process::exit(128 + signal),
    }
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
        stopped: &AtomicI32,
    ) -> io::Result<()> {
        let settings = view::Settings { interval, colored: output::colored() };
        let mut changed = true;
        while stopped.load(Ordering::Relaxed) == 0 {
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

fn quits(key: KeyEvent) -> bool {
    let pressed = key.kind != KeyEventKind::Release;
    let control_c = key.code == KeyCode::Char('c') && key.modifiers == KeyModifiers::CONTROL;
    pressed && (control_c || matches!(key.code, KeyCode::Char('q' | 'Q') | KeyCode::Esc))
}
