//! Local calendar time, as date(1) shows it: by the zone that `TZ` or `/etc/localtime` names.
//!
//! The C library of our static binary does not follow every zone of the zone database, so the files are read by a crate.
//! Zones with leap seconds (`right/…`) are read as if they had none: the system clock counts without them.

use crate::core::schedule;
use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{Offset, TimeZone};
use memchr::memrchr;
use rustix::fs::{FileType, Mode, OFlags};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Where zones are looked up by name, after `TZDIR`: the places of glibc and of musl.
const DATABASES: [&str; 3] = ["/usr/share/zoneinfo", "/usr/lib/zoneinfo", "/share/zoneinfo"];
const DEFAULT: &str = "/etc/localtime";
/// The largest file of the zone database has 4 kB.
const MOST_BYTES: u64 = 1 << 20;
/// What POSIX leaves open where a zone has daylight saving and no rule, as in `EST5EDT`: glibc takes the rule of the USA.
const DEFAULT_RULE: &str = ",M3.2.0,M11.1.0";

/// A time zone with its rules.
#[derive(Debug, Clone)]
pub struct Zone {
    zone: TimeZone,
    /// From then on another one is in force.
    later: Option<(Timestamp, TimeZone)>,
}

impl Zone {
    /// The zone of this process: read at the first call and kept, as the C library does.
    pub fn own() -> &'static Self {
        static OWN: OnceLock<Zone> = OnceLock::new();
        OWN.get_or_init(|| Self::of(std::env::var_os("TZ").as_deref(), std::env::var_os("TZDIR").as_deref()))
    }

    /// The zone that the environment variable `TZ` stands for (tzset(3)): a name or a path, with or without a colon in front,
    /// or a rule. Without the variable the machine's own. What cannot be read is UTC.
    pub fn of(tz: Option<&OsStr>, tzdir: Option<&OsStr>) -> Self {
        let found = match tz.map(OsStr::as_bytes) {
            None => read(Path::new(DEFAULT)),
            Some(text) => {
                let text = text.strip_prefix(b":").unwrap_or(text);
                let (path, rule) = (Path::new(OsStr::from_bytes(text)), std::str::from_utf8(text).ok());
                let databases = tzdir.map(PathBuf::from).into_iter().chain(DATABASES.map(PathBuf::from));
                // An absolute path replaces the directory that it is joined to.
                let file = (!text.is_empty())
                    .then(|| databases.map(|dir| dir.join(path)).find_map(|path| read(&path)));
                file.flatten().or_else(|| rule.and_then(by_rule))
            }
        };
        found.unwrap_or_else(Self::utc)
    }

    pub fn utc() -> Self {
        Self::simple(TimeZone::UTC)
    }

    fn simple(zone: TimeZone) -> Self {
        Self { zone, later: None }
    }

    fn at_moment(&self, moment: Timestamp) -> &TimeZone {
        self.later.as_ref().filter(|(from, _)| moment >= *from).map_or(&self.zone, |(_, zone)| zone)
    }

    /// The local time at `unix` seconds since 1970-01-01 UTC; `None` outside the years -9999 to 9999.
    pub fn at(&self, unix: i64) -> Option<Local> {
        let moment = Timestamp::from_second(unix).ok()?;
        let offset = self.at_moment(moment).to_offset(moment);
        Some(Local { time: offset.to_datetime(moment), offset })
    }

    /// The moment of a local time. Of two (the hour that repeats when daylight saving ends) the first that is not before
    /// `not_before`; in a gap, as far after its beginning as the clock that nobody set would have shown.
    pub fn moment(&self, civil: Civil, not_before: Option<SystemTime>) -> Option<SystemTime> {
        let rough = self.zone.to_ambiguous_timestamp(civil.0).compatible().ok()?;
        let ambiguous = self.at_moment(rough).to_ambiguous_timestamp(civil.0);
        let first = system_time(ambiguous.compatible().ok()?)?;
        match not_before {
            Some(not_before) if first < not_before => {
                let later = ambiguous.later().ok().and_then(system_time).filter(|later| *later >= not_before);
                Some(later.unwrap_or(first))
            }
            Some(_) | None => Some(first),
        }
    }
}

