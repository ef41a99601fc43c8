//! `top`: all services on one screen, and the orders of every day by keys.
//!
//! `screen` is the pure part and `draw` how it looks. Here is the terminal, which this alone of the command line writes to by
//! itself, and the thread that asks the supervisor: whatever that takes, keys are answered.

mod draw;
mod screen;
#[cfg(test)]
mod tests;

use super::args::Ctl;
use super::ctl::PATIENCE;
use super::logs::LogFiles;
use super::render::Console;
use crate::control::client::{Client, ClientError, Search};
use crate::control::protocol::{Code, Part, Request, Targets, Tree};
use crossterm::event::{self, Event, KeyEventKind};
use crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use crossterm::{cursor, execute};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use screen::{Input, LOG_LINES, Order, Sample, Screen, Wish};
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// How often answers of the other thread are looked for while no key is pressed.
const GLANCE: Duration = Duration::from_millis(100);
/// Of one frame as text, where there is no terminal.
const COLUMNS: u16 = 120;
/// More services than this are left out of one frame as text.
const MOST_ROWS: usize = 10_000;

/// Shows the screen until its user has enough of it, or with `once` one frame of it as text.
pub fn run(
    ctl: &Ctl,
    once: bool,
    interval: Duration,
    console: &mut Console<'_>,
    files: &dyn LogFiles,
) -> Code {
    if once {
        return frame(ctl, console);
    }
    if !console.terminal {
        console.error("top needs a terminal: with --once it prints one frame");
        return Code::Failed;
    }
    // Who is not there is told in words, not by an empty screen.
    let first = match sample(&ctl.search) {
        Ok(sample) => sample,
        Err(error) => {
            console.error(&error.to_string());
            return error.code();
        }
    };
    let mut screen = Screen::new(console.color);
    screen.update(Input::Sample(Box::new(first)));
    match show(&mut screen, &ctl.search, interval, files) {
        Ok(()) => Code::Done,
        Err(error) => {
            console.error(&format!("failed to use the terminal: {error}"));
            Code::Failed
        }
    }
}

/// One frame, as wide as the terminal, and as long as there are services.
fn frame(ctl: &Ctl, console: &mut Console<'_>) -> Code {
    let sample = match sample(&ctl.search) {
        Ok(sample) => sample,
        Err(error) => {
            console.error(&error.to_string());
            return error.code();
        }
    };
    let columns = console.columns.and_then(|columns| u16::try_from(columns).ok()).unwrap_or(COLUMNS);
    let rows = u16::try_from(sample.services.len().clamp(1, MOST_ROWS)).unwrap_or(u16::MAX);
    let mut screen = Screen::new(false);
    screen.update(Input::Sample(Box::new(sample)));
    console.show(&text(&mut screen, columns, rows + draw::AROUND));
    Code::Done
}

/// The screen in a window of this size, as lines without what ends them empty, and without its foot, which is about keys.
fn text(screen: &mut Screen, columns: u16, rows: u16) -> String {
    let area = Rect::new(0, 0, columns, rows);
    let mut buffer = Buffer::empty(area);
    screen.paint(area, &mut buffer);
    let line = |row: u16| {
        let cells: String = (0..columns).map(|column| buffer[(column, row)].symbol()).collect();
        format!("{}\n", cells.trim_end())
    };
    (0..rows.saturating_sub(1)).map(line).collect()
}

/// What the other thread is asked for.
enum Question {
    Tree(String),
    /// A sample, now.
    Look,
}

