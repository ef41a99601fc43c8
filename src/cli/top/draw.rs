//! How the screen of `top` looks. Everything is readable without colours: the cursor is a mark, a state a word.

use super::super::render::{bytes, duration, printable};
use super::screen::{Page, Screen, Sort, word};
use crate::control::protocol::{ServiceStatus, State};
use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};

/// Rows that are not the table's: the head, its headings, the foot.
pub const AROUND: u16 = 3;
const CURSOR: &str = "> ";
const GAP: u16 = 2;
/// Of the sparkline, samples that a row has room for.
const SPARK: usize = 8;
const KEYS: &str =
    "? help  q quit  / filter  < > sort  t tree  l log  s start  x stop  r restart  f freeze  ! failed";

/// What the keys do; no line is wider than a terminal of 80 columns.
pub const HELP: &[&str] = &[
    "up down j k PgUp PgDn g G   move",
    "/                           only names that contain what is typed; Esc: all",
    "!                           only what has failed, or all",
    "< >                         sort by another column; v turns the order round",
    "t Enter                     the processes of the service",
    "l                           the end of its log",
    "s                           start",
    "x                           stop, asks first",
    "r                           restart, asks first",
    "f                           freeze, asks first; what is frozen is thawed",
    "?                           this page, and back",
    "q Esc                       back, then q ends",
    "",
    "CPU is the percent of one processor since the last sample.",
    "MEMORY is what is used, and its limit.",
    "IO is what was read and written in a second.",
    "A state is 'unready' where its [ready] has not come true.",
];

/// As many keys as there is room for, none of them in part.
fn keys(width: u16) -> &'static str {
    let end = usize::from(width);
    if KEYS.len() <= end {
        return KEYS;
    }
    let whole = KEYS.match_indices("  ").map(|(at, _)| at).take_while(|at| *at <= end).last();
    &KEYS[..whole.unwrap_or(0)]
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Column {
    Name,
    State,
    Cpu,
    Memory,
    Tasks,
    Io,
    Restarts,
    Trend,
    Pid,
    Uptime,
    Reason,
}

impl Column {
    /// Heading, width, and what it is sorted by.
    fn shape(self) -> (&'static str, u16, Option<Sort>) {
        match self {
            Self::Name => ("NAME", 0, Some(Sort::Name)),
            Self::State => ("STATE", 8, Some(Sort::State)),
            Self::Cpu => ("CPU%", 6, Some(Sort::Cpu)),
            Self::Memory => ("MEMORY", 13, Some(Sort::Memory)),
            Self::Tasks => ("TASKS", 6, Some(Sort::Tasks)),
            Self::Io => ("IO/s", 6, Some(Sort::Io)),
            Self::Restarts => ("RST", 4, Some(Sort::Restarts)),
            Self::Trend => ("TREND", 8, None),
            Self::Pid => ("PID", 7, None),
            Self::Uptime => ("UPTIME", 7, None),
            Self::Reason => ("REASON", 0, None),
        }
    }

    fn is_number(self) -> bool {
        !matches!(self, Self::Name | Self::State | Self::Trend | Self::Reason)
    }

    fn text(self, screen: &Screen, service: &ServiceStatus) -> String {
        let absent = || "-".to_owned();
        let course = screen.courses.get(&service.name);
        match self {
            Self::Name => printable(&service.name).into_owned(),
            Self::State => word(service).to_owned(),
            Self::Cpu => course.and_then(|course| course.cpu).map_or_else(absent, |cpu| format!("{cpu:.1}")),
            Self::Memory => {
                let used = service.memory_bytes.map_or_else(absent, bytes);
                let limit = service.limits.as_ref().and_then(|limits| limits.get("memory_max"));
                match limit {
                    Some(limit) => format!("{used}/{}", printable(limit)),
                    None => used,
                }
            }
            Self::Tasks => service.procs.map_or_else(absent, |count| count.to_string()),
            Self::Io => course.and_then(|course| course.io).map_or_else(absent, bytes),
            Self::Restarts => service.restarts.to_string(),
            Self::Trend => {
                course.map(|course| spark(course.trend.iter().rev().take(SPARK))).unwrap_or_default()
            }
            Self::Pid => service.pid.map_or_else(absent, |pid| pid.to_string()),
            Self::Uptime => service.uptime_ms.map_or_else(absent, duration),
            Self::Reason => {
                service.reason.as_deref().map(|why| printable(why).into_owned()).unwrap_or_default()
            }
        }
    }
}

