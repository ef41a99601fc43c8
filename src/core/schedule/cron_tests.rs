//! Lines of crontab(5) against their meaning, looked up minute by minute, and what is no such line.

use super::{Cron, CronError, Zone};
use jiff::Timestamp;
use jiff::civil::{DateTime, date};
use jiff::tz::Offset;
use proptest::prelude::*;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// Its clock is set at these moments, to so much ahead of UTC.
#[derive(Debug, Clone)]
struct Played {
    at_first: i64,
    changes: Vec<(i64, i64)>,
}

impl Zone for Played {
    fn east(&self, unix: i64) -> i64 {
        self.changes.iter().rfind(|(at, _)| *at <= unix).map_or(self.at_first, |(_, east)| *east)
    }

    fn next_change(&self, unix: i64) -> Option<i64> {
        self.changes.iter().map(|(at, _)| *at).find(|at| *at > unix)
    }
}

const UTC: Played = Played { at_first: 0, changes: Vec::new() };

fn utc(local: DateTime) -> i64 {
    Offset::UTC.to_timestamp(local).unwrap().as_second()
}

/// Of Berlin: in summer from 29 March 2026, 02:00, to 25 October, 03:00.
fn berlin() -> Played {
    let spring = utc(date(2026, 3, 29).at(1, 0, 0, 0));
    let autumn = utc(date(2026, 10, 25).at(1, 0, 0, 0));
    Played { at_first: HOUR, changes: vec![(spring, 2 * HOUR), (autumn, HOUR)] }
}

fn cron(line: &str) -> Cron {
    line.parse().unwrap_or_else(|error| panic!("{line}: {error}"))
}

/// The next `count` runs from `from` on, by the clock of `zone`; a run in the second of two same hours with a `b`.
fn runs(line: &str, from: DateTime, zone: &Played, count: usize) -> Vec<String> {
    let mut at = utc(from) - zone.at_first - 1;
    let shown = |unix: i64| {
        let local = |unix: i64| unix + zone.east(unix);
        let again = (1..=3 * HOUR / MINUTE).any(|n| local(unix - n * MINUTE) == local(unix));
        let time = Offset::UTC.to_datetime(Timestamp::from_second(local(unix)).unwrap());
        format!("{}{}", time.strftime("%m-%d %H:%M"), if again { "b" } else { "" })
    };
    (0..count)
        .map(|_| {
            at = cron(line).next(at, zone).unwrap();
            shown(at)
        })
        .collect()
}

#[test]
fn what_a_line_means() {
    let from = date(2026, 1, 30).at(22, 58, 0, 0);
    for (line, expected) in [
        ("* * * * *", ["01-30 22:58", "01-30 22:59"]),
        ("*/5 * * * *", ["01-30 23:00", "01-30 23:05"]),
        ("0 0 * * *", ["01-31 00:00", "02-01 00:00"]),
        ("59 22-23/1 * * *", ["01-30 22:59", "01-30 23:59"]),
        ("7,9-11/2 1 * * *", ["01-31 01:07", "01-31 01:09"]),
        ("30 4 1 * *", ["02-01 04:30", "03-01 04:30"]),
        ("0 12 * feb,Mar Mon-FRI", ["02-02 12:00", "02-03 12:00"]),
        ("0 12 * * sat-sun", ["01-31 12:00", "02-01 12:00"]),
        ("0 12 * * 7", ["02-01 12:00", "02-08 12:00"]),
        ("0 12 * * 0-0", ["02-01 12:00", "02-08 12:00"]),
        ("0 12 * * sun-sun", ["02-01 12:00", "02-08 12:00"]),
        ("0 0 31 * *", ["01-31 00:00", "03-31 00:00"]),
        ("@hourly", ["01-30 23:00", "01-31 00:00"]),
        ("@daily", ["01-31 00:00", "02-01 00:00"]),
        ("@midnight", ["01-31 00:00", "02-01 00:00"]),
        ("@weekly", ["02-01 00:00", "02-08 00:00"]),
        (" @Monthly ", ["02-01 00:00", "03-01 00:00"]),
        ("@yearly", ["01-01 00:00", "01-01 00:00"]),
        ("@annually", ["01-01 00:00", "01-01 00:00"]),
    ] {
        assert_eq!(runs(line, from, &UTC, 2), expected, "{line}");
        assert_eq!(cron(line).to_string(), line.trim());
    }
}

