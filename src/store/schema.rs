//! What the database holds: the rows, how one is written as bytes, and all of them together.
//!
//! A value is `version byte · JSON · crc32 (little endian, over what precedes it)`. The version of the format, and what a
//! change of it must keep to, is in the head of `store/mod.rs`.

use super::place::Lies;
use crate::core::exit::Exit;
use crate::core::name::ServiceName;
use crate::core::words::{Cause, Want};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The incompatible part of the version that is written: a program that knows only less refuses the file.
pub const SCHEMA: u32 = 3;
/// The newest incompatible part that is read.
pub const NEWEST_SCHEMA: u32 = 4;
/// The compatible part: how many additions this program knows, each of which another may ignore.
pub const ADDITIONS: u32 = 1;
/// The row version that is written, and the newest that is read.
const ROW_VERSION: u8 = 1;

/// How many failure times a [`RunRow`] keeps; the oldest go first.
pub const MAX_FAILURE_TIMES: usize = 64;

/// Nearly every row fits in so many bytes, and grows no further.
const ROOM: usize = 256;

pub(super) const WANTS: &str = "wants";
pub(super) const RECORDS: &str = "records";
pub(super) const RUNS: &str = "runs";
pub(super) const MIRRORED: &str = "mirrored";
pub(super) const LIMITS: &str = "limits";
pub(super) const META: &str = "meta";
pub(super) const META_SCHEMA: &str = "schema";
pub(super) const META_INSTANCE: &str = "instance";
/// Where the state lay when it got its instance id.
pub(super) const META_LIES: &str = "lies";
pub(super) const META_STAMP: &str = "stamp";
pub(super) const META_BOOT: &str = "boot";
pub(super) const META_ADDITIONS: &str = "additions";
/// Of schema 4: the last histories of all services in one row.
pub(super) const META_ENDS: &str = "ends";

/// What is wanted of a service, and on whose word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantRow {
    pub want: Want,
    pub asked_by_uid: Option<u32>,
    /// Unix time in milliseconds.
    pub asked_at_ms: u64,
    pub cause: Cause,
    pub definition_hash: Option<u64>,
}

/// What a registered service runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Program {
    Argv(Vec<String>),
    /// The directory of a profile.
    Profile(String),
}

/// A service that somebody registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordRow {
    pub registrant_uid: u32,
    pub user: String,
    pub program: Program,
    pub env: BTreeMap<String, String>,
    /// Unix time in milliseconds.
    pub registered_at_ms: u64,
}

/// What a gateway's own state file was last known to say of its want.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirroredRow {
    pub want: Want,
    /// When we wrote the file, by its own time, in nanoseconds since 1970. `None`: it agreed without being written.
    pub modified_ns: Option<u64>,
}

/// Limits that somebody has set in place of the definition's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitsRow {
    /// By the names and in the words of the definition.
    pub limits: BTreeMap<String, String>,
    pub asked_by_uid: Option<u32>,
    /// Unix time in milliseconds.
    pub asked_at_ms: u64,
}

/// The restart history of a service. Times are Unix times in milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRow {
    pub restarts: u64,
    pub failures_in_row: u32,
    /// At most [`MAX_FAILURE_TIMES`], oldest first.
    pub failure_times_ms: Vec<u64>,
    pub backoff_until_ms: Option<u64>,
    /// Boxed, as most services have none.
    pub failed: Option<Box<FailedRow>>,
    pub finished: bool,
    pub last_exit: Option<LastExit>,
    /// Why the last attempt to start it failed. Absent in rows of earlier releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_error: Option<String>,
    pub incarnation: u64,
    /// Of a scheduled service. Absent in rows of earlier releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runs: Option<Box<RunsRow>>,
}

/// The runs of a scheduled service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunsRow {
    /// When the last one began.
    pub started_ms: Option<u64>,
    /// How many were due and did not take place.
    pub skipped: u64,
}

/// Why a service is `failed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedRow {
    pub reason: String,
    pub at_ms: u64,
    pub definition_hash: Option<u64>,
}

/// How the last main process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastExit {
    #[serde(with = "exit_row")]
    pub exit: Exit,
    pub at_ms: u64,
}

