//! The TOML of a definition as tables that are asked key by key, each value with its place in the text.
//!
//! The reader of a table asks for every key it knows; what was not asked for in the end is unknown and refused. This walks the
//! parsed tree instead of deriving `Deserialize`, which stops at the first error: a person who corrects a file should
//! see all of them at once, each with what is allowed. Nothing here knows what a key means.

use super::diagnose::{About, Report, quoted};
use super::environment::escaped;
use super::values::{self, ValueError};
use crate::core::near::nearest;
use std::borrow::Cow;
use std::fmt::Display;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

/// Why a value is refused, and where.
#[derive(Debug)]
pub(super) struct Fault {
    pub span: Range<usize>,
    pub message: String,
}

pub(super) type Read<T> = Result<T, Fault>;

/// Texts that stand for others in every string of a template; empty for definitions.
pub(super) type Placeholders<'t> = &'t [(&'static str, String)];

/// One key with its value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item<'t> {
    key: &'t str,
    key_start: usize,
    key_end: usize,
    value: &'t Spanned<DeValue<'t>>,
    placeholders: Placeholders<'t>,
}

impl<'t> Item<'t> {
    pub(super) fn key(&self) -> &'t str {
        self.key
    }

    pub(super) fn span(&self) -> Range<usize> {
        self.value.span()
    }

    pub(super) fn key_span(&self) -> Range<usize> {
        self.key_start..self.key_end
    }

    pub(super) fn fault(&self, message: impl Into<String>) -> Fault {
        Fault { span: self.span(), message: message.into() }
    }

    fn mistyped<T>(&self, expected: &str) -> Read<T> {
        let found = self.value.get_ref().type_str();
        let article = if found.starts_with(['a', 'i']) { "an" } else { "a" };
        Err(self.fault(format!("{} is {article} {found}; write {expected}", quoted(self.key))))
    }

    pub(super) fn text(&self) -> Read<String> {
        self.borrowed_text().map(Cow::into_owned)
    }

    fn borrowed_text(&self) -> Read<Cow<'t, str>> {
        self.replaced(Cow::Borrowed)
    }

    /// A text whose variables are filled in at each start; those of a placeholder's meaning are none.
    pub(super) fn expandable(&self) -> Read<String> {
        self.replaced(|meaning| Cow::Owned(escaped(meaning))).map(Cow::into_owned)
    }

    fn replaced<'m>(&self, as_written: impl Fn(&'m str) -> Cow<'m, str>) -> Read<Cow<'t, str>>
    where
        't: 'm,
    {
        let DeValue::String(text) = self.value.get_ref() else { return self.mistyped("a text in quotes") };
        let mut text = Cow::Borrowed(text.as_ref());
        for (placeholder, meaning) in self.placeholders {
            text = Cow::Owned(text.replace(placeholder, &as_written(meaning)));
        }
        if text.contains('\0') {
            // Such a text cannot be handed to a program: execve(2) takes NUL-terminated ones.
            return Err(self.fault(format!("{} contains a NUL character; none is allowed", quoted(self.key))));
        }
        Ok(text)
    }

    /// A text in a small language of its own; `parse` says what is wrong with it.
    pub(super) fn parsed<T, E: Display>(&self, parse: impl FnOnce(&str) -> Result<T, E>) -> Read<T> {
        let text = self.borrowed_text()?;
        parse(&text).map_err(|wrong| self.fault(format!("{} {wrong}", quoted(&text))))
    }

    /// The same for what may also be written as a whole number without quotes.
    pub(super) fn word<T, E: Display>(&self, parse: impl FnOnce(&str) -> Result<T, E>) -> Read<T> {
        match self.value.get_ref() {
            DeValue::Integer(number) if number.radix() == 10 => {
                let text = number.as_str();
                parse(text).map_err(|wrong| self.fault(format!("{} {wrong}", quoted(text))))
            }
            DeValue::String(_) => self.parsed(parse),
            _ => self.mistyped("a text in quotes or a whole number"),
        }
    }

    pub(super) fn duration(&self, allowed: &RangeInclusive<Duration>) -> Read<Duration> {
        self.parsed(|text| values::duration(text, allowed))
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Read<T> {
        self.parsed(|text| {
            choices.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning).ok_or_else(|| {
                let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
                ValueError::Unknown { allowed: words.join(", ") }
            })
        })
    }

    pub(super) fn boolean(&self) -> Read<bool> {
        match self.value.get_ref() {
            DeValue::Boolean(value) => Ok(*value),
            _ => self.mistyped("true or false"),
        }
    }

    pub(super) fn integer(&self, allowed: &RangeInclusive<u64>) -> Read<u64> {
        let DeValue::Integer(number) = self.value.get_ref() else {
            return self.mistyped("a whole number without quotes");
        };
        match u64::from_str_radix(number.as_str(), number.radix()) {
            Ok(value) if allowed.contains(&value) => Ok(value),
            _ => {
                let (least, most) = (allowed.start(), allowed.end());
                Err(self.fault(format!("{} is out of range; allowed: {least} to {most}", quoted(self.key))))
            }
        }
    }

    pub(super) fn float(&self, allowed: &RangeInclusive<f64>) -> Read<f64> {
        let text = match self.value.get_ref() {
            DeValue::Float(number) => number.as_str(),
            DeValue::Integer(number) if number.radix() == 10 => number.as_str(),
            _ => return self.mistyped("a number without quotes"),
        };
        match text.parse::<f64>() {
            Ok(value) if allowed.contains(&value) => Ok(value),
            _ => {
                let (least, most) = (allowed.start(), allowed.end());
                Err(self.fault(format!("{} is out of range; allowed: {least} to {most}", quoted(self.key))))
            }
        }
    }

    /// A size as text with a unit, or a plain number of bytes.
    pub(super) fn size(&self, allowed: &RangeInclusive<u64>, in_words: &str) -> Read<u64> {
        let bytes = match self.value.get_ref() {
            DeValue::Integer(_) => self.integer(&(0..=u64::MAX))?,
            _ => self.parsed(values::size)?,
        };
        if allowed.contains(&bytes) {
            Ok(bytes)
        } else {
            Err(self.fault(format!("{} is out of range; allowed: {in_words}", quoted(self.key))))
        }
    }

    /// The elements of an array, as items under the same key.
    pub(super) fn elements(&self) -> Read<Vec<Item<'t>>> {
        match self.value.get_ref() {
            DeValue::Array(array) => Ok(array.iter().map(|value| Item { value, ..*self }).collect()),
            _ => self.mistyped("a list in brackets, as in [\"a\", \"b\"]"),
        }
    }

    /// One value, or a list of them.
    pub(super) fn one_or_more(&self) -> Read<Vec<Item<'t>>> {
        if matches!(self.value.get_ref(), DeValue::Array(_)) { self.elements() } else { Ok(vec![*self]) }
    }

    pub(super) fn texts(&self) -> Read<Vec<String>> {
        self.elements()?.iter().map(Item::text).collect()
    }

    pub(super) fn table(&self, section: &'static str) -> Read<Table<'t>> {
        match self.value.get_ref() {
            DeValue::Table(table) => Ok(Table::new(section, table, self.placeholders)),
            _ => self.mistyped("a table, as in { key = \"value\" }"),
        }
    }
}

