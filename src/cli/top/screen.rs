//! What `top` shows and what keys do to it: a pure machine. It gets keys and samples, and says what is to be done; how it looks
//! is in `draw`.

use super::draw;
use crate::control::protocol::{ServiceStatus, State, SupervisorStatus, Tree};
use crate::monitor::verdict;
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use std::collections::{HashMap, VecDeque};

/// Samples of a service that are kept for its sparkline.
pub const TREND: usize = 60;
/// Lines that a page key moves by.
const PAGE: usize = 10;
/// Lines of a log that are shown.
pub const LOG_LINES: usize = 200;

/// What happened.
#[derive(Debug)]
pub enum Input {
    Key(KeyEvent),
    Sample(Box<Sample>),
    /// The processes of the service that is looked at.
    Tree(Tree),
    /// The last lines of the log of the service that is looked at.
    Log(Vec<String>),
    /// What became of an order, or why there is no sample: a line for the operator.
    Told(String),
}

/// One status of everything.
#[derive(Debug, Clone)]
pub struct Sample {
    pub supervisor: SupervisorStatus,
    pub services: Vec<ServiceStatus>,
}

/// What is to be done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    Quit,
    Tree(String),
    Log(String),
    Do(Order, String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Start,
    Stop,
    Restart,
    Freeze,
    Thaw,
}

impl Order {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Freeze => "freeze",
            Self::Thaw => "thaw",
        }
    }
}

/// What the rows are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    Name,
    State,
    Cpu,
    Memory,
    Tasks,
    Io,
    Restarts,
}

impl Sort {
    const ALL: [Self; 7] =
        [Self::Name, Self::State, Self::Cpu, Self::Memory, Self::Tasks, Self::Io, Self::Restarts];

    /// Words come from a to z, numbers with the largest first.
    fn falls(self) -> bool {
        !matches!(self, Self::Name | Self::State)
    }

    fn next(self, back: bool) -> Self {
        let at = Self::ALL.iter().position(|sort| *sort == self).unwrap_or(0);
        let step = if back { Self::ALL.len() - 1 } else { 1 };
        Self::ALL[(at + step) % Self::ALL.len()]
    }
}

/// What fills the screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Page {
    Table,
    Tree(String),
    Log(String),
    Help,
}

/// What a key is for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Mode {
    Browse,
    /// The filter is typed.
    Filter,
    /// An order waits for a yes.
    Confirm(Order, String),
}

/// What is known of a service beside its status.
#[derive(Debug, Default)]
pub struct Course {
    cpu_ms: Option<u64>,
    io_bytes: Option<u64>,
    /// Percent of one processor, since the last sample; of the first one, since it runs.
    pub cpu: Option<f64>,
    /// Bytes a second, read and written.
    pub io: Option<u64>,
    /// `cpu` of the last samples, the newest last.
    pub trend: VecDeque<f64>,
}

#[derive(Debug)]
pub struct Screen {
    pub sample: Option<Sample>,
    pub courses: HashMap<String, Course>,
    pub sort: Sort,
    pub reversed: bool,
    pub filter: String,
    pub failed_only: bool,
    pub page: Page,
    mode: Mode,
    /// The name under the cursor.
    pub selected: Option<String>,
    /// The row at the top of the window.
    pub first: usize,
    /// Lines of the page above the window.
    pub scroll: usize,
    pub lines: Vec<String>,
    /// The end of the page stays in view, whatever it grows by.
    pub at_end: bool,
    /// Lines that the window had room for.
    pub window: usize,
    pub told: Option<String>,
    pub color: bool,
}

impl Screen {
    pub fn new(color: bool) -> Self {
        Self {
            sample: None,
            courses: HashMap::new(),
            sort: Sort::Cpu,
            reversed: false,
            filter: String::new(),
            failed_only: false,
            page: Page::Table,
            mode: Mode::Browse,
            selected: None,
            first: 0,
            scroll: 0,
            lines: Vec::new(),
            at_end: false,
            window: 0,
            told: None,
            color,
        }
    }

    pub fn update(&mut self, input: Input) -> Option<Wish> {
        match input {
            Input::Key(key) => self.key(key),
            Input::Sample(sample) => {
                self.take(*sample);
                // What is looked at is followed.
                match &self.page {
                    Page::Tree(name) => Some(Wish::Tree(name.clone())),
                    Page::Log(name) => Some(Wish::Log(name.clone())),
                    Page::Table | Page::Help => None,
                }
            }
            Input::Tree(tree) => {
                if self.page == Page::Tree(tree.name.clone()) {
                    let text = super::super::tree::show(&[tree]);
                    self.lines = text.lines().map(str::to_owned).collect();
                }
                None
            }
            Input::Log(lines) => {
                if matches!(self.page, Page::Log(_)) {
                    self.lines = lines;
                }
                None
            }
            Input::Told(text) => {
                self.told = Some(text);
                None
            }
        }
    }

