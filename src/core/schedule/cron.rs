//! A line of crontab(5): which minutes it names, and when the next one comes on the clock of a zone.
//!
//! Where that clock is set for daylight saving, it is as cron(8) does it. A line that names hours keeps to the calendar: what it has
//! in an hour that is left out runs once, when that hour would have begun; what it has in an hour that comes twice runs the first
//! time only. A line for every hour keeps its distances: it runs in each hour that there is.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::Offset;
use std::fmt;
use std::str::FromStr;

const MINUTE: i64 = 60;
const DAY: i64 = 24 * 60 * MINUTE;
/// 29 February on a Sunday can be 40 years away: 2096 is followed by 2104.
const HORIZON: i64 = 50 * 366 * DAY;

/// A clock on a wall. Times are Unix times in seconds.
pub trait Zone {
    /// How far it is ahead of UTC then, in seconds.
    fn east(&self, unix: i64) -> i64;

    /// When it is set next, after `unix`; `None`: never.
    fn next_change(&self, unix: i64) -> Option<i64>;
}

/// Sets of numbers: bit n stands for n.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    text: String,
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    /// 0 is Sunday.
    weekdays: u64,
    /// A day is meant that is in `days` or in `weekdays`, because neither begins with a `*`.
    either: bool,
}

/// One of the five.
#[derive(Debug, PartialEq, Eq)]
pub struct Field {
    name: &'static str,
    least: u32,
    most: u32,
    /// Of `least` and what follows.
    names: &'static [&'static str],
    allowed: &'static str,
}

static FIELDS: [Field; 5] = [
    Field { name: "minute", least: 0, most: 59, names: &[], allowed: "0 to 59" },
    Field { name: "hour", least: 0, most: 23, names: &[], allowed: "0 to 23" },
    Field { name: "day of month", least: 1, most: 31, names: &[], allowed: "1 to 31" },
    Field {
        name: "month",
        least: 1,
        most: 12,
        names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
        allowed: "1 to 12 or jan to dec",
    },
    Field {
        name: "day of week",
        least: 0,
        most: 7,
        names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
        allowed: "0 to 7 or sun to sat (0 and 7 are Sunday)",
    },
];

const NICKNAMES: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

