//! Frames at the sizes terminals have.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Color;

use super::super::data::{
    Fleet, History, Incomplete, Instance, Location, Lookups, Persistence, Sample, Stats, Sync,
    SyncLocation, SyncWorker, Worker,
};
use super::super::feed::Update;
use super::super::model::Model;
use super::super::text_of;
use super::*;

const LOOK: Look = Look {
    colors: true,
    unicode: true,
    keys: true,
};

/// Ten minutes of a fleet of `n` workers, seen from `view`.
pub(in super::super) fn watching(view: View, n: usize) -> Model {
    let mut model = Model::new("http://kv:9000", view, String::new());
    let samples = (0..600_u32).map(|at| Sample {
        at: 1_000.0 + f64::from(at),
        instances: n as u64 / 2,
        workers: n as u64,
        keys: 3_000_000 + u64::from(at) * 10,
        index_bytes: 48 << 20,
        operations: u64::from(at) * 1_234,
        lookups: Lookups {
            hits: u64::from(at) * 9,
            misses: u64::from(at),
            latency: vec![u64::from(at) * 8, u64::from(at) * 10, u64::from(at) * 10],
        },
        ..Sample::default()
    });
    model.update(Update::History(History {
        bounds: vec![0.001, 0.004],
        samples: samples.collect(),
    }));
    let name = |at: usize| format!("engine-{}", at / 2);
    model.update(Update::Stats(Stats {
        instances: (0..n / 2)
            .map(|at| Instance {
                instance_id: name(at * 2),
                key_count: 1000 * (at as u64 + 1),
                worker_count: 2,
            })
            .collect(),
    }));
    let location = |name: &str, key_count| Location {
        location: name.into(),
        key_count,
        sync: "in sync".into(),
        ..Location::default()
    };
    model.update(Update::Fleet(Fleet {
        total_count: n,
        matching_count: n,
        offset: 0,
        workers: (0..n.min(500))
            .map(|at| Worker {
                instance_id: name(at),
                worker_id: at as i64 % 2,
                ip: "10.0.0.1".into(),
                port: 8001,
                silent_s: if at == 1 { 500.0 } else { 2.0 },
                key_count: 900,
                locations: vec![
                    location("LocalCPUBackend", 600),
                    location("LocalDiskBackend", 300),
                ],
                ..Worker::default()
            })
            .collect(),
    }));
    model.update(Update::Sync(Sync {
        progress: 0.5,
        workers_syncing: 1,
        persistence: Persistence {
            state: "working".into(),
            journal_bytes: 4096,
            ..Persistence::default()
        },
        workers: (0..n)
            .map(|at| SyncWorker {
                instance_id: name(at),
                worker_id: at as i64 % 2,
                locations: vec![SyncLocation {
                    location: "LocalCPUBackend".into(),
                    state: if at == 3 { "running" } else { "in sync" }.into(),
                    batches_received: (at == 3).then_some(7),
                    batches_announced: (at == 3).then_some(9),
                    key_count: 600,
                    ..SyncLocation::default()
                }],
                ..SyncWorker::default()
            })
            .collect(),
        ..Sync::default()
    }));
    model
}

fn terminal(model: &mut Model, look: Look, width: u16, height: u16) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, model, look)).unwrap();
    terminal
}

fn frame(model: &mut Model, width: u16, height: u16) -> String {
    text_of(terminal(model, LOOK, width, height).backend().buffer())
}

fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
}

#[test]
fn the_overview_fits_a_small_terminal() {
    let text = frame(&mut watching(View::Overview, 8), 80, 24);
    has(
        &text,
        &[
            "1 Overview",
            "http://kv:9000",
            "workers 8",
            "operations/s 1234",
            "keys 3.0M",
            "hit rate 90 %",
            "p50, p99 1 ms, 4 ms",
            "index 48.0 MiB",
            "lookup latency, p99 4 ms",
            "q quit",
        ],
    );
    assert!(text.lines().all(|line| line.chars().count() <= 80));
    assert_eq!(text.lines().count(), 24);
    // All six charts, and something drawn in them.
    has(&text, &["hit rate, %", "workers 8  most 8", "████████"]);
}

#[test]
fn a_large_terminal_shows_more() {
    let text = frame(&mut watching(View::Overview, 8), 200, 50);
    has(&text, &["instances by keys", "engine-3", "4000"]);
    let text = frame(&mut watching(View::Fleet, 2000), 200, 50);
    has(&text, &["10.0.0.1:8001", "CPU 600", "Disk 300"]);
    has(&text, &["1 to 46 of 2000, by worker"]);
    assert_eq!(text.matches("alive").count(), 45);
    assert_eq!(text.matches("silent").count(), 1);
}