    fn take(&mut self, sample: Sample) {
        let passed = self.sample.as_ref().map(|last| {
            sample.supervisor.uptime_ms.checked_sub(last.supervisor.uptime_ms).filter(|passed| *passed > 0)
        });
        self.courses.retain(|name, _| sample.services.iter().any(|service| service.name == *name));
        for service in &sample.services {
            let course = self.courses.entry(service.name.clone()).or_default();
            course.take(service, passed.flatten());
        }
        self.sample = Some(sample);
        self.keep_cursor();
    }

    /// The services that are shown, in order.
    pub fn rows(&self) -> Vec<&ServiceStatus> {
        let all = self.sample.iter().flat_map(|sample| &sample.services);
        let mut rows: Vec<&ServiceStatus> = all
            .filter(|service| service.name.contains(&self.filter))
            .filter(|service| !self.failed_only || verdict::has_failed(service))
            .collect();
        let course = |service: &ServiceStatus| self.courses.get(&service.name);
        let falls = self.sort.falls() != self.reversed;
        rows.sort_by(|a, b| {
            let order = match self.sort {
                Sort::Name => a.name.cmp(&b.name),
                Sort::State => a.state.as_str().cmp(b.state.as_str()),
                Sort::Cpu => {
                    let cpu = |one| course(one).and_then(|course| course.cpu).unwrap_or(-1.0);
                    cpu(a).total_cmp(&cpu(b))
                }
                Sort::Memory => a.memory_bytes.cmp(&b.memory_bytes),
                Sort::Tasks => a.procs.cmp(&b.procs),
                Sort::Io => {
                    let io = |one| course(one).and_then(|course| course.io);
                    io(a).cmp(&io(b))
                }
                Sort::Restarts => a.restarts.cmp(&b.restarts),
            };
            let order = if falls { order.reverse() } else { order };
            order.then_with(|| a.name.cmp(&b.name))
        });
        rows
    }

    /// The cursor stays on its service; where that is gone, on the first.
    fn keep_cursor(&mut self) {
        let names: Vec<&str> = self.rows().iter().map(|service| service.name.as_str()).collect();
        let at = names.iter().position(|name| self.selected.as_deref() == Some(name));
        let found = at.or(if names.is_empty() { None } else { Some(0) });
        self.selected = found.map(|at| names[at].to_owned());
    }

    /// The line at the top of the last page.
    pub fn last_top(&self) -> usize {
        self.lines.len().saturating_sub(self.window.max(1))
    }

    /// What is typed on, if something is: the question, or the filter.
    pub fn prompt(&self) -> Option<String> {
        match &self.mode {
            Mode::Browse => None,
            Mode::Filter => Some(format!("filter: {}_", self.filter)),
            Mode::Confirm(order, name) => Some(format!("{} {name}? y/n", order.as_str())),
        }
    }