impl schedule::Zone for Zone {
    fn east(&self, unix: i64) -> i64 {
        let moment = Timestamp::from_second(unix);
        moment.map_or(0, |moment| self.at_moment(moment).to_offset(moment).seconds().into())
    }

    fn next_change(&self, unix: i64) -> Option<i64> {
        let moment = Timestamp::from_second(unix).ok()?;
        let mut changes = self.at_moment(moment).following(moment).map(|change| change.timestamp());
        let another = self.later.iter().map(|(from, _)| *from).find(|from| *from > moment);
        changes.find(|at| *at > moment).into_iter().chain(another).min().map(Timestamp::as_second)
    }
}

fn by_rule(text: &str) -> Option<Zone> {
    let zone = TimeZone::posix(text).or_else(|_| TimeZone::posix(&format!("{text}{DEFAULT_RULE}")));
    zone.ok().map(Zone::simple)
}

/// What zic(8) wrote. Its older versions let the last transition and the rule that follows contradict each other, which the
/// parser refuses: then each of the two is read alone.
fn by_file(bytes: &[u8]) -> Option<Zone> {
    if let Ok(zone) = TimeZone::tzif("local", bytes) {
        return Some(Zone::simple(zone));
    }
    let (before, rule) =
        bytes.strip_suffix(b"\n").and_then(|bytes| bytes.split_at_checked(memrchr(b'\n', bytes)? + 1))?;
    let zone = TimeZone::tzif("local", &[before, b"\n"].concat()).ok()?;
    let rule = TimeZone::posix(std::str::from_utf8(rule).ok()?).ok()?;
    let last = zone.preceding(Timestamp::MAX).next()?.timestamp();
    Some(Zone { zone, later: Some((last, rule)) })
}

fn read(path: &Path) -> Option<Zone> {
    // Not blocking: a FIFO is no zone.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = rustix::fs::open(path, flags, Mode::empty()).ok()?;
    let stat = rustix::fs::fstat(&file).ok()?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return None;
    }
    let mut bytes = Vec::new();
    File::from(file).take(MOST_BYTES).read_to_end(&mut bytes).ok()?;
    by_file(&bytes)
}

/// A moment on the wall clock of a zone, to the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Local {
    time: DateTime,
    offset: Offset,
}

impl Local {
    /// The local time of this machine at `unix` seconds since 1970-01-01 UTC.
    ///
    /// # Errors
    /// `InvalidInput` outside the years -9999 to 9999.
    pub fn at(unix: i64) -> io::Result<Self> {
        Zone::own().at(unix).ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }

    /// `YYYY-MM-DDTHH:MM:SS+hhmm`.
    pub fn iso8601(&self) -> String {
        format!("{}T{}{}", self.time.date(), self.time.time(), self.east())
    }

    /// Distance from UTC, `+hhmm`.
    pub fn east(&self) -> String {
        let seconds = self.offset.seconds();
        let (sign, minutes) = (if seconds < 0 { '-' } else { '+' }, seconds.abs() / 60);
        format!("{sign}{:02}{:02}", minutes / 60, minutes % 60)
    }
}

/// `YYYY-MM-DD HH:MM:SS`.
impl std::fmt::Display for Local {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.time.date(), self.time.time())
    }
}

/// A calendar time in a zone that is not said, as it stands on a wall clock or in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Civil(DateTime);

/// What is no calendar time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no date and time as in 2026-01-31 12:00:00")]
pub struct NotCivil;

impl FromStr for Civil {
    type Err = NotCivil;

    /// `2026-01-31`, `2026-01-31 12:00`, `2026-01-31T12:00:00.5`.
    fn from_str(text: &str) -> Result<Self, NotCivil> {
        // The parser would also take a zone, and leave it out of account.
        let is_plain =
            text.bytes().all(|b| b.is_ascii_digit() || b"-:. T".contains(&b)) && text.contains('-');
        is_plain.then(|| text.parse().ok()).flatten().map(Self).ok_or(NotCivil)
    }
}