/// Why a text is no such line: the end of a sentence about it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    #[error(
        "has {0} fields; write five (minute, hour, day of month, month, day of week), as in \"*/5 * * * *\", or one of {nicknames}",
        nicknames = nicknames()
    )]
    Fields(usize),
    #[error("is not known here; allowed: {nicknames}, or five fields", nicknames = nicknames())]
    Nickname,
    #[error("runs at each boot without a 'schedule'; leave it out")]
    Reboot,
    #[error("has {text:?} for the {}; allowed: {}, alone or as in *, A-B, */N, A-B/N and A,B", .field.name, .field.allowed)]
    Value { field: &'static Field, text: String },
    #[error("has {text:?} for the {}, which runs backwards; write two ranges with a comma between them", .field.name)]
    Backwards { field: &'static Field, text: String },
    #[error("names a day that none of its months has")]
    Never,
}

fn nicknames() -> String {
    NICKNAMES.map(|(nickname, _)| nickname).join(", ")
}

impl FromStr for Cron {
    type Err = CronError;

    fn from_str(text: &str) -> Result<Self, CronError> {
        let line = match text.trim() {
            nickname if nickname.starts_with('@') => NICKNAMES
                .iter()
                .find(|(known, _)| nickname.eq_ignore_ascii_case(known))
                .map(|(_, line)| *line)
                .ok_or(match nickname.eq_ignore_ascii_case("@reboot") {
                    true => CronError::Reboot,
                    false => CronError::Nickname,
                })?,
            line => line,
        };
        let words: Vec<&str> = line.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = words[..] else {
            return Err(CronError::Fields(words.len()));
        };
        let [minutes, hours, days, months, weekdays] = &FIELDS;
        // Sunday has two numbers.
        let of_week = weekdays.parse(weekday)?;
        let cron = Self {
            text: text.trim().to_owned(),
            minutes: minutes.parse(minute)?,
            hours: hours.parse(hour)?,
            days: days.parse(day)?,
            months: months.parse(month)?,
            weekdays: (of_week | of_week >> 7) & 0x7f,
            either: !day.starts_with('*') && !weekday.starts_with('*'),
        };
        if cron.never_comes() { Err(CronError::Never) } else { Ok(cron) }
    }
}

impl Field {
    fn parse(&'static self, text: &str) -> Result<u64, CronError> {
        text.split(',').try_fold(0, |set, part| Ok(set | self.part(part)?))
    }

    /// `*`, `A`, `A-B`, `*/N` or `A-B/N`.
    fn part(&'static self, text: &str) -> Result<u64, CronError> {
        let wrong = || CronError::Value { field: self, text: text.to_owned() };
        let (range, step) = match text.split_once('/') {
            Some((range, step)) => (range, Some(number(step).filter(|step| *step > 0).ok_or_else(wrong)?)),
            None => (text, None),
        };
        let (first, last) = match range.split_once('-') {
            _ if range == "*" => (self.least, self.most),
            Some((first, last)) => {
                let (first, last) =
                    (self.value(first).ok_or_else(wrong)?, self.value(last).ok_or_else(wrong)?);
                // The week may end with its Sunday.
                let is_last_sunday = self.most == 7 && last == 0 && first != 0;
                (first, if is_last_sunday { self.most } else { last })
            }
            // What it would mean to count on from a number, each cron says differently.
            None if step.is_some() => return Err(wrong()),
            None => {
                let only = self.value(range).ok_or_else(wrong)?;
                (only, only)
            }
        };
        if first > last {
            return Err(CronError::Backwards { field: self, text: text.to_owned() });
        }
        let step = usize::try_from(step.unwrap_or(1)).unwrap_or(usize::MAX);
        Ok((first..=last).step_by(step).fold(0, |set, n| set | 1 << n))
    }

    fn value(&self, text: &str) -> Option<u32> {
        let named = || {
            let at = self.names.iter().position(|name| name.eq_ignore_ascii_case(text))?;
            Some(self.least + u32::try_from(at).ok()?)
        };
        number(text).or_else(named).filter(|value| (self.least..=self.most).contains(value))
    }
}

/// Digits alone: no sign.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// The smallest number of the set that is not below `from`.
fn at_least(set: u64, from: u32) -> Option<u32> {
    let rest = set.checked_shr(from).filter(|rest| *rest != 0)?;
    Some(from + rest.trailing_zeros())
}

fn has(set: u64, number: i8) -> bool {
    u32::try_from(number).is_ok_and(|number| set >> number & 1 == 1)
}

impl Cron {
    /// When it is due next after `after`, in Unix seconds; `None` only where the calendar ends.
    pub fn next(&self, after: i64, zone: &(impl Zone + ?Sized)) -> Option<i64> {
        let end = after.checked_add(HORIZON)?;
        // From one setting of the clock to the next; no hour that comes twice is longer than the day before.
        let mut at = after.checked_sub(DAY)?;
        // The local time up to which that clock has shown every minute.
        let mut shown = i64::MIN;
        while at < end {
            let east = zone.east(at);
            let until = zone.next_change(at).filter(|until| *until > at).map_or(end, |until| until.min(end));
            let begins = at + east;
            if !self.is_for_every_hour() && at > after && self.first(shown, begins).is_some() {
                return Some(at);
            }
            let begins = if self.is_for_every_hour() { begins } else { begins.max(shown) };
            if let Some(local) = self.first(begins.max(after + 1 + east), until + east) {
                return Some(local - east);
            }
            shown = shown.max(until + east);
            at = until;
        }
        None
    }

    /// The first minute of it from `begin` on and before `end`, both local times: seconds as if the zone were UTC.
    fn first(&self, begin: i64, end: i64) -> Option<i64> {
        let begin = begin.checked_add(MINUTE - 1)?.div_euclid(MINUTE) * MINUTE;
        let start = Offset::UTC.to_datetime(Timestamp::from_second(begin).ok()?);
        let mut date = start.date();
        let mut time = (u32::try_from(start.hour()).ok()?, u32::try_from(start.minute()).ok()?);
        while seconds(date.at(0, 0, 0, 0))? < end {
            if !has(self.months, date.month()) {
                date = date.last_of_month().tomorrow().ok()?;
            } else {
                if self.means(date)
                    && let Some((hour, minute)) = self.time_from(time)
                {
                    let (hour, minute) = (i8::try_from(hour).ok()?, i8::try_from(minute).ok()?);
                    return seconds(date.at(hour, minute, 0, 0)).filter(|at| *at < end);
                }
                date = date.tomorrow().ok()?;
            }
            time = (0, 0);
        }
        None
    }

    fn means(&self, date: Date) -> bool {
        let of_month = has(self.days, date.day());
        let of_week = has(self.weekdays, date.weekday().to_sunday_zero_offset());
        if self.either { of_month || of_week } else { of_month && of_week }
    }

    /// The first hour and minute of it on any day, not before these.
    fn time_from(&self, (hour, minute): (u32, u32)) -> Option<(u32, u32)> {
        let later = || Some((at_least(self.hours, hour + 1)?, at_least(self.minutes, 0)?));
        let in_hour = self.hours >> hour & 1 == 1;
        let minute = at_least(self.minutes, minute).filter(|_| in_hour);
        minute.map_or_else(later, |minute| Some((hour, minute)))
    }

    fn is_for_every_hour(&self) -> bool {
        self.hours == (1 << 24) - 1
    }

    fn never_comes(&self) -> bool {
        // In leap years.
        const DAYS: [u32; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let comes = |(month, days): (usize, u32)| {
            self.months >> (month + 1) & 1 == 1 && at_least(self.days, 1).is_some_and(|day| day <= days)
        };
        !self.either && !DAYS.into_iter().enumerate().any(comes)
    }
}

fn seconds(local: DateTime) -> Option<i64> {
    Offset::UTC.to_timestamp(local).ok().map(|moment| moment.as_second())
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