    fn key(&mut self, key: KeyEvent) -> Option<Wish> {
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Some(Wish::Quit);
        }
        self.told = None;
        match std::mem::replace(&mut self.mode, Mode::Browse) {
            Mode::Browse => self.browse(key.code),
            Mode::Filter => {
                self.type_filter(key.code);
                None
            }
            Mode::Confirm(order, name) => {
                matches!(key.code, KeyCode::Char('y' | 'Y')).then_some(Wish::Do(order, name))
            }
        }
    }

    fn type_filter(&mut self, code: KeyCode) {
        self.mode = Mode::Filter;
        match code {
            KeyCode::Char(c) => self.filter.push(c),
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Esc => {
                self.filter.clear();
                self.mode = Mode::Browse;
            }
            _ => self.mode = Mode::Browse,
        }
        self.keep_cursor();
    }

    fn browse(&mut self, code: KeyCode) -> Option<Wish> {
        match code {
            KeyCode::Char('q') if self.page == Page::Table => return Some(Wish::Quit),
            KeyCode::Char('q') | KeyCode::Esc | KeyCode::Left => self.open(Page::Table),
            KeyCode::Char('?' | 'h') if self.page == Page::Help => self.open(Page::Table),
            KeyCode::Char('?' | 'h') => self.open(Page::Help),
            KeyCode::Up | KeyCode::Char('k') => self.go(1, true),
            KeyCode::Down | KeyCode::Char('j') => self.go(1, false),
            KeyCode::PageUp => self.go(PAGE, true),
            KeyCode::PageDown => self.go(PAGE, false),
            KeyCode::Home | KeyCode::Char('g') => self.go(usize::MAX, true),
            KeyCode::End | KeyCode::Char('G') => self.go(usize::MAX, false),
            KeyCode::Char('/') => {
                self.open(Page::Table);
                self.mode = Mode::Filter;
            }
            KeyCode::Char('>') => self.sort_by(self.sort.next(false)),
            KeyCode::Char('<') => self.sort_by(self.sort.next(true)),
            KeyCode::Char('v') => {
                self.reversed = !self.reversed;
                self.keep_cursor();
            }
            KeyCode::Char('!') => {
                self.failed_only = !self.failed_only;
                self.keep_cursor();
            }
            KeyCode::Char('t') | KeyCode::Enter | KeyCode::Right => {
                let name = self.selected.clone()?;
                self.open(Page::Tree(name.clone()));
                return Some(Wish::Tree(name));
            }
            KeyCode::Char('l') => {
                let name = self.selected.clone()?;
                self.open(Page::Log(name.clone()));
                return Some(Wish::Log(name));
            }
            KeyCode::Char('s') => return self.selected.clone().map(|name| Wish::Do(Order::Start, name)),
            KeyCode::Char('x') => self.ask(Order::Stop),
            KeyCode::Char('r') => self.ask(Order::Restart),
            KeyCode::Char('f') => {
                if self.service().is_some_and(|service| service.frozen) {
                    return self.selected.clone().map(|name| Wish::Do(Order::Thaw, name));
                }
                self.ask(Order::Freeze);
            }
            _ => {}
        }
        None
    }

    /// What ends or halts something is asked for twice.
    fn ask(&mut self, order: Order) {
        if let Some(name) = self.selected.clone() {
            self.mode = Mode::Confirm(order, name);
        }
    }

    /// The service under the cursor.
    pub fn service(&self) -> Option<&ServiceStatus> {
        let name = self.selected.as_deref()?;
        self.find(name)
    }

    pub fn find(&self, name: &str) -> Option<&ServiceStatus> {
        self.sample.as_ref()?.services.iter().find(|service| service.name == name)
    }

    fn open(&mut self, page: Page) {
        if self.page != page {
            self.page = page;
            self.scroll = 0;
            self.at_end = matches!(self.page, Page::Log(_));
            self.lines = match self.page {
                Page::Help => draw::HELP.iter().map(|line| (*line).to_owned()).collect(),
                Page::Table | Page::Tree(_) | Page::Log(_) => Vec::new(),
            };
        }
    }

    fn sort_by(&mut self, sort: Sort) {
        self.sort = sort;
        self.reversed = false;
        self.keep_cursor();
    }

    /// Moves the cursor, or what is read.
    fn go(&mut self, lines: usize, up: bool) {
        let moved = |at: usize, last: usize| {
            if up { at.saturating_sub(lines) } else { at.saturating_add(lines).min(last) }
        };
        match self.page {
            Page::Table => {
                let names: Vec<String> = self.rows().iter().map(|service| service.name.clone()).collect();
                let at = names.iter().position(|name| self.selected.as_ref() == Some(name));
                let at = moved(at.unwrap_or(0), names.len().saturating_sub(1));
                self.selected = names.get(at).cloned();
                self.keep_cursor();
            }
            Page::Tree(_) | Page::Log(_) | Page::Help => {
                self.scroll = moved(self.scroll, self.last_top());
                self.at_end = matches!(self.page, Page::Log(_)) && self.scroll == self.last_top();
            }
        }
    }
}

impl Course {
    /// `passed`: milliseconds since the last sample, if there was one.
    fn take(&mut self, service: &ServiceStatus, passed: Option<u64>) {
        let io = service.io.map(|io| io.read_bytes.saturating_add(io.write_bytes));
        let (cpu, rate) = match passed {
            Some(passed) => {
                // A counter that went back is another life's.
                let grown = |now: Option<u64>, before: Option<u64>| now?.checked_sub(before?);
                let cpu = grown(service.cpu_ms, self.cpu_ms).map(|spent| percent(spent, passed));
                let rate = grown(io, self.io_bytes).map(|moved| moved.saturating_mul(1000) / passed);
                (cpu, rate)
            }
            None => {
                let life = service.uptime_ms.filter(|life| *life > 0);
                (service.cpu_ms.zip(life).map(|(spent, life)| percent(spent, life)), None)
            }
        };
        (self.cpu_ms, self.io_bytes) = (service.cpu_ms, io);
        (self.cpu, self.io) = (cpu, rate);
        if self.trend.len() == TREND {
            self.trend.pop_front();
        }
        self.trend.push_back(cpu.unwrap_or(0.0));
    }
}

fn percent(part: u64, whole: u64) -> f64 {
    part as f64 * 100.0 / whole as f64
}

/// The state in one word, with what the state alone does not say.
pub fn word(service: &ServiceStatus) -> &'static str {
    match service.state {
        State::Up | State::Ready if service.frozen => "frozen",
        State::Up if service.awaits_ready => "unready",
        state => state.as_str(),
    }
}