impl Civil {
    /// `12:00` or `12:00:00`, on the day of `now` in `zone`.
    pub fn today(text: &str, now: SystemTime, zone: &Zone) -> Option<Self> {
        let is_plain = text.bytes().all(|b| b.is_ascii_digit() || b":.".contains(&b)) && text.contains(':');
        let time: Time = is_plain.then(|| text.parse().ok()).flatten()?;
        let today: Date = zone.zone.to_datetime(timestamp(now)?).date();
        Some(Self(today.to_datetime(time)))
    }
}

/// `2026-01-31T12:00:00Z`, or another distance from UTC in the place of the `Z`.
pub fn parse_rfc3339(text: &str) -> Option<SystemTime> {
    text.parse().ok().and_then(system_time)
}

/// RFC 3339 in UTC, to the nanosecond. `None` outside the years -9999 to 9999.
pub fn rfc3339(time: SystemTime) -> Option<String> {
    timestamp(time).map(|time| format!("{time:.9}"))
}

fn timestamp(time: SystemTime) -> Option<Timestamp> {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Timestamp::new(i64::try_from(since.as_secs()).ok()?, i32::try_from(since.subsec_nanos()).ok()?).ok()
}

/// Before 1970 is 1970.
fn system_time(time: Timestamp) -> Option<SystemTime> {
    let nanos = u64::try_from(time.subsec_nanosecond()).unwrap_or(0);
    let seconds = Duration::from_secs(u64::try_from(time.as_second()).unwrap_or(0));
    UNIX_EPOCH.checked_add(seconds)?.checked_add(Duration::from_nanos(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::fmt::Write as _;
    use std::process::{Command, Stdio};

    fn zone(tz: &str) -> Zone {
        Zone::of(Some(OsStr::new(tz)), None)
    }

    fn shown(zone: &Zone, unix: i64) -> String {
        zone.at(unix).unwrap().to_string()
    }

    #[test]
    fn daylight_saving_is_right_to_the_second() {
        let zone = zone("CET-1CEST,M3.5.0,M10.5.0/3");
        for (unix, text) in [
            (0, "1970-01-01 01:00:00"),
            (1_774_745_999, "2026-03-29 01:59:59"),
            (1_774_746_000, "2026-03-29 03:00:00"),
            (1_792_889_999, "2026-10-25 02:59:59"),
            (1_792_890_000, "2026-10-25 02:00:00"),
        ] {
            assert_eq!(shown(&zone, unix), text);
        }
        assert_eq!(zone.at(1_774_746_000).unwrap().iso8601(), "2026-03-29T03:00:00+0200");
        assert_eq!(zone.at(i64::MAX), None);
    }

    /// Moments from 1906 to 2128, about 92 days apart, for date(1) to read.
    fn moments() -> Vec<i64> {
        (-2_000_000_000..5_000_000_000).step_by(7_987_654).collect()
    }

    fn date(tz: &str, moments: &[i64]) -> Vec<String> {
        let mut list = tempfile::NamedTempFile::new().unwrap();
        let text = moments.iter().fold(String::new(), |mut text, unix| {
            let _ = writeln!(text, "@{unix}");
            text
        });
        io::Write::write_all(&mut list, text.as_bytes()).unwrap();
        let output = Command::new("date")
            .arg("-f")
            .arg(list.path())
            .args(["+%Y-%m-%d %H:%M:%S"])
            .env("TZ", tz)
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    #[track_caller]
    fn agrees_with_date(tz: &str, moments: &[i64]) {
        let (zone, expected) = (zone(tz), date(tz, moments));
        assert_eq!(expected.len(), moments.len());
        for (unix, expected) in moments.iter().zip(expected) {
            assert_eq!(shown(&zone, *unix), expected, "{tz} at {unix}");
        }
    }

    /// One path for each content.
    fn zones_below(dir: &Path, found: &mut HashMap<Vec<u8>, PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            // Those with leap seconds: see the head of this file.
            if entry.file_name() == "right" {
            } else if entry.file_type().unwrap().is_dir() {
                zones_below(&entry.path(), found);
            } else {
                found.insert(std::fs::read(entry.path()).unwrap(), entry.path());
            }
        }
    }

    /// The C library of the static binary got two dozen zones wrong: musl reads neither what was before the first transition
    /// nor all that comes after the last one as date(1) does. Every zone of the database, in both forms that zic(8) writes.
    #[test]
    fn every_zone_of_the_database_is_as_date_shows_it() {
        let source = Path::new("/usr/share/zoneinfo/tzdata.zi");
        assert!(source.exists(), "the zone database is missing: install tzdata");
        let moments = moments();
        for form in ["fat", "slim"] {
            let dir = tempfile::tempdir().unwrap();
            let made =
                Command::new("/usr/sbin/zic").args(["-b", form, "-d"]).arg(dir.path()).arg(source).status();
            assert!(made.is_ok_and(|status| status.success()), "zic -b {form}");
            let mut zones = HashMap::new();
            zones_below(dir.path(), &mut zones);
            assert!(zones.len() > 200, "{} zones", zones.len());
            for zone in zones.into_values() {
                agrees_with_date(&format!(":{}", zone.display()), &moments);
            }
        }
    }

    #[test]
    fn every_form_of_the_variable_is_understood_as_the_c_library_does() {
        let moments = moments();
        for tz in [
            "Europe/Berlin",
            ":Europe/Berlin",
            "/usr/share/zoneinfo/America/Nuuk",
            ":/usr/share/zoneinfo/Pacific/Chatham",
            "",
            ":",
            "UTC0",
            "No/Such_Zone",
            "nonsense",
            "/dev/null",
            "/etc/hostname",
            "/",
        ] {
            agrees_with_date(tz, &moments);
        }
        // glibc reckons the rules wrong before 1970.
        let moments: Vec<i64> = moments.into_iter().filter(|unix| *unix > 31_536_000).collect();
        for tz in
            ["NZST-12NZDT,M9.5.0,M4.1.0/3", "<-02>2<-01>,M3.5.0/-1,M10.5.0/0", "IST-1GMT0,M10.5.0,M3.5.0/1"]
        {
            agrees_with_date(tz, &moments);
        }
        // Without a rule: that of the USA.
        let without = zone("AAA4BBB");
        assert_eq!(shown(&without, 1_767_268_800), "2026-01-01 08:00:00");
        assert_eq!(shown(&without, 1_782_907_200), "2026-07-01 09:00:00");
        // A name below TZDIR, and the machine's own without the variable.
        let dir = tempfile::tempdir().unwrap();
        std::fs::copy("/usr/share/zoneinfo/Asia/Tokyo", dir.path().join("Here")).unwrap();
        let here = Zone::of(Some(OsStr::new("Here")), Some(dir.path().as_os_str()));
        assert_eq!(shown(&here, 0), "1970-01-01 09:00:00");
        let own =
            Command::new("date").args(["-d", "@1792889999", "+%F %T"]).env_remove("TZ").output().unwrap();
        let own = String::from_utf8(own.stdout).unwrap();
        assert_eq!(shown(&Zone::of(None, None), 1_792_889_999), own.trim());
        // What would block.
        let fifo = dir.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert_eq!(shown(&Zone::of(Some(fifo.as_os_str()), None), 0), "1970-01-01 00:00:00");
    }

    /// A file of the first version (RFC 9636): standard time, and the summers of these `transitions`, in Unix seconds.
    fn first_version(transitions: &[(i32, bool)]) -> Vec<u8> {
        let names = b"CET\0CEST\0";
        let mut bytes = b"TZif".to_vec();
        bytes.resize(20, 0);
        for count in [0, 0, 0, transitions.len(), 2, names.len()] {
            bytes.extend(u32::try_from(count).unwrap().to_be_bytes());
        }
        bytes.extend(transitions.iter().flat_map(|(at, _)| at.to_be_bytes()));
        bytes.extend(transitions.iter().map(|(_, is_summer)| u8::from(*is_summer)));
        for (east, is_summer, name) in [(3600_i32, 0, 0), (7200, 1, 4)] {
            bytes.extend(east.to_be_bytes());
            bytes.extend([is_summer, name]);
        }
        bytes.extend(names);
        bytes
    }

    /// Readers of long ago and small images have files of the first version alone.
    #[test]
    fn a_file_of_the_first_version_is_read() {
        let rule = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let summers = rule.following(Timestamp::UNIX_EPOCH).map_while(|transition| {
            let at = i32::try_from(transition.timestamp().as_second()).ok()?;
            Some((at, transition.offset().seconds() == 7200))
        });
        let summers: Vec<(i32, bool)> = summers.collect();
        assert_eq!(summers.len(), 136, "two a year, up to the last moment that the first version knows");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), first_version(&summers)).unwrap();
        let path = file.path().to_str().unwrap();
        let summer = 1_784_116_800;
        assert_eq!(shown(&zone(path), summer), "2026-07-15 14:00:00");
        agrees_with_date(path, &moments());
    }

    #[test]
    fn between_two_changes_the_distance_from_utc_is_the_same() {
        use crate::core::schedule::Zone as _;
        let year = 1_767_225_600..1_798_761_600;
        for (tz, expected) in [
            ("CET-1CEST,M3.5.0,M10.5.0/3", vec![1_774_746_000, 1_792_890_000]),
            ("Europe/Berlin", vec![1_774_746_000, 1_792_890_000]),
            ("/usr/share/zoneinfo/Australia/Lord_Howe", vec![1_775_314_800, 1_791_041_400]),
            ("UTC0", vec![]),
            ("Asia/Tokyo", vec![]),
        ] {
            let zone = zone(tz);
            let next = |at: i64| zone.next_change(at).filter(|at| year.contains(at));
            let found: Vec<i64> = std::iter::successors(next(year.start), |at| next(*at)).collect();
            assert_eq!(found, expected, "{tz}");
            for at in year.clone().step_by(7 * 3600) {
                let local = zone.at(at).unwrap().time;
                assert_eq!(Offset::UTC.to_timestamp(local).unwrap().as_second() - at, zone.east(at), "{tz}");
                let before = found.iter().rev().find(|change| **change <= at).unwrap_or(&year.start);
                assert_eq!(zone.east(at), zone.east(*before), "{tz} at {at}");
            }
        }
    }

    #[test]
    fn a_local_time_is_a_moment_and_the_hour_that_repeats_goes_on() {
        let zone = zone("CET-1CEST,M3.5.0,M10.5.0/3");
        let at = |unix| UNIX_EPOCH + Duration::from_secs(unix);
        let moment = |text: &str, not_before| zone.moment(text.parse().unwrap(), not_before);
        assert_eq!(moment("2026-10-25", None), Some(at(1_792_879_200)));
        assert_eq!(moment("2026-10-25 02:30", None), Some(at(1_792_888_200)));
        assert_eq!(moment("2026-10-25T02:30:00", Some(at(1_792_889_999))), Some(at(1_792_891_800)));
        assert_eq!(
            moment("2026-10-25 02:30:00.5", None),
            Some(at(1_792_888_200) + Duration::from_millis(500))
        );
        assert_eq!(moment("2026-03-29 02:30", None), Some(at(1_774_747_800)), "as 03:30");
        for bad in ["", "12:00", "yesterday", "2026-13-01", "2026-01-31T12:00:00Z", "2026-01-31T12:00+01:00"]
        {
            assert_eq!(bad.parse::<Civil>(), Err(NotCivil), "{bad}");
        }
        let noon = Civil::today("12:00", at(1_792_880_000), &zone);
        assert_eq!(noon, "2026-10-25 12:00".parse().ok());
        assert_eq!(parse_rfc3339("2026-01-31T12:00:00+01:00"), parse_rfc3339("2026-01-31T11:00:00Z"));
        assert_eq!(
            rfc3339(at(5) + Duration::from_nanos(7)).as_deref(),
            Some("1970-01-01T00:00:05.000000007Z")
        );
    }
}