/// [`Exit`] as it is stored: `{"code":1}`, `{"signal":{"number":9,"core":false}}`, with `"oom":true` in it where that
/// was the reason (`"oom_memory_max"`: at that limit in bytes; `"oom_outside"`: not at its own) and `"oom_likely"` where it
/// may have been, or `"unknown"`.
mod exit_row {
    use crate::core::exit::{Exit, Shortage};
    use crate::core::signal::Signal;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Row {
        Code(u8),
        Signal {
            number: i32,
            core: bool,
            #[serde(default, skip_serializing_if = "std::ops::Not::not")]
            oom: bool,
            #[serde(default, skip_serializing_if = "Option::is_none")]
            oom_likely: Option<bool>,
            #[serde(default, skip_serializing_if = "Option::is_none")]
            oom_memory_max: Option<u64>,
            #[serde(default, skip_serializing_if = "std::ops::Not::not")]
            oom_outside: bool,
        },
        Unknown,
    }

    fn signalled(signal: Signal, core: bool) -> Row {
        let number = signal.number();
        Row::Signal { number, core, oom: false, oom_likely: None, oom_memory_max: None, oom_outside: false }
    }

    pub(super) fn serialize<S: Serializer>(exit: &Exit, to: S) -> Result<S::Ok, S::Error> {
        match *exit {
            Exit::Code(code) => Row::Code(code),
            Exit::Signal { signal, core } => signalled(signal, core),
            Exit::Oom(shortage) => Row::Signal {
                number: Signal::KILL.number(),
                core: false,
                oom: true,
                oom_likely: None,
                oom_memory_max: match shortage {
                    Shortage::MemoryMax(bytes) => Some(bytes),
                    Shortage::Outside | Shortage::Unknown => None,
                },
                oom_outside: shortage == Shortage::Outside,
            },
            Exit::MaybeOom { likely } => Row::Signal {
                number: Signal::KILL.number(),
                core: false,
                oom: false,
                oom_likely: Some(likely),
                oom_memory_max: None,
                oom_outside: false,
            },
            Exit::Unknown => Row::Unknown,
        }
        .serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Exit, D::Error> {
        Ok(match Row::deserialize(from)? {
            Row::Code(code) => Exit::Code(code),
            Row::Signal { oom: true, oom_memory_max, oom_outside, .. } => {
                Exit::Oom(match (oom_memory_max, oom_outside) {
                    (Some(bytes), _) => Shortage::MemoryMax(bytes),
                    (None, true) => Shortage::Outside,
                    (None, false) => Shortage::Unknown,
                })
            }
            Row::Signal { oom_likely: Some(likely), .. } => Exit::MaybeOom { likely },
            Row::Signal { number, core, oom: false, oom_likely: None, .. } => {
                match Signal::from_number(number) {
                    Some(signal) => Exit::Signal { signal, core },
                    None => {
                        return Err(serde::de::Error::custom(format!("no signal has the number {number}")));
                    }
                }
            }
            Row::Unknown => Exit::Unknown,
        })
    }
}

/// Why the bytes of a row are not a row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    #[error("written by a newer hermes-sup (row version {0})")]
    Newer(u8),
    #[error("too short")]
    Short,
    #[error("wrong checksum")]
    Checksum,
    #[error("malformed: {0}")]
    Malformed(String),
}

pub(super) fn encode<T: Serialize>(row: &T) -> Result<Vec<u8>, RowError> {
    let mut bytes = Vec::with_capacity(ROOM);
    bytes.push(ROW_VERSION);
    serde_json::to_writer(&mut bytes, row).map_err(|error| RowError::Malformed(error.to_string()))?;
    bytes.extend_from_slice(&checksum(&bytes).to_le_bytes());
    Ok(bytes)
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RowError> {
    let (body, sum) = bytes.split_last_chunk::<4>().ok_or(RowError::Short)?;
    let (version, json) = body.split_first().ok_or(RowError::Short)?;
    if checksum(body) != u32::from_le_bytes(*sum) {
        return Err(RowError::Checksum);
    }
    if *version > ROW_VERSION {
        return Err(RowError::Newer(*version));
    }
    serde_json::from_slice(json).map_err(|error| RowError::Malformed(error.to_string()))
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(bytes);
    hasher.finalize()
}

/// A place in the database.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Want(ServiceName),
    Record(ServiceName),
    Run(ServiceName),
    Mirrored(ServiceName),
    Limits(ServiceName),
    Boot,
    Instance,
    Lies,
}

