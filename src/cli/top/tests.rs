//! The screen of `top`, driven by keys and samples and drawn into a buffer.

use super::draw::HELP;
use super::screen::{Input, Order, Page, Sample, Screen, Wish};
use super::text;
use crate::control::protocol::{Io, ServiceStatus, State, Want, samples};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::{Color, Modifier};

fn services() -> Vec<ServiceStatus> {
    let mut busy = ServiceStatus { cpu_ms: Some(1000), ..samples::service("busy") };
    busy.limits = Some([("memory_max".to_owned(), "512M".to_owned())].into());
    busy.io = Some(Io { read_bytes: 0, write_bytes: 0 });
    let mut broken = ServiceStatus { want: Want::Up, state: State::Backoff, ..samples::down("broken") };
    broken.reason = Some("exited with code 1".to_owned());
    broken.restarts = 7;
    vec![samples::down("a-rather-long-name-of-a-gateway"), broken, busy]
}

fn sample(seconds: u64, services: Vec<ServiceStatus>) -> Input {
    let mut supervisor = samples::supervisor();
    supervisor.uptime_ms = seconds * 1000;
    Input::Sample(Box::new(Sample { supervisor, services }))
}

fn screen() -> Screen {
    let mut screen = Screen::new(false);
    screen.update(sample(60, services()));
    let mut later = services();
    later[2].cpu_ms = Some(1500);
    later[2].io = Some(Io { read_bytes: 1024, write_bytes: 1024 });
    screen.update(sample(61, later));
    screen
}

/// What the terminal's own drawing makes of it is the same.
#[test]
fn a_frame_of_a_terminal_holds_what_is_printed_once() {
    let mut screen = screen();
    let mut terminal = Terminal::new(TestBackend::new(80, 6)).unwrap();
    terminal.draw(|frame| screen.draw(frame)).unwrap();
    let buffer = terminal.backend().buffer();
    let rows = (0..5).map(|y| (0..80).map(|x| buffer[(x, y)].symbol()).collect::<String>());
    let rows: String = rows.map(|row| format!("{}\n", row.trim_end())).collect();
    assert_eq!(rows, text(&mut screen, 80, 6));
    let cursor = buffer[(0, 2)].style();
    assert!(cursor.add_modifier.contains(Modifier::REVERSED));
    assert!(buffer.content().iter().all(|cell| cell.fg == Color::Reset), "no colours were asked for");
}

#[test]
fn the_window_follows_the_cursor_through_many_services() {
    let mut screen = Screen::new(true);
    let many = (0..100).map(|number| samples::down(&format!("s{number:02}"))).collect();
    screen.update(sample(60, many));
    assert!(text(&mut screen, 80, 6).contains("> s00"));
    press(&mut screen, KeyCode::End);
    let shown = text(&mut screen, 80, 6);
    assert!(shown.contains("  s97") && shown.contains("> s99"), "{shown}");
    press(&mut screen, KeyCode::Up);
    assert!(text(&mut screen, 80, 6).contains("  s97"), "it moves no more than it must");
    press(&mut screen, KeyCode::PageUp);
    assert!(text(&mut screen, 80, 6).contains("> s88"));
    for rows in 0..4 {
        text(&mut screen, 80, rows);
    }
}

fn press(screen: &mut Screen, code: KeyCode) -> Option<Wish> {
    screen.update(Input::Key(KeyEvent::new(code, KeyModifiers::NONE)))
}

fn type_in(screen: &mut Screen, keys: &str) -> Option<Wish> {
    keys.chars().fold(None, |_, key| press(screen, KeyCode::Char(key)))
}

#[test]
fn at_80_columns_there_are_all_figures() {
    assert_eq!(
        text(&mut screen(), 80, 6),
        concat!(
            "hermes-sup up 1m1s, keeper: 3 services, 1 up, 1 failed\n",
            "  NAME           STATE      CPU%*         MEMORY   TASKS    IO/s   RST  TREND\n",
            "> busy           up          50.0     12.3M/512M       5    2.0K     2  ▂▅\n",
            "  a-rath…ateway  down           -              -       -       -     0  ▁▁\n",
            "  broken         backoff        -              -       -       -     7  ▁▁\n",
        )
    );
}

/// Keys and what they do ended in the middle of a word.
#[test]
fn at_80_columns_no_key_is_shown_in_part() {
    let mut screen = screen();
    let mut foot = |columns: u16| {
        let mut terminal = Terminal::new(TestBackend::new(columns, 6)).unwrap();
        terminal.draw(|frame| screen.draw(frame)).unwrap();
        let buffer = terminal.backend().buffer();
        (0..columns).map(|x| buffer[(x, 5)].symbol()).collect::<String>().trim_end().to_owned()
    };
    assert!(foot(80).ends_with("  r restart"), "{}", foot(80));
    assert!(foot(200).ends_with("  ! failed"), "{}", foot(200));
    assert_eq!((foot(10), foot(3)), ("? help".to_owned(), String::new()));
    assert!(HELP.iter().all(|line| line.chars().count() <= 80));
    press(&mut screen, KeyCode::Char('?'));
    assert_eq!(screen.page, Page::Help);
    press(&mut screen, KeyCode::Char('?'));
    assert_eq!(screen.page, Page::Table);
}

#[test]
fn at_200_columns_there_are_names_in_full_and_reasons() {
    let shown = text(&mut screen(), 200, 6);
    assert!(shown.contains("a-rather-long-name-of-a-gateway"), "{shown}");
    assert!(shown.contains("UPTIME  REASON") && shown.contains("exited with code 1"), "{shown}");
    for columns in [10, 20, 40, 60, 80, 100, 200] {
        let shown = text(&mut screen(), columns, 6);
        assert!(shown.lines().all(|line| line.chars().count() <= usize::from(columns)), "{shown}");
    }
}