/// crontab(5): where both days are restricted, one of them is enough; a field that begins with `*` restricts nothing.
#[test]
fn a_day_of_the_month_or_of_the_week() {
    let from = date(2026, 2, 1).at(0, 0, 0, 0);
    for (line, expected) in [
        ("0 0 13 * fri", ["02-06 00:00", "02-13 00:00", "02-20 00:00", "02-27 00:00", "03-06 00:00"]),
        ("0 0 13 * */5", ["02-13 00:00", "03-13 00:00", "09-13 00:00", "11-13 00:00", "12-13 00:00"]),
        ("0 0 */10 * mon", ["05-11 00:00", "06-01 00:00", "08-31 00:00", "09-21 00:00", "12-21 00:00"]),
    ] {
        assert_eq!(runs(line, from, &UTC, 5), expected, "{line}");
    }
}

#[test]
fn a_leap_day_is_waited_for_and_a_day_that_never_comes_is_refused() {
    let leap = cron("0 0 29 2 *").next(utc(date(2096, 3, 1).at(0, 0, 0, 0)), &UTC);
    assert_eq!(leap, Some(utc(date(2104, 2, 29).at(0, 0, 0, 0))));
    // On a Sunday; 2100 has none.
    let sunday = cron("0 0 29 2 */7").next(utc(date(2088, 3, 1).at(0, 0, 0, 0)), &UTC);
    assert_eq!(sunday, Some(utc(date(2128, 2, 29).at(0, 0, 0, 0))));
    for line in ["0 0 30 2 *", "0 0 31 4,6,9,11 *", "0 0 30,31 feb */2"] {
        assert_eq!(line.parse::<Cron>(), Err(CronError::Never), "{line}");
    }
    assert!("0 0 30 2 mon".parse::<Cron>().is_ok(), "the Mondays of February");
}

/// The calendar of the crate ends with the year 9999.
#[test]
fn where_the_calendar_ends_nothing_is_due() {
    let cron = cron("0 0 1 1 *");
    let last = utc(date(9999, 1, 1).at(0, 0, 0, 0));
    assert_eq!(cron.next(last - 1, &UTC), Some(last));
    assert_eq!(cron.next(last, &UTC), None);
    assert_eq!(cron.next(i64::MIN, &UTC), None);
    assert_eq!(cron.next(i64::MAX, &UTC), None);
}

/// Whoever is asked for what follows a moment, and answers with that moment, would be asked for ever.
#[test]
fn a_zone_that_names_the_same_moment_again_is_asked_no_more() {
    struct Standing;
    impl Zone for Standing {
        fn east(&self, _: i64) -> i64 {
            HOUR
        }
        fn next_change(&self, unix: i64) -> Option<i64> {
            Some(unix)
        }
    }
    let from = utc(date(2026, 1, 30).at(22, 58, 0, 0));
    assert_eq!(cron("0 0 * * *").next(from, &Standing), Some(utc(date(2026, 1, 30).at(23, 0, 0, 0))));
}

#[test]
fn in_spring_a_line_that_names_hours_is_made_up_for_and_one_for_every_hour_goes_on() {
    let from = date(2026, 3, 29).at(1, 0, 0, 0);
    for (line, expected) in [
        ("30 2 * * *", ["03-29 03:00", "03-30 02:30"]),
        ("*/20 2 * * *", ["03-29 03:00", "03-30 02:00"]),
        ("0 1-3 * * *", ["03-29 01:00", "03-29 03:00"]),
        ("30 */2 * * *", ["03-29 03:00", "03-29 04:30"]),
        ("30 * * * *", ["03-29 01:30", "03-29 03:30"]),
        ("0 3 * * *", ["03-29 03:00", "03-30 03:00"]),
    ] {
        assert_eq!(runs(line, from, &berlin(), 2), expected, "{line}");
    }
}