/// A table that is asked for its keys one by one.
#[derive(Debug)]
pub(super) struct Table<'t> {
    section: &'static str,
    /// `None`: it is absent, so nothing in it can be unknown.
    entries: Option<&'t DeTable<'t>>,
    placeholders: Placeholders<'t>,
    known: Known,
}

/// What was asked for, in that order. Not on the heap: thousands of files are read in a row, and each piece of this size is a
/// page that musl takes from the kernel and gives back.
#[derive(Debug, Default)]
struct Known {
    keys: [&'static str; Self::MOST],
    count: usize,
}

impl Known {
    /// More than the longest section has. One past it would be refused as unknown, at its first use.
    const MOST: usize = 32;

    fn add(&mut self, key: &'static str) {
        if let Some(place) = self.keys.get_mut(self.count) {
            *place = key;
            self.count += 1;
        }
    }

    fn all(&self) -> &[&'static str] {
        self.keys.get(..self.count).unwrap_or_default()
    }
}

impl<'t> Table<'t> {
    /// `section` is what messages call it: `[stop]`, `backoff`, or `the definition`.
    pub(super) fn new(section: &'static str, table: &'t DeTable<'t>, placeholders: Placeholders<'t>) -> Self {
        Self { section, entries: Some(table), placeholders, known: Known::default() }
    }

