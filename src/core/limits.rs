//! What a service may use at most: the keys of `[limits]`, their values, and which of two is the tighter one.
//!
//! Pure: how a value is written is decided here, how it is put into force elsewhere. A value that exists is in range
//! for its key, because [`Key::parse`] is the only way to make one from a text.

use std::collections::BTreeMap;
use std::fmt;

/// One key of `[limits]`, in the order in which they are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    MemoryMax,
    MemoryHigh,
    SwapMax,
    PidsMax,
    CpuMax,
    CpuWeight,
    IoWeight,
    Oom,
    Nofile,
    Nproc,
    Core,
    OomScoreAdj,
}

/// What it means to a service that the OOM killer kills one of its processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Oom {
    /// The whole tree ends with it.
    Service,
    /// The rest goes on.
    Process,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Value {
    /// No bound.
    Max,
    /// Bytes, processes, descriptors or a weight.
    Amount(u64),
    /// So many microseconds of CPU time in each period of so many.
    Cpu {
        quota: u64,
        period: u64,
    },
    Oom(Oom),
    /// Added to the badness of its processes (proc_pid_oom_score_adj(5)).
    Adjustment(i16),
}

/// Who enforces a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enforcer {
    /// This controller of the service's cgroup.
    Controller(&'static str),
    /// Each process, from its exec on.
    Process,
}

/// The keys that are set, with their values, in the order of the keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits(Vec<(Key, Value)>);

/// What a process of the supervisor has without any limit: the hard limits, and the adjustment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inherited {
    /// `u64::MAX`: unlimited, here and below.
    pub nofile: u64,
    pub nproc: u64,
    pub core: u64,
    pub oom_score_adj: i16,
}

/// A limit that was asked for and does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotInForce {
    pub key: Key,
    pub value: Value,
    pub why: String,
}