#[test]
fn in_autumn_a_line_that_names_hours_runs_once_and_one_for_every_hour_goes_on() {
    let mut zone = berlin();
    // From summer on.
    zone.changes.remove(0);
    zone.at_first = 2 * HOUR;
    let from = date(2026, 10, 25).at(2, 0, 0, 0);
    for (line, expected) in [
        ("30 2 * * *", ["10-25 02:30", "10-26 02:30", "10-27 02:30"]),
        ("*/30 2,3 * * *", ["10-25 02:00", "10-25 02:30", "10-25 03:00"]),
        ("30 * * * *", ["10-25 02:30", "10-25 02:30b", "10-25 03:30"]),
        ("0 */2 * * *", ["10-25 02:00", "10-25 04:00", "10-25 06:00"]),
    ] {
        assert_eq!(runs(line, from, &zone, 3), expected, "{line}");
    }
    // Asked within the second of the two hours.
    let second = utc(date(2026, 10, 25).at(1, 10, 0, 0));
    assert_eq!(cron("30 2 * * *").next(second, &zone), Some(utc(date(2026, 10, 26).at(1, 30, 0, 0))));
    assert_eq!(cron("30 * * * *").next(second, &zone), Some(second + 20 * MINUTE));
}

#[test]
fn what_is_no_line_is_refused_with_what_is_allowed() {
    for (line, expected) in [
        ("", "has 0 fields; write five"),
        ("* * * *", "has 4 fields; write five"),
        ("0 * * * * *", "has 6 fields; write five"),
        ("@fortnightly", "is not known here; allowed: @hourly, @daily, "),
        ("@reboot", "runs at each boot without a 'schedule'; leave it out"),
        (
            "60 * * * *",
            "has \"60\" for the minute; allowed: 0 to 59, alone or as in *, A-B, */N, A-B/N and A,B",
        ),
        ("* 24 * * *", "has \"24\" for the hour; allowed: 0 to 23,"),
        ("* * 0 * *", "has \"0\" for the day of month; allowed: 1 to 31,"),
        ("* * * 13 *", "has \"13\" for the month; allowed: 1 to 12 or jan to dec,"),
        ("* * * * 8", "has \"8\" for the day of week; allowed: 0 to 7 or sun to sat (0 and 7 are Sunday),"),
        ("* * * janfeb *", "has \"janfeb\" for the month;"),
        ("* * * 1mon *", "has \"1mon\" for the month;"),
        ("*/0 * * * *", "has \"*/0\" for the minute;"),
        ("5/15 * * * *", "has \"5/15\" for the minute;"),
        ("+5 * * * *", "has \"+5\" for the minute;"),
        ("1, * * * *", "has \"\" for the minute;"),
        ("1-2-3 * * * *", "has \"1-2-3\" for the minute;"),
        ("-5 * * * *", "has \"-5\" for the minute;"),
        ("*/x * * * *", "has \"*/x\" for the minute;"),
        ("99999999999 * * * *", "has \"99999999999\" for the minute;"),
        ("0 22-2 * * *", "has \"22-2\" for the hour, which runs backwards; write two ranges with a comma"),
        ("0 0 * * fri-mon", "has \"fri-mon\" for the day of week, which runs backwards;"),
        ("0 0 ? * *", "has \"?\" for the day of month;"),
    ] {
        let said = line.parse::<Cron>().map_err(|error| error.to_string());
        assert!(said.as_ref().is_err_and(|said| said.starts_with(expected)), "{line}: {said:?}");
    }
}

/// By the words of crontab(5), without anything of the parser.
fn is_in(field: &str, least: i64, most: i64, value: i64) -> bool {
    field.split(',').any(|part| {
        let (range, step) = part.split_once('/').unwrap_or((part, "1"));
        let (first, last) = match range.split_once('-') {
            Some((first, last)) => (first.parse().unwrap(), last.parse().unwrap()),
            None if range == "*" => (least, most),
            None => (range.parse().unwrap(), range.parse().unwrap()),
        };
        value >= first && value <= last && (value - first) % step.parse::<i64>().unwrap() == 0
    })
}