/// A place and what to put there; `None` removes.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Write {
    Want(ServiceName, Option<WantRow>),
    Record(ServiceName, Option<RecordRow>),
    Run(ServiceName, Option<RunRow>),
    Mirrored(ServiceName, Option<MirroredRow>),
    Limits(ServiceName, Option<LimitsRow>),
    Boot(Option<serde_json::Value>),
    Instance(String),
    Lies(Lies),
}

/// A [`Write`] ready for the engine: table, key, bytes.
pub(super) type Encoded<'a> = (&'static str, &'a str, Option<Vec<u8>>);

impl Write {
    pub(super) fn key(&self) -> Key {
        match self {
            Self::Want(name, _) => Key::Want(name.clone()),
            Self::Record(name, _) => Key::Record(name.clone()),
            Self::Run(name, _) => Key::Run(name.clone()),
            Self::Mirrored(name, _) => Key::Mirrored(name.clone()),
            Self::Limits(name, _) => Key::Limits(name.clone()),
            Self::Boot(_) => Key::Boot,
            Self::Instance(_) => Key::Instance,
            Self::Lies(_) => Key::Lies,
        }
    }

    pub(super) fn encoded(&self) -> Result<Encoded<'_>, RowError> {
        fn one<'a, T: Serialize>(
            table: &'static str,
            key: &'a str,
            row: Option<&T>,
        ) -> Result<Encoded<'a>, RowError> {
            Ok((table, key, row.map(encode).transpose()?))
        }
        match self {
            Self::Want(name, row) => one(WANTS, name.as_str(), row.as_ref()),
            Self::Record(name, row) => one(RECORDS, name.as_str(), row.as_ref()),
            Self::Run(name, row) => one(RUNS, name.as_str(), row.as_ref()),
            Self::Mirrored(name, row) => one(MIRRORED, name.as_str(), row.as_ref()),
            Self::Limits(name, row) => one(LIMITS, name.as_str(), row.as_ref()),
            Self::Boot(row) => one(META, META_BOOT, row.as_ref()),
            Self::Instance(instance) => one(META, META_INSTANCE, Some(instance)),
            Self::Lies(lies) => one(META, META_LIES, Some(lies)),
        }
    }
}

/// Services with the same history, in the row that a program of schema 4 left as it ended.
#[derive(Debug, Deserialize)]
pub(super) struct Alike {
    pub(super) of: Vec<String>,
    pub(super) run: RunRow,
}

/// Everything the database holds, in memory.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Rows {
    pub(super) instance: String,
    /// Counts the commits that changed wants. The mirror carries it too, which tells whose wants are newer.
    pub(super) stamp: u64,
    pub(super) wants: BTreeMap<ServiceName, WantRow>,
    pub(super) records: BTreeMap<ServiceName, RecordRow>,
    /// Boxed: a node of the tree keeps up to half of its places free.
    pub(super) runs: BTreeMap<ServiceName, Box<RunRow>>,
    pub(super) mirrored: BTreeMap<ServiceName, MirroredRow>,
    pub(super) limits: BTreeMap<ServiceName, LimitsRow>,
    pub(super) boot: Option<serde_json::Value>,
    pub(super) lies: Option<Lies>,
    /// The additions of the file, if it has more than this program knows.
    pub(super) additions: u32,
    /// Table, key and bytes of what a newer program has added: carried along, as this one cannot know what it is for.
    pub(super) foreign: Vec<(String, String, Vec<u8>)>,
}