/// Why a text is no value of a key, and what is allowed; the end of a sentence about the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    #[error("is out of range; allowed: {0}")]
    OutOfRange(&'static str),
    #[error("is not known here; allowed: {0}")]
    Unknown(&'static str),
    #[error("is not an adjustment; allowed: -1000 to 1000")]
    NotAnAdjustment,
}

/// The weight of a cgroup that was given none (cgroup-v2.rst, `cpu.weight` and `io.weight`).
const DEFAULT_WEIGHT: u64 = 100;
/// The period of `cpu.max` that a percentage is of, in microseconds; the kernel's own default.
const CPU_PERIOD: u64 = 100_000;
/// The most processes that a kernel can have (PID_MAX_LIMIT).
const MOST_PROCESSES: u64 = 4 << 20;

impl Key {
    pub const ALL: [Self; 12] = [
        Self::MemoryMax,
        Self::MemoryHigh,
        Self::SwapMax,
        Self::PidsMax,
        Self::CpuMax,
        Self::CpuWeight,
        Self::IoWeight,
        Self::Oom,
        Self::Nofile,
        Self::Nproc,
        Self::Core,
        Self::OomScoreAdj,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::MemoryMax => "memory_max",
            Self::MemoryHigh => "memory_high",
            Self::SwapMax => "swap_max",
            Self::PidsMax => "pids_max",
            Self::CpuMax => "cpu_max",
            Self::CpuWeight => "cpu_weight",
            Self::IoWeight => "io_weight",
            Self::Oom => "oom",
            Self::Nofile => "nofile",
            Self::Nproc => "nproc",
            Self::Core => "core",
            Self::OomScoreAdj => "oom_score_adj",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|key| key.as_str() == name)
    }

    pub fn enforcer(self) -> Enforcer {
        match self {
            Self::MemoryMax | Self::MemoryHigh | Self::SwapMax | Self::Oom => Enforcer::Controller("memory"),
            Self::PidsMax => Enforcer::Controller("pids"),
            Self::CpuMax | Self::CpuWeight => Enforcer::Controller("cpu"),
            Self::IoWeight => Enforcer::Controller("io"),
            Self::Nofile | Self::Nproc | Self::Core | Self::OomScoreAdj => Enforcer::Process,
        }
    }

    /// Reads a value of this key.
    ///
    /// # Errors
    /// [`ValueError`].
    pub fn parse(self, text: &str) -> Result<Value, ValueError> {
        let text = text.trim();
        let amount = |value: Option<u64>, least: u64, most: u64, allowed| match value {
            Some(value) if (least..=most).contains(&value) => Ok(Value::Amount(value)),
            Some(_) => Err(ValueError::OutOfRange(allowed)),
            None => Err(ValueError::Unknown(allowed)),
        };
        let number = text.parse::<u64>().ok();
        match self {
            Self::MemoryMax | Self::MemoryHigh | Self::SwapMax | Self::Nproc | Self::Core | Self::PidsMax
                if text == "max" =>
            {
                Ok(Value::Max)
            }
            // Below this nothing can even be executed.
            Self::MemoryMax | Self::MemoryHigh => amount(
                size(text),
                1 << 20,
                i64::MAX as u64,
                "a size of at least 1M, as in \"512M\", or \"max\"",
            ),
            Self::SwapMax => amount(size(text), 0, i64::MAX as u64, "a size, as in \"512M\", or \"max\""),
            Self::Core => amount(size(text), 0, i64::MAX as u64, "a size, as in \"512M\", or \"max\""),
            Self::PidsMax | Self::Nproc => amount(number, 1, MOST_PROCESSES, "1 to 4194304, or \"max\""),
            // The bound of fs.nr_open (fs/file.c, sysctl_nr_open_max) is what a 64-bit kernel can ever hold.
            Self::Nofile => amount(number, 1, (1 << 31) - 64, "1 to 2147483584"),
            Self::CpuWeight | Self::IoWeight => {
                amount(number, 1, 10_000, "1 to 10000 (100 where nothing is set)")
            }
            Self::CpuMax => cpu_max(text),
            Self::Oom => match text {
                "service" => Ok(Value::Oom(Oom::Service)),
                "process" => Ok(Value::Oom(Oom::Process)),
                _ => Err(ValueError::Unknown("service, process")),
            },
            Self::OomScoreAdj => match text.parse::<i16>() {
                Ok(value) if (-1000..=1000).contains(&value) => Ok(Value::Adjustment(value)),
                _ => Err(ValueError::NotAnAdjustment),
            },
        }
    }

    /// The value in the words that [`Self::parse`] reads.
    pub fn show(self, value: Value) -> String {
        match (self, value) {
            (Self::MemoryMax | Self::MemoryHigh | Self::SwapMax | Self::Core, Value::Amount(bytes)) => {
                show_size(bytes)
            }
            (_, Value::Max) => "max".to_owned(),
            (_, Value::Amount(number)) => number.to_string(),
            (_, Value::Cpu { quota, period: CPU_PERIOD }) if quota.is_multiple_of(CPU_PERIOD / 100) => {
                format!("{}%", quota / (CPU_PERIOD / 100))
            }
            (_, Value::Cpu { quota, period }) => format!("{quota} {period}"),
            (_, Value::Oom(Oom::Service)) => "service".to_owned(),
            (_, Value::Oom(Oom::Process)) => "process".to_owned(),
            (_, Value::Adjustment(number)) => number.to_string(),
        }
    }

    /// What holds where the key was never set; `None`: whatever the process inherits.
    pub fn neutral(self) -> Option<Value> {
        match self {
            Self::MemoryMax | Self::MemoryHigh | Self::SwapMax | Self::PidsMax | Self::CpuMax => {
                Some(Value::Max)
            }
            Self::CpuWeight | Self::IoWeight => Some(Value::Amount(DEFAULT_WEIGHT)),
            Self::Oom => Some(Value::Oom(Oom::Process)),
            Self::Nofile | Self::Nproc | Self::Core | Self::OomScoreAdj => None,
        }
    }

    /// Whether `to` allows more than `from`; `None` is what holds where nothing is set.
    fn raises(self, from: Option<Value>, to: Value, inherited: &Inherited) -> bool {
        let unlimited = |amount: u64| if amount == u64::MAX { Value::Max } else { Value::Amount(amount) };
        let from = from.or(self.neutral()).unwrap_or_else(|| match self {
            Self::Nofile => unlimited(inherited.nofile),
            Self::Nproc => unlimited(inherited.nproc),
            Self::Core => unlimited(inherited.core),
            _ => Value::Adjustment(inherited.oom_score_adj),
        });
        match (from, to) {
            (Value::Max, _) => false,
            (_, Value::Max) => true,
            (Value::Amount(from), Value::Amount(to)) => to > from,
            (Value::Cpu { quota, period }, Value::Cpu { quota: to_quota, period: to_period }) => {
                u128::from(to_quota) * u128::from(period) > u128::from(quota) * u128::from(to_period)
            }
            // The lower, the later is it chosen to be killed.
            (Value::Adjustment(from), Value::Adjustment(to)) => to < from,
            // Neither takes anything from anybody else.
            (Value::Oom(_), Value::Oom(_)) => false,
            // Values of two keys: never made.
            (Value::Amount(_) | Value::Cpu { .. } | Value::Oom(_) | Value::Adjustment(_), _) => true,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Limits {
    pub fn get(&self, key: Key) -> Option<Value> {
        self.iter().find(|(set, _)| *set == key).map(|(_, value)| value)
    }

    pub fn set(&mut self, key: Key, value: Value) {
        self.remove(key);
        let place = self.0.iter().take_while(|(set, _)| *set < key).count();
        self.0.insert(place, (key, value));
    }

    pub fn remove(&mut self, key: Key) {
        self.0.retain(|(set, _)| *set != key);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (Key, Value)> {
        self.0.iter().copied()
    }

    /// These, with `over` in place of what it sets.
    pub fn with(&self, over: &Self) -> Self {
        self.iter().chain(over.iter()).collect()
    }

    pub fn oom(&self) -> Oom {
        match self.get(Key::Oom) {
            Some(Value::Oom(oom)) => oom,
            _ => Oom::Process,
        }
    }

    /// The keys of `over` that allow more than these do.
    pub fn raised_by(&self, over: &Self, inherited: &Inherited) -> Vec<Key> {
        over.iter()
            .filter(|(key, value)| key.raises(self.get(*key), *value, inherited))
            .map(|(key, _)| key)
            .collect()
    }

    /// By their names and in words.
    pub fn shown(&self) -> BTreeMap<String, String> {
        self.iter().map(|(key, value)| (key.to_string(), key.show(value))).collect()
    }

    /// Reads what [`Self::shown`] wrote; what is not understood is left out.
    pub fn from_shown(shown: &BTreeMap<String, String>) -> Self {
        let one = |(name, text): (&String, &String)| {
            let key = Key::from_name(name)?;
            Some((key, key.parse(text).ok()?))
        };
        shown.iter().filter_map(one).collect()
    }
}

impl FromIterator<(Key, Value)> for Limits {
    fn from_iter<I: IntoIterator<Item = (Key, Value)>>(items: I) -> Self {
        let mut limits = Self::default();
        items.into_iter().for_each(|(key, value)| limits.set(key, value));
        limits
    }
}

impl Inherited {
    /// What a process can have at most of what each process is bound by itself.
    pub fn hard(&self, key: Key) -> Option<u64> {
        match key {
            Key::Nofile => Some(self.nofile),
            Key::Nproc => Some(self.nproc),
            Key::Core => Some(self.core),
            _ => None,
        }
    }
}

impl fmt::Display for NotInForce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={} is not in force: {}", self.key, self.key.show(self.value), self.why)
    }
}

/// `"150%"` of one CPU, `"QUOTA PERIOD"` in microseconds, or `"max"`.
fn cpu_max(text: &str) -> Result<Value, ValueError> {
    let wrong = || ValueError::Unknown("\"150%\" of one CPU, \"QUOTA PERIOD\" in microseconds, or \"max\"");
    if text == "max" {
        return Ok(Value::Max);
    }
    let (quota, period) = match text.strip_suffix('%') {
        Some(percent) => {
            let percent: u64 = percent.trim().parse().map_err(|_| wrong())?;
            (percent.saturating_mul(CPU_PERIOD / 100), CPU_PERIOD)
        }
        None => {
            let (quota, period) = text.split_once(' ').ok_or_else(wrong)?;
            (quota.parse().map_err(|_| wrong())?, period.trim().parse().map_err(|_| wrong())?)
        }
    };
    // kernel/sched/core.c: min_cfs_quota_period and max_cfs_quota_period; the quota has the same least, and its most is
    // far above what any machine has.
    if (1_000..=1_000_000).contains(&period) && (1_000..=1_000_000_000_000).contains(&quota) {
        Ok(Value::Cpu { quota, period })
    } else {
        Err(ValueError::OutOfRange("a quota of at least 1000 (or 1%), a period of 1000 to 1000000"))
    }
}

/// A number of bytes: `"1MB"` is 10^6 as in s6-log, `"512M"` and `"512MiB"` are 2^20 times 512 as the kernel counts.
pub fn size(text: &str) -> Option<u64> {
    let text = text.trim();
    let split = text.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().ok()?;
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(factor)
}

fn show_size(bytes: u64) -> String {
    for (shift, unit) in [(30, "G"), (20, "M"), (10, "K")] {
        if bytes != 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const INHERITED: Inherited = Inherited { nofile: 4096, nproc: u64::MAX, core: 0, oom_score_adj: 0 };

    fn value(key: Key, text: &str) -> Value {
        key.parse(text).unwrap_or_else(|error| panic!("{key} {text}: {error}"))
    }

    #[test]
    fn values_are_those_of_the_documentation_and_read_back() {
        for (key, text, shown, expected) in [
            (Key::MemoryMax, "512M", "512M", Value::Amount(512 << 20)),
            (Key::MemoryHigh, "max", "max", Value::Max),
            (Key::SwapMax, "0", "0", Value::Amount(0)),
            (Key::MemoryMax, "1500000000", "1500000000", Value::Amount(1_500_000_000)),
            (Key::PidsMax, "64", "64", Value::Amount(64)),
            (Key::CpuMax, "150%", "150%", Value::Cpu { quota: 150_000, period: 100_000 }),
            (Key::CpuMax, "50000 100000", "50%", Value::Cpu { quota: 50_000, period: 100_000 }),
            (Key::CpuMax, "1234 20000", "1234 20000", Value::Cpu { quota: 1234, period: 20_000 }),
            (Key::CpuWeight, "10000", "10000", Value::Amount(10_000)),
            (Key::Oom, "service", "service", Value::Oom(Oom::Service)),
            (Key::Nofile, "1024", "1024", Value::Amount(1024)),
            (Key::Core, "1GB", "1000000000", Value::Amount(1_000_000_000)),
            (Key::OomScoreAdj, "-500", "-500", Value::Adjustment(-500)),
            // The ends of each range.
            (Key::MemoryMax, "1M", "1M", Value::Amount(1 << 20)),
            (Key::MemoryHigh, "9223372036854775807", "9223372036854775807", Value::Amount(i64::MAX as u64)),
            (Key::SwapMax, "max", "max", Value::Max),
            (Key::PidsMax, "1", "1", Value::Amount(1)),
            (Key::PidsMax, "4194304", "4194304", Value::Amount(4 << 20)),
            (Key::Nproc, "max", "max", Value::Max),
            (Key::Core, "max", "max", Value::Max),
            (Key::Core, "0", "0", Value::Amount(0)),
            (Key::Nofile, "2147483584", "2147483584", Value::Amount(2_147_483_584)),
            (Key::IoWeight, "1", "1", Value::Amount(1)),
            (Key::CpuMax, "max", "max", Value::Max),
            (Key::CpuMax, "1%", "1%", Value::Cpu { quota: 1000, period: 100_000 }),
            (Key::CpuMax, "1500 100000", "1500 100000", Value::Cpu { quota: 1500, period: 100_000 }),
            (Key::CpuMax, "1000 1000000", "1000 1000000", Value::Cpu { quota: 1000, period: 1_000_000 }),
            (Key::CpuMax, "1000 1000", "1000 1000", Value::Cpu { quota: 1000, period: 1000 }),
            (Key::Oom, "process", "process", Value::Oom(Oom::Process)),
            (Key::OomScoreAdj, "1000", "1000", Value::Adjustment(1000)),
            (Key::OomScoreAdj, "-1000", "-1000", Value::Adjustment(-1000)),
        ] {
            assert_eq!(value(key, text), expected, "{key} {text}");
            assert_eq!(key.show(expected), shown);
            assert_eq!(value(key, shown), expected);
        }
    }

    #[test]
    fn what_is_out_of_range_is_refused_with_what_is_allowed() {
        for (key, bad) in [
            (Key::MemoryMax, "4096"),
            (Key::MemoryMax, "lots"),
            (Key::MemoryMax, "18446744073709551615"),
            (Key::PidsMax, "0"),
            (Key::PidsMax, "-1"),
            (Key::CpuMax, "0%"),
            (Key::CpuMax, "150"),
            (Key::CpuMax, "1000 10"),
            (Key::CpuMax, "99999999999999999999%"),
            (Key::CpuWeight, "0"),
            (Key::IoWeight, "10001"),
            (Key::Oom, "kill"),
            (Key::Nofile, "max"),
            (Key::MemoryMax, "1048575"),
            (Key::SwapMax, "9223372036854775808"),
            (Key::Core, "9223372036854775808"),
            (Key::PidsMax, "4194305"),
            (Key::Nproc, "0"),
            (Key::Nofile, "0"),
            (Key::Nofile, "2147483585"),
            (Key::CpuWeight, "max"),
            (Key::CpuMax, "999 100000"),
            (Key::CpuMax, "1000 999"),
            (Key::CpuMax, "1000 1000001"),
            (Key::CpuMax, "1000000000001 100000"),
            (Key::OomScoreAdj, "-1001"),
            (Key::OomScoreAdj, "1001"),
            (Key::OomScoreAdj, "max"),
        ] {
            let error = key.parse(bad).expect_err(bad);
            let error = error.to_string();
            assert!(error.starts_with("is ") && error.contains("allowed: "), "{key} {bad}: {error}");
        }
    }

    #[test]
    fn tighter_is_tighter_for_each_kind() {
        for (key, from, to, raises) in [
            (Key::MemoryMax, None, "1G", false),
            (Key::MemoryMax, Some("1G"), "512M", false),
            (Key::MemoryMax, Some("1G"), "1G", false),
            (Key::MemoryMax, Some("1G"), "2G", true),
            (Key::MemoryMax, Some("1G"), "max", true),
            (Key::CpuMax, Some("50%"), "10000 20000", false),
            (Key::CpuMax, Some("50%"), "10001 20000", true),
            (Key::CpuWeight, None, "100", false),
            (Key::IoWeight, None, "101", true),
            (Key::Oom, Some("service"), "process", false),
            (Key::Nofile, None, "4096", false),
            (Key::Nofile, None, "4097", true),
            (Key::Nproc, None, "max", false),
            (Key::Nproc, None, "4096", false),
            (Key::Core, None, "1", true),
            (Key::Core, None, "0", false),
            (Key::PidsMax, None, "max", false),
            (Key::PidsMax, Some("10"), "10", false),
            (Key::SwapMax, Some("0"), "1", true),
            (Key::MemoryHigh, Some("max"), "1G", false),
            (Key::CpuMax, None, "400%", false),
            (Key::CpuMax, Some("400%"), "max", true),
            (Key::Oom, None, "service", false),
            (Key::OomScoreAdj, None, "0", false),
            (Key::OomScoreAdj, None, "-1", true),
            (Key::OomScoreAdj, None, "500", false),
            (Key::OomScoreAdj, Some("500"), "400", true),
        ] {
            let base: Limits = from.map(|text| (key, value(key, text))).into_iter().collect();
            let over: Limits = [(key, value(key, to))].into_iter().collect();
            let raised = base.raised_by(&over, &INHERITED);
            assert_eq!(!raised.is_empty(), raises, "{key} {from:?} -> {to}");
        }
    }

    #[test]
    fn one_over_the_other_and_back_from_words() {
        let base: Limits =
            [(Key::PidsMax, Value::Amount(10)), (Key::Oom, Value::Oom(Oom::Service))].into_iter().collect();
        let over: Limits = [(Key::PidsMax, Value::Amount(5))].into_iter().collect();
        let both = base.with(&over);
        assert_eq!((both.get(Key::PidsMax), both.oom()), (Some(Value::Amount(5)), Oom::Service));
        assert_eq!(Limits::from_shown(&both.shown()), both);
        let odd = BTreeMap::from([("pids_max".to_owned(), "x".to_owned()), ("y".to_owned(), "1".to_owned())]);
        assert!(Limits::from_shown(&odd).is_empty());
        assert_eq!(Limits::default().oom(), Oom::Process);
        assert!(Limits::default().is_empty() && !both.is_empty());
        let mut limits: Limits = Key::ALL.into_iter().rev().map(|key| (key, Value::Max)).collect();
        limits.set(Key::Oom, Value::Max);
        assert_eq!(limits.iter().map(|(key, _)| key).collect::<Vec<_>>(), Key::ALL);
    }

    #[test]
    fn each_key_has_who_enforces_it_and_what_a_process_is_bound_by_has_a_hard_limit() {
        let enforcers = Key::ALL.map(|key| match key.enforcer() {
            Enforcer::Controller(name) => name,
            Enforcer::Process => "process",
        });
        assert_eq!(
            enforcers,
            [
                "memory", "memory", "memory", "pids", "cpu", "cpu", "io", "memory", "process", "process",
                "process", "process"
            ]
        );
        let hard = |key| INHERITED.hard(key);
        assert_eq!([Key::Nofile, Key::Nproc, Key::Core].map(hard), [Some(4096), Some(u64::MAX), Some(0)]);
        assert_eq!(hard(Key::OomScoreAdj), None);
        let why = "there is no controller".to_owned();
        let none = NotInForce { key: Key::MemoryMax, value: Value::Amount(1 << 20), why };
        assert_eq!(none.to_string(), "memory_max=1M is not in force: there is no controller");
    }

    #[test]
    fn sizes_are_decimal_with_a_b_and_binary_without() {
        assert_eq!(size("1MB"), Some(1_000_000));
        assert_eq!(size("512M"), Some(512 << 20));
        assert_eq!(size("4 KiB"), Some(4096));
        assert_eq!(size("77"), Some(77));
        for (text, bytes) in [
            ("3b", 3),
            ("3kB", 3000),
            ("3GB", 3_000_000_000),
            ("3k", 3072),
            ("3MiB", 3 << 20),
            ("3G", 3 << 30),
            (" 3 gib ", 3 << 30),
        ] {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        let shown = [0, 1023, 1024, 1536, 1 << 20, 5 << 30, 1 << 40].map(show_size);
        assert_eq!(shown, ["0", "1023", "1K", "1536", "1M", "5G", "1024G"]);
        for bad in ["", "MB", "-1", "1.5M", "1TBB", "99999999999999999999", "18446744073709551615K"] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_is_read_is_shown_so_that_it_reads_the_same(
            text in "[-+]?[0-9]{0,21}[ %]?[0-9]{0,8}[a-zA-Z]{0,3}|max|\\PC{0,10}",
        ) {
            for key in Key::ALL {
                if let Ok(value) = key.parse(&text) {
                    prop_assert_eq!(key.parse(&key.show(value)), Ok(value));
                }
            }
        }
    }
}