    fn empty(section: &'static str) -> Self {
        Self { section, entries: None, placeholders: &[], known: Known::default() }
    }

    fn item(&self, (key, value): (&'t Spanned<DeString<'t>>, &'t Spanned<DeValue<'t>>)) -> Item<'t> {
        let Range { start, end } = key.span();
        let key = key.get_ref().as_ref();
        Item { key, key_start: start, key_end: end, value, placeholders: self.placeholders }
    }

    /// Whether this key is written. It is to be taken all the same.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.is_some_and(|entries| entries.iter().any(|(name, _)| name.get_ref() == key))
    }

    /// Each key is to be asked for once.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Item<'t>> {
        let entries = self.entries?;
        self.known.add(key);
        // A look at each of a handful takes less than the hash of the key.
        entries.iter().find(|(name, _)| name.get_ref() == key).map(|entry| self.item(entry))
    }

    /// Every key with its value, for tables whose keys are the owner's (`env`, `exit_codes`).
    pub(super) fn into_items(self) -> impl Iterator<Item = (&'t str, Item<'t>)> {
        self.entries.into_iter().flatten().map(move |entry| self.item(entry)).map(|item| (item.key, item))
    }

    /// Reads `key` if it is there. A fault is reported and counts as absent: the report makes the whole file fail.
    pub(super) fn read<T>(
        &mut self,
        key: &'static str,
        report: &mut Report<'_>,
        parse: impl FnOnce(&Item<'t>) -> Read<T>,
    ) -> Option<T> {
        let item = self.take(key)?;
        parse(&item).map_err(|fault| report.wrong(&fault.span, About::Text, fault.message)).ok()
    }

    /// The table below `key`; an empty one if it is absent.
    pub(super) fn section(&mut self, key: &'static str, name: &'static str, report: &mut Report<'_>) -> Self {
        self.read(key, report, |item| item.table(name)).unwrap_or_else(|| Self::empty(name))
    }

    /// Refuses what nobody asked for.
    pub(super) fn finish(self, report: &mut Report<'_>) {
        #[cfg(test)]
        asked_for::note(self.section, self.known.all());
        for item in self.entries.into_iter().flatten().map(|entry| self.item(entry)) {
            if !self.known.all().contains(&item.key) {
                let allowed = self.known.all().join(", ");
                let near = nearest(item.key, self.known.all().iter().copied());
                let guess = near.map(|key| format!(" (did you mean '{key}'?)")).unwrap_or_default();
                let message = format!(
                    "unknown key {} in {}{guess}; allowed: {allowed}",
                    quoted(item.key),
                    self.section
                );
                report.wrong(&item.key_span(), About::Text, message);
            }
        }
    }
}

#[cfg(test)]
pub(super) use asked_for::asked;

/// What the parser asks for, for the test of the reference.
#[cfg(test)]
mod asked_for {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    type Asked = BTreeSet<(String, &'static str)>;

    thread_local! {
        static ASKED: RefCell<Asked> = RefCell::default();
    }

    pub(super) fn note(section: &str, keys: &[&'static str]) {
        ASKED.with_borrow_mut(|asked| asked.extend(keys.iter().map(|key| (section.to_owned(), *key))));
    }

    /// The name of the section, and the key, of all that is asked for during `work`.
    pub(in crate::definition) fn asked(work: impl FnOnce()) -> Asked {
        ASKED.take();
        work();
        ASKED.take()
    }
}