#[test]
fn the_cursor_stays_on_its_service_while_rows_move() {
    let mut screen = screen();
    press(&mut screen, KeyCode::Down);
    press(&mut screen, KeyCode::Down);
    assert_eq!(screen.selected.as_deref(), Some("broken"));
    // By name, which is another order.
    for _ in 0..2 {
        press(&mut screen, KeyCode::Char('<'));
    }
    assert_eq!(screen.selected.as_deref(), Some("broken"));
    let names: Vec<&str> = screen.rows().iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["a-rather-long-name-of-a-gateway", "broken", "busy"]);
    press(&mut screen, KeyCode::Char('v'));
    assert_eq!(screen.rows()[0].name, "busy");
    // It goes away.
    screen.update(sample(62, vec![samples::down("other")]));
    assert_eq!(screen.selected.as_deref(), Some("other"));
    assert_eq!(screen.courses.len(), 1, "nothing is kept of what is gone");
}

#[test]
fn what_is_typed_filters_and_escape_shows_all() {
    let mut screen = screen();
    assert_eq!(type_in(&mut screen, "/bq"), None, "q is a letter there");
    assert!(screen.rows().is_empty());
    assert!(text(&mut screen, 80, 6).contains("no services to show"));
    press(&mut screen, KeyCode::Backspace);
    press(&mut screen, KeyCode::Enter);
    assert_eq!(screen.rows().len(), 2);
    assert!(text(&mut screen, 80, 6).contains("filter 'b'"));
    type_in(&mut screen, "!");
    assert_eq!(screen.rows().len(), 1, "what has failed");
    type_in(&mut screen, "/");
    press(&mut screen, KeyCode::Esc);
    type_in(&mut screen, "!");
    assert_eq!(screen.rows().len(), 3);
}

#[test]
fn orders_that_end_something_ask_first() {
    let mut screen = screen();
    let order = |order| Some(Wish::Do(order, "busy".to_owned()));
    assert_eq!(type_in(&mut screen, "x"), None);
    assert_eq!(screen.prompt().as_deref(), Some("stop busy? y/n"));
    assert_eq!(type_in(&mut screen, "n"), None);
    assert_eq!(type_in(&mut screen, "y"), None, "that was over");
    assert_eq!(type_in(&mut screen, "xy"), order(Order::Stop));
    assert_eq!(type_in(&mut screen, "ry"), order(Order::Restart));
    assert_eq!(type_in(&mut screen, "fy"), order(Order::Freeze));
    assert_eq!(type_in(&mut screen, "s"), order(Order::Start));
    let mut frozen = services();
    frozen[2].frozen = true;
    screen.update(sample(62, frozen));
    assert_eq!(type_in(&mut screen, "f"), order(Order::Thaw));
    assert!(text(&mut screen, 80, 6).contains("frozen"));
    assert_eq!(type_in(&mut screen, "q"), Some(Wish::Quit));
}

#[test]
fn a_tree_and_a_log_are_followed_and_read_to_the_end() {
    let mut screen = screen();
    assert_eq!(type_in(&mut screen, "t"), Some(Wish::Tree("busy".to_owned())));
    let tree = crate::control::protocol::Tree { name: "busy".to_owned(), ..samples::tree() };
    screen.update(Input::Tree(tree));
    let shown = text(&mut screen, 80, 10);
    assert!(shown.contains("processes of busy") && shown.contains("├─ cat"), "{shown}");
    assert_eq!(screen.update(sample(62, services())), Some(Wish::Tree("busy".to_owned())));

    assert_eq!(type_in(&mut screen, "l"), Some(Wish::Log("busy".to_owned())));
    let lines = |count: usize| Input::Log((0..count).map(|line| format!("line {line}")).collect());
    screen.update(lines(50));
    let shown = text(&mut screen, 80, 6);
    assert!(shown.ends_with("line 48\nline 49\n"), "it begins at its end: {shown}");
    press(&mut screen, KeyCode::Home);
    assert!(text(&mut screen, 80, 6).contains("line 0\n"));
    press(&mut screen, KeyCode::End);
    screen.update(lines(60));
    assert!(text(&mut screen, 80, 6).contains("line 59"), "who is at the end stays there");
    // Another service's late answer.
    screen.update(Input::Tree(samples::tree()));
    assert!(text(&mut screen, 80, 6).contains("line 59"));
    assert_eq!(type_in(&mut screen, "q"), None, "back");
    assert_eq!(screen.page, Page::Table);
    type_in(&mut screen, "?");
    assert!(text(&mut screen, 80, 20).contains("freeze, asks first"));
}

/// Whatever a service says of itself is written as text.
#[test]
fn nothing_of_a_service_reaches_the_terminal_as_a_control_sequence() {
    let mut screen = screen();
    let mut service = samples::service("evil");
    service.reason = Some("\x1b[2J\u{202e}".to_owned());
    screen.update(sample(62, vec![service]));
    type_in(&mut screen, "l");
    screen.update(Input::Log(vec!["\x1b]0;title\x07".to_owned()]));
    assert!(text(&mut screen, 80, 6).contains("\\u{1b}]0;title"));
    press(&mut screen, KeyCode::Esc);
    assert!(text(&mut screen, 200, 6).contains("\\u{1b}[2J"));
    screen.update(Input::Told("done \x1b[2J".to_owned()));
    assert!(!text(&mut screen, 80, 6).contains('\x1b'));
}
