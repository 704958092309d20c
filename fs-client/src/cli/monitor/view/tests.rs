//! What the view looks like, on terminals of several sizes.

use ratatui::{Terminal, backend::TestBackend};

use super::*;
use crate::cli::monitor::model::tests::{look, status};

fn model(looks: u64) -> Model {
    let mut model = Model::new("127.0.0.1:9000".to_owned());
    let start = Instant::now();
    for n in 0..looks {
        let at = start + Duration::from_secs(n);
        model.take(look(at, Ok(status(n * n * 300_000, n * 100, 1))));
    }
    model
}

fn screen(model: &Model, width: u16, height: u16) -> String {
    let settings = Settings { interval: Duration::from_secs(1), colored: true };
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, model, settings)).unwrap();
    let buffer = terminal.backend().buffer().clone();
    let line = |y: u16| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..height).map(|y| line(y).trim_end().to_owned() + "\n").collect()
}

#[track_caller]
fn shows(screen: &str, texts: &[&str]) {
    for text in texts {
        assert!(screen.contains(text), "no {text:?} in\n{screen}");
    }
}

#[test]
fn everything_is_on_a_terminal_of_the_usual_size() {
    let screen = screen(&model(40), 80, 24);
    shows(&screen, &["127.0.0.1:9000", "1 of 2 nodes away, 2 degraded groups", "up 1 h 1 min"]);
    shows(&screen, &["In 44.1 MiB/s", "Out 0 B/s", "Operations 100/s", "create", "100/s"]);
    shows(&screen, &["master", "running", "node1", "node2", "down", "50.0 MiB", "22.0 MiB", "25%"]);
    shows(&screen, &["150.0 GiB free of 200.0 GiB, room for 75.0 GiB"]);
    shows(&screen, &["30.0 GiB in 1,234 files, stored 40.0 GiB, dedup 1.50"]);
    shows(
        &screen,
        &[
            "1,024, 2 degraded, 2.00 of 2 copies",
            "1 session, 4 open files",
            "q, Esc or Ctrl+C quits",
        ],
    );
    assert!(screen.contains('█'), "no graph in\n{screen}");
}

#[test]
fn what_repair_does_is_shown_while_it_has_something_to_do() {
    let mut model = model(40);
    let known = model.known.as_mut().map(|(_, cluster)| cluster).unwrap();
    known.groups_not_whole = 12;
    known.bytes_to_move = 3 << 20;
    known.repair_bytes_per_second = 1 << 20;
    known.repair_eta_seconds = 3;
    known.safe_mode = "waiting".to_owned();
    known.healthy = false;
    let told = known.clone();
    model.now.as_mut().unwrap().cluster = Some(told);
    let screen = screen(&model, 120, 24);
    shows(&screen, &["12 lack 3.0 MiB of copies, 1.0 MiB/s, about 3 s left"]);
    shows(&screen, &["12 groups lack copies, safe mode"]);
}

#[test]
fn a_large_terminal_shows_the_clients_too() {
    let screen = screen(&model(300), 200, 50);
    shows(&screen, &["host:/mnt/cairn", "connected", "4 open files", "Most frequent", "peak"]);
}

#[test]
fn small_terminals_show_words_and_the_smallest_do_no_harm() {
    shows(&screen(&model(3), 40, 12), &["Nodes 1 of 2 up", "q quits"]);
    for width in [1, 2, 10, 59, 60, 61, 119, 120, 121] {
        for height in [1, 2, 3, 15, 16, 17, 33, 34, 35] {
            screen(&model(3), width, height);
            screen(&Model::new("m".to_owned()), width, height);
        }
    }
}

#[test]
fn a_master_that_is_away_is_shown_above_what_was_known() {
    let mut model = model(5);
    model.take(look(Instant::now(), Err("no master answers at 127.0.0.1:9000".to_owned())));
    let screen = screen(&model, 80, 24);
    shows(&screen, &["● master away", "no master answers", "still asking", "node1"]);
    let mut never = Model::new("m:1".to_owned());
    never.take(look(Instant::now(), Err("refused".to_owned())));
    shows(&self::screen(&never, 80, 24), &["refused", "quits"]);
    shows(&self::screen(&never, 30, 5), &["refused"]);
}

#[test]
fn many_nodes_that_do_not_fit_are_counted_and_the_ill_are_seen() {
    let mut model = model(3);
    if let Some((_, cluster)) = &mut model.known {
        let up = cluster.nodes[0].clone();
        cluster.nodes = vec![up; 50];
        let last = &mut cluster.nodes[49];
        (last.state, last.name) = ("down", "node50".to_owned());
    }
    let screen = screen(&model, 80, 24);
    shows(&screen, &["node50", "more nodes", "quits", "Space"]);
}

#[test]
fn without_colours_nothing_is_coloured() {
    let settings = Settings { interval: Duration::from_secs(1), colored: false };
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
    terminal.draw(|frame| draw(frame, &model(5), settings)).unwrap();
    let cells = terminal.backend().buffer().content();
    assert!(cells.iter().all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset));
}