#[test]
fn tables_fit_a_small_terminal() {
    let text = frame(&mut watching(View::Fleet, 100), 80, 24);
    has(&text, &["engine-0:1", "silent 8 min ago", "in sync"]);
    has(&text, &["CPU 600 Disk 300", "1 to 20 of 100"]);
    let text = frame(&mut watching(View::Sync, 100), 80, 24);
    has(&text, &["ready 50 %", "journal 4 KiB"]);
    // What is under way stands first.
    let first = text.lines().nth(3).unwrap();
    has(first, &["engine-1:1", "running", "7 of 9"]);
}

#[test]
fn no_size_is_too_small() {
    for view in View::ALL {
        for (width, height) in [(1, 1), (2, 40), (300, 1), (5, 3), (20, 5), (37, 9)] {
            let text = frame(&mut watching(view, 30), width, height);
            assert!(text.lines().count() <= usize::from(height));
        }
    }
}

#[test]
fn nothing_to_show_says_what_to_do() {
    for view in View::ALL {
        let mut model = Model::new("http://kv:9000", view, String::new());
        has(&frame(&mut model, 80, 24), &["connecting", "waiting for"]);
    }
    let mut model = Model::new("http://kv:9000", View::Overview, String::new());
    model.update(Update::Sample(Box::default()));
    has(
        &frame(&mut model, 80, 24),
        &["no worker is registered yet", "kvatlas demo"],
    );
    model.view = View::Fleet;
    model.update(Update::Fleet(Fleet::default()));
    has(&frame(&mut model, 80, 24), &["kvatlas diagnose"]);
}

#[test]
fn a_controller_that_is_gone_is_said_first() {
    let mut model = watching(View::Fleet, 4);
    model.update(Update::Lost("cannot reach kv:9000: refused".into()));
    let text = frame(&mut model, 60, 10);
    let first = text.lines().next().unwrap();
    assert!(
        first.starts_with("kvatlas NO CONTROLLER cannot reach kv:9000"),
        "{first}"
    );
    // What was known stays.
    has(&text, &["engine-0:0"]);
    model.update(Update::Sample(Box::default()));
    has(&frame(&mut model, 60, 10), &["2 Fleet"]);
}

#[test]
fn without_colors_there_are_none_and_without_utf8_only_ascii() {
    let look = Look {
        colors: false,
        unicode: false,
        keys: true,
    };
    for view in View::ALL {
        let mut model = watching(view, 8);
        let terminal = terminal(&mut model, look, 120, 30);
        for cell in &terminal.backend().buffer().content {
            assert_eq!((cell.fg, cell.bg), (Color::Reset, Color::Reset));
            assert!(cell.symbol().is_ascii(), "{:?}", cell.symbol());
        }
    }
    assert!(is_utf8(None) && is_utf8(Some("de_DE.UTF-8")) && is_utf8(Some("C.utf8")));
    assert!(!is_utf8(Some("C")) && !is_utf8(Some("de_DE@euro")));
}

#[test]
fn names_from_the_network_cannot_write_to_the_terminal() {
    let mut model = watching(View::Fleet, 2);
    if let Some(fleet) = &mut model.fleet {
        fleet.workers[0].instance_id = "\u{1b}[2Jevil\u{7}\n".into();
    }
    let terminal = terminal(&mut model, LOOK, 100, 10);
    for cell in &terminal.backend().buffer().content {
        assert!(!cell.symbol().contains(char::is_control));
    }
}

#[test]
fn numbers_are_short() {
    let counts = [
        (0.0, "0"),
        (1.25, "1.2"),
        (9_999.0, "9999"),
        (10_000.0, "10.0k"),
        (999_949.0, "999.9k"),
        (3_400_000.0, "3.4M"),
        (2e9, "2.0G"),
    ];
    for (value, text) in counts {
        assert_eq!(count(value), text);
    }
    assert_eq!(bytes(1 << 30), "1.00 GiB");
    assert_eq!(seconds(0.000_25), "250 us");
    assert_eq!(seconds(7200.0), "2 h");
}

#[test]
fn a_limit_that_keeps_keys_out_is_seen() {
    let full = Some(Incomplete {
        limit: "max_index_bytes".into(),
    });
    let mut model = watching(View::Fleet, 4);
    let mut fleet = model.fleet.clone().unwrap();
    fleet.workers[2].locations[0].incomplete = full.clone();
    model.update(Update::Fleet(fleet));
    let text = frame(&mut model, 80, 24);
    let marked: Vec<_> = text.lines().filter(|l| l.contains("incomplete")).collect();
    assert_eq!(marked.len(), 1, "{text}");
    has(marked[0], &["engine-1:0"]);

    let mut model = watching(View::Sync, 4);
    let mut sync = model.sync.clone().unwrap();
    sync.workers_incomplete = 1;
    sync.workers[2].locations[0].incomplete = full;
    model.update(Update::Sync(sync));
    for (width, why) in [(80, "max_index_"), (120, "max_index_bytes is reached")] {
        let text = frame(&mut model, width, 24);
        has(&text, &["incomplete 1 ", why]);
        let first = text.lines().nth(3).unwrap();
        assert!(
            first.contains("incomplete"),
            "the most urgent first: {text}"
        );
    }
}