impl Rows {
    pub(super) fn apply(&mut self, write: Write) {
        fn set<T>(map: &mut BTreeMap<ServiceName, T>, name: ServiceName, row: Option<T>) {
            match row {
                Some(row) => drop(map.insert(name, row)),
                None => drop(map.remove(&name)),
            }
        }
        match write {
            Write::Want(name, row) => set(&mut self.wants, name, row),
            Write::Record(name, row) => set(&mut self.records, name, row),
            Write::Run(name, row) => set(&mut self.runs, name, row.map(Box::new)),
            Write::Mirrored(name, row) => set(&mut self.mirrored, name, row),
            Write::Limits(name, row) => set(&mut self.limits, name, row),
            Write::Boot(row) => self.boot = row,
            Write::Instance(instance) => self.instance = instance,
            Write::Lies(lies) => self.lies = Some(lies),
        }
    }

    /// The whole database as the engine writes it into a new file.
    pub(super) fn encoded(&self) -> Result<Vec<Encoded<'_>>, RowError> {
        let mut all = vec![
            (META, META_SCHEMA, Some(encode(&SCHEMA)?)),
            (META, META_ADDITIONS, Some(encode(&self.additions.max(ADDITIONS))?)),
            (META, META_INSTANCE, Some(encode(&self.instance)?)),
            encoded_stamp(self.stamp)?,
            (META, META_BOOT, self.boot.as_ref().map(encode).transpose()?),
            (META, META_LIES, self.lies.as_ref().map(encode).transpose()?),
        ];
        for (name, row) in &self.wants {
            all.push((WANTS, name.as_str(), Some(encode(row)?)));
        }
        for (name, row) in &self.records {
            all.push((RECORDS, name.as_str(), Some(encode(row)?)));
        }
        for (name, row) in &self.runs {
            all.push((RUNS, name.as_str(), Some(encode(row)?)));
        }
        for (name, row) in &self.mirrored {
            all.push((MIRRORED, name.as_str(), Some(encode(row)?)));
        }
        for (name, row) in &self.limits {
            all.push((LIMITS, name.as_str(), Some(encode(row)?)));
        }
        Ok(all)
    }
}