fn show(screen: &mut Screen, search: &Search, interval: Duration, files: &dyn LogFiles) -> io::Result<()> {
    let (answers, answered) = channel();
    let (questions, asked) = channel();
    std::thread::spawn({
        let (search, answers) = (search.clone(), answers.clone());
        move || ask(&search, interval, &asked, &answers)
    });
    let _guard = Guard::enter()?;
    let mut terminal = Terminal::new(CrosstermBackend::new(io::stdout()))?;
    let mut is_new = true;
    loop {
        if std::mem::take(&mut is_new) {
            terminal.draw(|frame| screen.draw(frame))?;
        }
        let mut inputs = Vec::new();
        if event::poll(GLANCE)? {
            match event::read()? {
                Event::Key(key) if key.kind != KeyEventKind::Release => inputs.push(Input::Key(key)),
                Event::Resize(..) => is_new = true,
                _ => {}
            }
        }
        while let Ok(input) = answered.try_recv() {
            inputs.push(input);
        }
        for input in inputs {
            is_new = true;
            match screen.update(input) {
                None => {}
                Some(Wish::Quit) => return Ok(()),
                // A thread that has ended has said why.
                Some(Wish::Tree(name)) => drop(questions.send(Question::Tree(name))),
                Some(Wish::Log(name)) => {
                    let dir = screen.find(&name).and_then(|service| service.log.clone());
                    let lines = dir.map(|dir| files.tail(&dir, LOG_LINES)).unwrap_or_default();
                    screen.update(Input::Log(lines));
                }
                Some(Wish::Do(order, name)) => {
                    screen.update(Input::Told(format!("{} {name} …", order.as_str())));
                    let (search, answers, questions) = (search.clone(), answers.clone(), questions.clone());
                    // A stop takes as long as the service does; meanwhile others can be stopped too.
                    std::thread::spawn(move || {
                        let told = carry_out(&search, order, &name);
                        let _ = answers.send(Input::Told(told));
                        let _ = questions.send(Question::Look);
                    });
                }
            }
        }
    }
}

/// Puts the terminal back as it was, however this ends.
struct Guard;

impl Guard {
    fn enter() -> io::Result<Self> {
        enable_raw_mode()?;
        let guard = Self;
        execute!(io::stdout(), EnterAlternateScreen, cursor::Hide)?;
        Ok(guard)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Where the terminal is gone, there is nothing to put back.
        let _ = execute!(io::stdout(), cursor::Show, LeaveAlternateScreen);
        let _ = disable_raw_mode();
        let _ = io::stdout().flush();
    }
}

/// The other thread: a sample each `interval`, and what is asked for in between. It ends with the screen.
fn ask(search: &Search, interval: Duration, asked: &Receiver<Question>, answers: &Sender<Input>) {
    loop {
        let answer = match asked.recv_timeout(interval) {
            Ok(Question::Tree(name)) => match tree(search, &name) {
                Ok(tree) => Input::Tree(tree),
                Err(error) => Input::Told(error.to_string()),
            },
            Ok(Question::Look) | Err(RecvTimeoutError::Timeout) => match sample(search) {
                Ok(sample) => Input::Sample(Box::new(sample)),
                Err(error) => Input::Told(error.to_string()),
            },
            Err(RecvTimeoutError::Disconnected) => return,
        };
        if answers.send(answer).is_err() {
            return;
        }
    }
}

fn sample(search: &Search) -> Result<Sample, ClientError> {
    let mut client = Client::connect(search)?;
    let (mut supervisor, mut services) = (None, Vec::new());
    client.call(&Request::Status { targets: Targets::All }, Some(PATIENCE), |part| match part {
        Part::Supervisor(status) => supervisor = Some(*status),
        Part::Service(service) => services.push(*service),
        _ => {}
    })?;
    let ended = || ClientError::Ended { path: client.path().to_owned() };
    Ok(Sample { supervisor: supervisor.ok_or_else(ended)?, services })
}

fn tree(search: &Search, name: &str) -> Result<Tree, ClientError> {
    let mut trees = Vec::new();
    let targets = Targets::Names(vec![name.to_owned()]);
    Client::connect(search)?.call(&Request::Tree { targets }, Some(PATIENCE), |part| {
        if let Part::Tree(part) = part {
            super::tree::join(&mut trees, part);
        }
    })?;
    let empty = || Tree { name: name.to_owned(), processes: Vec::new(), left_out: 0 };
    Ok(trees.pop().unwrap_or_else(empty))
}

/// Does it, and says in a line what came of it.
fn carry_out(search: &Search, order: Order, name: &str) -> String {
    let targets = Targets::Names(vec![name.to_owned()]);
    let request = match order {
        Order::Start => Request::Start { targets, timeout_ms: None, force: false },
        Order::Stop => Request::Stop { targets },
        Order::Restart => Request::Restart { targets, timeout_ms: None, rolling: None },
        Order::Freeze => Request::Freeze { targets },
        Order::Thaw => Request::Thaw { targets },
    };
    let mut told = String::new();
    let called = Client::connect(search).and_then(|mut client| {
        client.call(&request, None, |part| {
            if let Part::Outcome(outcome) = part {
                let state = outcome.state.map_or("done", |state| state.as_str());
                told = format!("{}: {}", outcome.name, outcome.message.as_deref().unwrap_or(state));
            }
        })
    });
    match called {
        Ok(()) => told,
        Err(error) => error.to_string(),
    }
}