fn matches(fields: &[String; 5], local: i64) -> bool {
    let time = Offset::UTC.to_datetime(Timestamp::from_second(local).unwrap());
    let [minute, hour, day, month, weekday] = fields;
    let on_day = is_in(day, 1, 31, time.day().into());
    let number: i64 = time.weekday().to_sunday_zero_offset().into();
    let on_weekday = is_in(weekday, 0, 7, number) || (number == 0 && is_in(weekday, 0, 7, 7));
    let either = !day.starts_with('*') && !weekday.starts_with('*');
    is_in(minute, 0, 59, time.minute().into())
        && is_in(hour, 0, 23, time.hour().into())
        && is_in(month, 1, 12, time.month().into())
        && if either { on_day || on_weekday } else { on_day && on_weekday }
}

/// The first minute after `after` and before `end` in which it is due, by the words of the module's head.
fn looked_up(fields: &[String; 5], after: i64, end: i64, zone: &Played) -> Option<i64> {
    let for_every_hour = (0..24).all(|hour| is_in(&fields[1], 0, 23, hour));
    let first = (after.div_euclid(MINUTE) + 1) * MINUTE;
    // The latest minute that the clock has shown.
    let mut shown = i64::MIN;
    for unix in (first - DAY..end).step_by(60) {
        let local = unix + zone.east(unix);
        let is_new = local > shown;
        let mut left_out = if shown == i64::MIN { local..local } else { shown + MINUTE..local }.step_by(60);
        let is_due = (matches(fields, local) && (is_new || for_every_hour))
            || (!for_every_hour && left_out.any(|left_out| matches(fields, left_out)));
        if unix > after && is_due {
            return Some(unix);
        }
        shown = shown.max(local);
    }
    None
}

fn field(least: i64, most: i64) -> impl Strategy<Value = String> {
    let value = move || least..=most;
    let part = prop_oneof![
        3 => Just("*".to_owned()),
        2 => (2i64..20).prop_map(|step| format!("*/{step}")),
        3 => value().prop_map(|value| value.to_string()),
        2 => (value(), value()).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
        1 => (value(), value(), 1i64..9).prop_map(|(a, b, step)| format!("{}-{}/{step}", a.min(b), a.max(b))),
    ];
    prop_oneof![4 => part.clone(), 1 => (part.clone(), part).prop_map(|(a, b)| format!("{a},{b}"))]
}

/// The clock is set forth and back, by half an hour to three hours, on two of four days.
fn zone(begin: i64) -> impl Strategy<Value = Played> {
    let change = (0i64..4 * 24, prop_oneof![Just(-1i64), Just(1)], 1i64..=6);
    (-12i64..=12, proptest::collection::vec(change, 0..3)).prop_map(move |(at_first, mut set)| {
        set.sort_unstable();
        set.dedup_by_key(|(hour, ..)| *hour / 24);
        let mut east = at_first * HOUR;
        let changes = set.into_iter().map(|(hour, way, halves)| {
            east += way * halves * HOUR / 2;
            (begin + hour * HOUR, east)
        });
        Played { at_first: at_first * HOUR, changes: changes.collect() }
    })
}

const BEGIN: i64 = 1_774_742_400;

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn the_next_run_is_the_first_minute_that_is_due(
        fields in (field(0, 59), field(0, 23), field(1, 31), field(1, 12), field(0, 7)),
        zone in zone(BEGIN),
        minutes in 0i64..4 * 24 * 60,
        second in 0i64..60,
    ) {
        let fields = [fields.0, fields.1, fields.2, fields.3, fields.4];
        let Ok(cron) = fields.join(" ").parse::<Cron>() else { return Ok(()) };
        let after = BEGIN + minutes * MINUTE + second;
        let window = after + 2 * DAY;
        let expected = looked_up(&fields, after, window, &zone);
        let found = cron.next(after, &zone);
        prop_assert!(found.is_some());
        prop_assert_eq!(found.filter(|at| *at < window), expected);
    }

    #[test]
    fn no_text_panics(text in "[-@*/, 0-9a-z+?#L]{0,30}") {
        if let Ok(cron) = text.parse::<Cron>() {
            prop_assert!(cron.next(BEGIN, &UTC).is_some());
        }
    }
}