/// The newest first as they come, the newest last as they are shown; a full block is one processor and more.
fn spark<'a>(newest_first: impl Iterator<Item = &'a f64>) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let block = |percent: &f64| BLOCKS[((percent / 100.0 * 7.0).ceil().clamp(0.0, 7.0)) as usize];
    let mut blocks: Vec<char> = newest_first.map(block).collect();
    blocks.reverse();
    blocks.into_iter().collect()
}

impl Screen {
    pub fn draw(&mut self, frame: &mut Frame<'_>) {
        let area = frame.area();
        self.paint(area, frame.buffer_mut());
    }

    /// By hand rather than by widgets: their layout is a solver of equations, which the columns here do not need.
    pub fn paint(&mut self, area: Rect, buffer: &mut Buffer) {
        let Rect { y: top, height, .. } = area;
        let mut row = |number: u16, text: &str, style: Style| {
            if number < height {
                buffer.set_stringn(area.x, top + number, printable(text), area.width.into(), style);
            }
        };
        row(0, &self.head(), Style::new());
        let prompt = self.prompt();
        let foot = prompt.as_deref().or(self.told.as_deref()).unwrap_or(keys(area.width));
        let style = if prompt.is_some() { bold() } else { Style::new() };
        row(height.saturating_sub(1), foot, style);
        let body = Rect { y: top + 1, height: height.saturating_sub(2), ..area };
        let title = match &self.page {
            Page::Table => return self.paint_table(body, buffer),
            Page::Tree(name) => format!("processes of {name}"),
            Page::Log(name) => format!("log of {name}"),
            Page::Help => "keys".to_owned(),
        };
        row(1, &title, bold());
        self.window = usize::from(body.height.saturating_sub(1));
        // The last page is a full one.
        self.scroll = if self.at_end { self.last_top() } else { self.scroll.min(self.last_top()) };
        for (number, line) in (2..).zip(self.lines.iter().skip(self.scroll).take(self.window)) {
            row(number, line, Style::new());
        }
    }

    fn head(&self) -> String {
        let Some(sample) = &self.sample else { return "waiting for the supervisor".to_owned() };
        let count =
            |wanted: fn(&ServiceStatus) -> bool| sample.services.iter().filter(|one| wanted(one)).count();
        let mut text = format!(
            "hermes-sup up {}, {}: {} service{}, {} up, {} failed",
            duration(sample.supervisor.uptime_ms),
            sample.supervisor.containment,
            sample.services.len(),
            if sample.services.len() == 1 { "" } else { "s" },
            count(|one| one.state.is_up()),
            count(crate::monitor::verdict::has_failed),
        );
        if !self.filter.is_empty() {
            text.push_str(&format!(", filter '{}'", self.filter));
        }
        if self.failed_only {
            text.push_str(", failed only");
        }
        if let Some(warning) = sample.supervisor.warnings.first() {
            text.push_str(&format!(", warning: {warning}"));
        }
        text
    }

