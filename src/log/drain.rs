//! The supervisor's own log: slog records as single lines on the container's stderr.
//!
//! Invariants: a record is one line, whatever is in it; handing it over never waits; what a stuck reader cannot take is
//! dropped and counted by the stream, and [`Container::finish`] writes the rest.

use super::lock;
use super::stream::Container;
use crate::core::words::LogFormat;
use crate::core::words::Stream;
use slog::{Drain, KV, Level, OwnedKVList, Record, Serializer};
use std::fmt::{self, Arguments, Write};
use std::io;
use std::sync::Mutex;
use std::time::SystemTime;

/// The drain for `slog::Logger::root`, usually inside its `fuse` or alone: it cannot fail.
#[derive(Debug)]
pub struct OwnLog {
    container: Container,
    level: Level,
    format: LogFormat,
    /// Of the last record, to be used again.
    line: Mutex<String>,
}

impl OwnLog {
    /// Records less severe than `level` are not written.
    pub fn new(container: Container, level: Level, format: LogFormat) -> Self {
        Self { container, level, format, line: Mutex::default() }
    }
}

impl Drain for OwnLog {
    type Ok = ();
    type Err = slog::Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), slog::Never> {
        if !record.level().is_at_least(self.level) {
            return Ok(());
        }
        let mut line = lock(&self.line);
        line.clear();
        // Writing into memory cannot fail; a value whose own Display does leaves a shorter line.
        let _ = match self.format {
            LogFormat::Text => text(&mut line, record, values),
            LogFormat::Json => json(&mut line, record, values),
        };
        line.push('\n');
        self.container.line(Stream::Err, line.as_bytes());
        Ok(())
    }
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::Critical => "critical",
        Level::Error => "error",
        Level::Warning => "warning",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

/// A value, as far as the two forms tell values apart.
enum Value {
    Null,
    Bare(String),
    Text(String),
}

/// slog hands over the values of a record last first.
#[derive(Default)]
struct Collected(Vec<(slog::Key, Value)>);

impl Collected {
    fn of(record: &Record<'_>, values: &OwnedKVList) -> Result<Self, slog::Error> {
        let mut logger = Self::default();
        values.serialize(record, &mut logger)?;
        let mut own = Self::default();
        record.kv().serialize(record, &mut own)?;
        logger.0.append(&mut own.0);
        logger.0.reverse();
        // Reversed together: the record's keys come first, each part in the order it was given.
        Ok(logger)
    }

    fn bare(&mut self, key: slog::Key, value: impl fmt::Display) -> slog::Result {
        self.0.push((key, Value::Bare(value.to_string())));
        Ok(())
    }
}

macro_rules! bare {
    ($($name:ident: $type:ty),*) => {
        $(fn $name(&mut self, key: slog::Key, value: $type) -> slog::Result {
            self.bare(key, value)
        })*
    };
}

impl Serializer for Collected {
    bare!(emit_bool: bool, emit_u8: u8, emit_i8: i8, emit_u16: u16, emit_i16: i16, emit_u32: u32, emit_i32: i32,
        emit_u64: u64, emit_i64: i64, emit_usize: usize, emit_isize: isize, emit_u128: u128, emit_i128: i128);

    fn emit_none(&mut self, key: slog::Key) -> slog::Result {
        self.0.push((key, Value::Null));
        Ok(())
    }

    fn emit_unit(&mut self, key: slog::Key) -> slog::Result {
        self.emit_none(key)
    }

    fn emit_arguments(&mut self, key: slog::Key, value: &Arguments<'_>) -> slog::Result {
        self.0.push((key, Value::Text(value.to_string())));
        Ok(())
    }
}

fn text(line: &mut String, record: &Record<'_>, values: &OwnedKVList) -> Result<(), slog::Error> {
    line.push_str("hermes-sup: ");
    if record.level() != Level::Info {
        write!(line, "{}: ", level_name(record.level()))?;
    }
    escape(line, &record.msg().to_string());
    for (key, value) in Collected::of(record, values)?.0 {
        write!(line, " {key}=")?;
        match value {
            Value::Null => line.push('-'),
            Value::Bare(value) => line.push_str(&value),
            Value::Text(value) if is_plain(&value) => line.push_str(&value),
            Value::Text(value) => {
                line.push('"');
                escape(line, &value.replace('\\', "\\\\").replace('"', "\\\""));
                line.push('"');
            }
        }
    }
    Ok(())
}

/// Whether a value needs no quotes to be told from what follows it.
fn is_plain(value: &str) -> bool {
    !value.is_empty() && !value.chars().any(|c| c.is_whitespace() || c.is_control() || "\"=\\".contains(c))
}

/// A control character in a service's name, path or message must not forge a line or move a cursor.
fn escape(line: &mut String, text: &str) {
    for c in text.chars() {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
}

fn json(line: &mut String, record: &Record<'_>, values: &OwnedKVList) -> Result<(), slog::Error> {
    let time = humantime::format_rfc3339_millis(SystemTime::now());
    write!(line, "{{\"time\":\"{time}\",\"level\":\"{}\",\"message\":", level_name(record.level()))?;
    quote(line, &record.msg().to_string())?;
    for (key, value) in Collected::of(record, values)?.0 {
        line.push(',');
        quote(line, key)?;
        line.push(':');
        match value {
            Value::Null => line.push_str("null"),
            Value::Bare(value) => line.push_str(&value),
            Value::Text(value) => quote(line, &value)?,
        }
    }
    line.push('}');
    Ok(())
}

fn quote(line: &mut String, text: &str) -> io::Result<()> {
    line.push_str(&serde_json::to_string(text)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::time::Duration;

    fn written(format: LogFormat, level: Level, log: impl FnOnce(&slog::Logger)) -> String {
        let (mut read, write) = std::io::pipe().unwrap();
        let container = Container::on([None, Some(write.into())]).unwrap();
        let drain = OwnLog::new(container.clone(), level, format);
        log(&slog::Logger::root(drain, slog::o!("instance" => 7, "host" => "a b")));
        assert!(container.finish(Duration::from_secs(10)));
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn text_has_the_keys_in_order_and_one_line_a_record_whatever_is_in_it() {
        let text = written(LogFormat::Text, Level::Info, |log| {
            slog::info!(log, "up"; "name" => "coder", "pid" => 12);
            slog::warn!(log, "odd\nhermes-sup: forged"; "path" => "a\"b\nc", "none" => None::<u8>);
            slog::debug!(log, "unseen");
        });
        assert_eq!(
            text,
            "hermes-sup: up name=coder pid=12 instance=7 host=\"a b\"\n\
             hermes-sup: warning: odd\\nhermes-sup: forged path=\"a\\\"b\\nc\" none=- instance=7 host=\"a b\"\n"
        );
    }

    #[test]
    fn json_is_an_object_a_line_with_numbers_as_numbers() {
        let text = written(LogFormat::Json, Level::Debug, |log| {
            slog::debug!(log, "quoted \"text\""; "pid" => 12, "ok" => true, "share" => 0.5, "none" => None::<u8>);
        });
        assert_eq!(text.lines().count(), 1);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["message"], "quoted \"text\"");
        assert_eq!(value["level"], "debug");
        assert_eq!(value["pid"], 12);
        assert_eq!(value["ok"], true);
        assert_eq!(value["none"], serde_json::Value::Null);
        assert!(humantime::parse_rfc3339(value["time"].as_str().unwrap()).is_ok());
        assert!(text.find("\"pid\"") < text.find("\"ok\"") && text.find("\"ok\"") < text.find("\"share\""));
    }
}
