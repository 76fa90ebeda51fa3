//! What keys and updates do.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::data::{Fleet, Sample};
use super::draw::tests::watching;
use super::feed::Update;
use super::model::{After, Link, Model, Sort, View};

fn press(model: &mut Model, code: KeyCode) -> After {
    model.key(KeyEvent::new(code, KeyModifiers::NONE))
}

fn letters(model: &mut Model, text: &str) {
    for letter in text.chars() {
        assert_eq!(press(model, KeyCode::Char(letter)), After::Draw);
    }
}

#[test]
fn q_and_control_c_end_it() {
    let mut model = watching(View::Fleet, 4);
    assert_eq!(press(&mut model, KeyCode::Char('q')), After::Quit);
    let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(model.key(control_c), After::Quit);
    letters(&mut model, "/q");
    assert_eq!(model.filter, "q", "a letter of the filter");
    assert_eq!(model.key(control_c), After::Quit);
}

#[test]
fn views_turn() {
    let mut model = watching(View::Overview, 4);
    let mut seen = Vec::new();
    for code in [
        KeyCode::Tab,
        KeyCode::Tab,
        KeyCode::Tab,
        KeyCode::BackTab,
        KeyCode::Char('2'),
    ] {
        press(&mut model, code);
        seen.push(model.view);
    }
    let expected = [
        View::Fleet,
        View::Sync,
        View::Overview,
        View::Sync,
        View::Fleet,
    ];
    assert_eq!(seen, expected);
}

#[test]
fn a_filter_is_typed_and_taken_back() {
    let mut model = watching(View::Overview, 4);
    letters(&mut model, "/demo");
    press(&mut model, KeyCode::Backspace);
    press(&mut model, KeyCode::Enter);
    let question = model.question();
    assert_eq!(
        (question.view, question.filter.as_str()),
        (View::Fleet, "dem")
    );
    letters(&mut model, "s");
    assert_eq!((model.sort, model.descending), (Sort::Keys, true));
    letters(&mut model, "r");
    assert!(!model.question().descending);
    press(&mut model, KeyCode::Esc);
    assert_eq!(model.filter, "");
    letters(&mut model, "/");
    letters(&mut model, &"x".repeat(1000));
    assert_eq!(model.filter.len(), 100);
}

#[test]
fn the_cursor_pulls_the_rows_along_and_stays_within_them() {
    let mut model = watching(View::Fleet, 100);
    model.make_room(10);
    let at = |model: &Model| (model.selected, model.question().offset);
    press(&mut model, KeyCode::Up);
    assert_eq!(at(&model), (0, 0));
    for _ in 0..10 {
        press(&mut model, KeyCode::Down);
    }
    assert_eq!(at(&model), (10, 1));
    press(&mut model, KeyCode::PageDown);
    assert_eq!(at(&model), (20, 11));
    press(&mut model, KeyCode::End);
    assert_eq!(at(&model), (99, 90));
    press(&mut model, KeyCode::PageUp);
    assert_eq!(at(&model), (89, 89));
    // A larger terminal, then fewer workers.
    model.make_room(50);
    assert_eq!(model.question().limit, 50);
    model.update(Update::Fleet(Fleet {
        total_count: 3,
        matching_count: 3,
        ..Fleet::default()
    }));
    model.make_room(50);
    assert_eq!(at(&model), (2, 2));
    press(&mut model, KeyCode::Home);
    assert_eq!(at(&model), (0, 0));
    model.make_room(100_000);
    assert_eq!(model.question().limit, 500);
}

#[test]
fn a_controller_that_started_anew_begins_new_charts() {
    let mut model = watching(View::Overview, 4);
    let last = model.samples.back().unwrap().clone();
    model.update(Update::Lost("gone".into()));
    assert_eq!(model.link, Link::Lost("gone".into()));
    model.update(Update::Sample(Box::new(Sample {
        operations: 0,
        at: last.at + 9.0,
        ..last
    })));
    assert_eq!((model.samples.len(), &model.link), (1, &Link::Live));
}

#[test]
fn samples_are_bounded() {
    let mut model = Model::new("u", View::Overview, String::new());
    for at in 0..6_000_u32 {
        model.update(Update::Sample(Box::new(Sample {
            at: f64::from(at),
            ..Sample::default()
        })));
    }
    assert_eq!(model.samples.len(), 5_000);
}