pub(super) fn encoded_stamp(stamp: u64) -> Result<Encoded<'static>, RowError> {
    Ok((META, META_STAMP, Some(encode(&stamp)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::exit::Shortage;
    use crate::core::signal::Signal;

    fn row(json: &str, crc: u32) -> Vec<u8> {
        [&[1u8], json.as_bytes(), &crc.to_le_bytes()].concat()
    }

    /// Bytes as version 1 wrote them. They must be readable for ever: a change here is a lost database.
    #[test]
    fn rows_of_version_1_are_read() {
        let want = WantRow {
            want: Want::Down,
            asked_by_uid: Some(10000),
            asked_at_ms: 1_767_225_600_000,
            cause: Cause::Operator,
            definition_hash: Some(u64::MAX),
        };
        let bytes = row(
            r#"{"want":"down","asked_by_uid":10000,"asked_at_ms":1767225600000,"cause":"operator","definition_hash":18446744073709551615}"#,
            0xfbe3_dfcc,
        );
        assert_eq!(decode::<WantRow>(&bytes), Ok(want.clone()));
        assert_eq!(encode(&want), Ok(bytes));

        let record = RecordRow {
            registrant_uid: 10000,
            user: "hermes".into(),
            program: Program::Argv(vec!["sleep".into(), "inf".into()]),
            env: BTreeMap::from([("K".into(), "v".into())]),
            registered_at_ms: 7,
        };
        let bytes = row(
            r#"{"registrant_uid":10000,"user":"hermes","program":{"argv":["sleep","inf"]},"env":{"K":"v"},"registered_at_ms":7}"#,
            0xdb45_85a0,
        );
        assert_eq!(decode::<RecordRow>(&bytes), Ok(record.clone()));
        assert_eq!(encode(&record), Ok(bytes));
        let profile = Program::Profile("/opt/data/profiles/x".into());
        assert_eq!(serde_json::to_string(&profile).unwrap(), r#"{"profile":"/opt/data/profiles/x"}"#);

        let run = RunRow {
            restarts: 3,
            failures_in_row: 2,
            failure_times_ms: vec![1, 2],
            backoff_until_ms: None,
            failed: Some(Box::new(FailedRow {
                reason: "exited with code 78".into(),
                at_ms: 2,
                definition_hash: None,
            })),
            finished: false,
            last_exit: Some(LastExit { exit: Exit::Signal { signal: Signal::KILL, core: false }, at_ms: 2 }),
            start_error: None,
            incarnation: 4,
            runs: None,
        };
        let bytes = row(
            r#"{"restarts":3,"failures_in_row":2,"failure_times_ms":[1,2],"backoff_until_ms":null,"failed":{"reason":"exited with code 78","at_ms":2,"definition_hash":null},"finished":false,"last_exit":{"exit":{"signal":{"number":9,"core":false}},"at_ms":2},"incarnation":4}"#,
            0xd01a_6506,
        );
        assert_eq!(decode::<RunRow>(&bytes), Ok(run.clone()));
        assert_eq!(encode(&run), Ok(bytes));
        let oom = r#"{"signal":{"number":9,"core":false,"oom":true}}"#;
        let own = r#"{"signal":{"number":9,"core":false,"oom":true,"oom_memory_max":1024}}"#;
        let outside = r#"{"signal":{"number":9,"core":false,"oom":true,"oom_outside":true}}"#;
        let maybe = r#"{"signal":{"number":9,"core":false,"oom_likely":false}}"#;
        for (text, exit) in [
            (r#"{"code":255}"#, Exit::Code(255)),
            (r#""unknown""#, Exit::Unknown),
            (oom, Exit::Oom(Shortage::Unknown)),
            (own, Exit::Oom(Shortage::MemoryMax(1024))),
            (outside, Exit::Oom(Shortage::Outside)),
            (maybe, Exit::MaybeOom { likely: false }),
        ] {
            let json = format!(r#"{{"exit":{text},"at_ms":1}}"#);
            let read: LastExit = serde_json::from_str(&json).unwrap();
            assert_eq!((read.exit, serde_json::to_string(&read).unwrap()), (exit, json));
        }
    }

    #[test]
    fn mirrored_rows_of_schema_2_are_read() {
        let row_2 = MirroredRow { want: Want::Up, modified_ns: Some(1_767_225_600_000_000_001) };
        let json = r#"{"want":"up","modified_ns":1767225600000000001}"#;
        let bytes = row(json, checksum(&[&[1u8], json.as_bytes()].concat()));
        assert_eq!(decode::<MirroredRow>(&bytes), Ok(row_2.clone()));
        assert_eq!(encode(&row_2), Ok(bytes));
    }

    #[test]
    fn limits_rows_of_schema_3_are_read() {
        let limits = BTreeMap::from([("memory_max".to_owned(), "512M".to_owned())]);
        let row_3 = LimitsRow { limits, asked_by_uid: Some(0), asked_at_ms: 7 };
        let json = r#"{"limits":{"memory_max":"512M"},"asked_by_uid":0,"asked_at_ms":7}"#;
        let bytes = row(json, checksum(&[&[1u8], json.as_bytes()].concat()));
        assert_eq!(decode::<LimitsRow>(&bytes), Ok(row_3.clone()));
        assert_eq!(encode(&row_3), Ok(bytes));
    }

    /// An optional field that a later program adds must not keep this one from reading the row, and one that an
    /// earlier program did not write is null.
    #[test]
    fn unknown_fields_are_skipped_and_missing_optional_ones_are_null() {
        let json = r#"{"want":"up","asked_at_ms":1,"cause":"x","later":true}"#;
        let bytes = row(json, checksum(&[&[1u8], json.as_bytes()].concat()));
        let read: WantRow = decode(&bytes).unwrap();
        assert_eq!((read.want, read.asked_by_uid, read.definition_hash), (Want::Up, None, None));
    }

    #[test]
    fn every_damaged_byte_is_noticed_and_a_newer_row_is_told_apart() {
        let good = encode(&"instance").unwrap();
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                assert_eq!(decode::<String>(&bad), Err(RowError::Checksum), "byte {at} bit {bit}");
            }
        }
        for length in 0..good.len() {
            assert!(decode::<String>(&good[..length]).is_err());
        }
        let newer = [&[2u8][..], b"{}", &checksum(b"\x02{}").to_le_bytes()].concat();
        assert_eq!(decode::<String>(&newer), Err(RowError::Newer(2)));
    }
}