    fn paint_table(&mut self, area: Rect, buffer: &mut Buffer) {
        let Some(room) = area.height.checked_sub(1) else { return };
        let rows = self.rows();
        let longest = rows.iter().map(|service| service.name.chars().count()).max().unwrap_or(0);
        let columns = columns(area.width, u16::try_from(longest).unwrap_or(u16::MAX));
        let mut x = area.x + CURSOR.len() as u16;
        let places = columns.iter().map(|(column, width)| {
            let place = (*column, x, *width);
            x += width + GAP;
            place
        });
        let places: Vec<(Column, u16, u16)> = places.collect();
        for (column, x, width) in &places {
            let (heading, _, sort) = column.shape();
            let is_sorted = sort == Some(self.sort);
            let heading = if is_sorted { format!("{heading}*") } else { heading.to_owned() };
            let style = if is_sorted { bold() } else { Style::new() };
            cell(buffer, *column, (*x, area.y, *width), &heading, style);
        }
        if rows.is_empty() && room > 0 {
            let text = "  no services to show";
            buffer.set_stringn(area.x, area.y + 1, text, area.width.into(), Style::new());
        }
        // The window follows the cursor.
        let at = rows.iter().position(|service| self.selected.as_deref() == Some(&service.name));
        let (at, room) = (at.unwrap_or(0), usize::from(room));
        let first = self.first.min(at).max((at + 1).saturating_sub(room));
        for (y, (number, service)) in (area.y + 1..).zip(rows.iter().enumerate().skip(first).take(room)) {
            for (column, x, width) in &places {
                let style = match column {
                    Column::State if self.color => Style::new().fg(color(service)),
                    _ => Style::new(),
                };
                cell(buffer, *column, (*x, y, *width), &column.text(self, service), style);
            }
            if number == at {
                buffer.set_stringn(area.x, y, CURSOR, area.width.into(), Style::new());
                let line = Rect { y, height: 1, ..area };
                buffer.set_style(line, Style::new().add_modifier(Modifier::REVERSED));
            }
        }
        self.first = first;
    }
}

/// Writes into the place `x, y, width` of a column.
fn cell(buffer: &mut Buffer, column: Column, (x, y, width): (u16, u16, u16), text: &str, style: Style) {
    let text = if column == Column::Name { squeeze(text, width) } else { text.to_owned() };
    let wide = usize::from(width);
    let text = if column.is_number() { format!("{text:>wide$}") } else { text };
    buffer.set_stringn(x, y, text, width.into(), style);
}

/// A name that is too long, without its middle: names differ at their ends.
fn squeeze(name: &str, width: u16) -> String {
    let (length, width) = (name.chars().count(), usize::from(width));
    if length <= width {
        return name.to_owned();
    }
    let end = width.saturating_sub(1) / 2;
    let begin = width.saturating_sub(1) - end;
    let (first, last) = (name.chars().take(begin), name.chars().skip(length - end));
    first.chain(std::iter::once('…')).chain(last).collect()
}

fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

fn color(service: &ServiceStatus) -> Color {
    match service.state {
        State::Up | State::Ready | State::Served => Color::Green,
        State::Failed | State::Refused => Color::Red,
        State::Starting | State::Stopping | State::Backoff => Color::Yellow,
        State::Down | State::Finished | State::Parked => Color::DarkGray,
    }
}

/// Which columns a window of this width has room for, each with its own. The name takes what it needs, as far as that is there;
/// the reason gets what is left.
fn columns(width: u16, longest_name: u16) -> Vec<(Column, u16)> {
    use Column::{Cpu, Io, Memory, Name, Pid, Reason, Restarts, State, Tasks, Trend, Uptime};
    let room = width.saturating_sub(CURSOR.len() as u16);
    let taken = |columns: &[Column]| columns.iter().map(|column| column.shape().1 + GAP).sum::<u16>();
    let choices: [&[Column]; 5] = [
        &[State, Cpu, Memory, Tasks, Io, Restarts, Trend, Pid, Uptime],
        &[State, Cpu, Memory, Tasks, Io, Restarts, Trend],
        &[State, Cpu, Memory, Tasks, Restarts],
        &[State, Cpu, Memory],
        &[State],
    ];
    let name = longest_name.max(NAME_AT_LEAST);
    let fits = |choice: &&[Column]| taken(choice) + name.min(NAME_AT_MOST) <= room;
    let choice = choices.into_iter().find(fits).unwrap_or(&[]);
    let name = name.min(room.saturating_sub(taken(choice)));
    let rest = room.saturating_sub(taken(choice) + name);
    let with_reason = rest >= REASON_AT_LEAST + GAP;
    let mut columns = vec![(Name, name)];
    columns.extend(choice.iter().map(|column| (*column, column.shape().1)));
    if with_reason {
        columns.push((Reason, rest - GAP));
    }
    columns
}

const NAME_AT_LEAST: u16 = 8;
/// A longer name is cut rather than a column left out.
const NAME_AT_MOST: u16 = 13;
const REASON_AT_LEAST: u16 = 12;
