//! What came of a boot: how long each service took, which chain of them took longest, and a picture of it. Pure.

use crate::control::protocol::ServiceStatus;
use serde::Serialize;
use std::fmt::Write as _;

/// Nothing was being started for so long, in milliseconds: what starts later is no part of the boot.
const QUIET: u64 = 1000;

/// One service's start, in milliseconds since the supervisor started.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Bar<'a> {
    pub name: &'a str,
    /// When nothing that it waits for was left.
    pub begun_ms: u64,
    pub up_ms: Option<u64>,
    /// When it was done: ready where it has a way to say so, up otherwise; of a oneshot its end.
    pub done_ms: Option<u64>,
    /// It starts after these.
    pub after: &'a [String],
}

impl Bar<'_> {
    /// How long it took; absent: it is not done.
    pub fn took(&self) -> Option<u64> {
        Some(self.done_ms?.saturating_sub(self.begun_ms))
    }
}

/// The whole boot.
#[derive(Debug, Clone, Serialize)]
pub struct Chart<'a> {
    /// The services that were started by it, in order of their beginnings.
    pub services: Vec<Bar<'a>>,
    /// Until the last of them was done; absent: one is not.
    pub took_ms: Option<u64>,
    /// The last one to be done, what it waited for last, and so on.
    pub chain: Vec<&'a str>,
}

/// What the status says of it. `None`: nothing was started by this supervisor.
pub fn chart(services: &[ServiceStatus]) -> Option<Chart<'_>> {
    let mut bars: Vec<Bar<'_>> = services.iter().filter_map(bar).collect();
    bars.sort_by_key(|bar| (bar.begun_ms, bar.up_ms, bar.name));
    let mut busy_until = bars.first()?.begun_ms;
    let part_of_boot = bars.iter().take_while(|bar| {
        let follows = bar.begun_ms <= busy_until.saturating_add(QUIET);
        // Of what is not done, nobody knows how long others wait for it.
        busy_until = busy_until.max(bar.done_ms.unwrap_or(u64::MAX));
        follows
    });
    let count = part_of_boot.count();
    bars.truncate(count);
    let all_done = bars.iter().all(|bar| bar.done_ms.is_some());
    let took_ms = bars.iter().filter_map(|bar| bar.done_ms).max().filter(|_| all_done);
    let chain = chain(&bars).iter().map(|bar| bar.name).collect();
    Some(Chart { services: bars, took_ms, chain })
}

fn bar(service: &ServiceStatus) -> Option<Bar<'_>> {
    let first = service.first_start?;
    let done_ms = first.ready_ms.or(first.up_ms.filter(|_| !service.awaits_ready));
    let (name, after) = (service.name.as_str(), service.starts_after.as_slice());
    Some(Bar { name, begun_ms: first.begun_ms, up_ms: first.up_ms, done_ms, after })
}

/// From the last to be done, back to the first: before each one stands what it waited for last.
fn chain<'b, 'a>(bars: &'b [Bar<'a>]) -> Vec<&'b Bar<'a>> {
    let mut chain: Vec<&Bar<'_>> = Vec::new();
    let mut next = bars.iter().max_by_key(|bar| bar.done_ms.unwrap_or(u64::MAX));
    while let Some(bar) = next {
        chain.push(bar);
        let before = bars.iter().filter(|other| bar.after.iter().any(|name| name == other.name));
        // Who was done later was not waited for; a circle ends here too.
        next = before
            .filter(|other| other.done_ms.is_some_and(|done| done <= bar.begun_ms))
            .filter(|other| !chain.iter().any(|seen| seen.name == other.name))
            .max_by_key(|other| other.done_ms);
    }
    chain
}

/// `82ms`, `1.203s`.
fn span(millis: u64) -> String {
    if millis < 1000 { format!("{millis}ms") } else { format!("{}.{:03}s", millis / 1000, millis % 1000) }
}

fn title(chart: &Chart<'_>) -> String {
    match (chart.took_ms, chart.services.len()) {
        (Some(took), 1) => format!("1 service was started in {}", span(took)),
        (Some(took), count) => format!("{count} services were started in {}", span(took)),
        (None, _) => "the boot is not over".to_owned(),
    }
}

/// In words: the whole, the chain, and each, the longest first.
pub fn text(chart: &Chart<'_>) -> String {
    let mut text = format!("{}\n", title(chart));
    let find = |name: &&str| chart.services.iter().find(|bar| bar.name == *name);
    let took =
        |bar: &Bar<'_>| bar.took().map_or_else(|| "not done".to_owned(), |took| format!("+{}", span(took)));
    let _ = writeln!(text, "\nthe last one, below it what it waited for:");
    let width = chart.chain.iter().enumerate().map(|(depth, name)| 2 * depth + name.chars().count()).max();
    let width = width.unwrap_or(0);
    for (depth, bar) in chart.chain.iter().filter_map(find).enumerate() {
        let name = format!("{:1$}{2}", "", 2 * depth, bar.name);
        let _ = writeln!(text, "  {name:<width$}  {:>9}  from {}", took(bar), span(bar.begun_ms));
    }
    let _ = writeln!(text, "\nall, the longest first:");
    let mut bars: Vec<&Bar<'_>> = chart.services.iter().collect();
    bars.sort_by_key(|bar| (std::cmp::Reverse(bar.took().unwrap_or(u64::MAX)), bar.name));
    for bar in bars {
        let _ = writeln!(text, "  {:>9}  {}", took(bar), bar.name);
    }
    text
}

/// Of the picture, in pixels.
const WIDTH: u64 = 1000;
const MARGIN: u64 = 20;
const ROW: u64 = 20;
const TOP: u64 = 60;
/// Right of a bar there is room for its name.
const NAMES: u64 = 260;

/// As `systemd-analyze plot` draws it: time from left to right, a bar for each service, what is on the chain darker.
pub fn svg(chart: &Chart<'_>) -> String {
    let known = chart.services.iter().map(|bar| bar.done_ms.or(bar.up_ms).unwrap_or(bar.begun_ms));
    let end = known.max().unwrap_or(0).max(1);
    let room = u128::from(WIDTH - NAMES - 2 * MARGIN);
    let x = |millis: u64| {
        let along = u128::from(millis.min(end)) * room / u128::from(end);
        MARGIN + u64::try_from(along).unwrap_or(0)
    };
    let rows = chart.services.len() as u64;
    let height = TOP + rows * ROW + MARGIN;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let _ = writeln!(text, "<text x=\"{MARGIN}\" y=\"20\" font-size=\"16\">{}</text>", title(chart));
    for tick in (0..=end).step_by(step(end)) {
        let (x, bottom) = (x(tick), height - MARGIN);
        let _ = writeln!(
            text,
            "<line x1=\"{x}\" y1=\"45\" x2=\"{x}\" y2=\"{bottom}\" stroke=\"#ddd\"/>\
             <text x=\"{x}\" y=\"40\" fill=\"#666\">{}</text>",
            span(tick)
        );
    }
    for (row, bar) in (0..).zip(&chart.services) {
        let on_chain = chart.chain.contains(&bar.name);
        let (starting, readying) = if on_chain { ("#c0392b", "#e6a79f") } else { ("#2c7fb8", "#a6cbe3") };
        let y = TOP + row * ROW;
        let up = bar.up_ms.or(bar.done_ms).unwrap_or(end);
        let done = bar.done_ms.unwrap_or(end).max(up);
        let mut part = |from: u64, to: u64, color: &str| {
            let (from, to) = (x(from), x(to));
            let width = to.saturating_sub(from).max(1);
            let _ = writeln!(
                text,
                "<rect x=\"{from}\" y=\"{y}\" width=\"{width}\" height=\"{}\" fill=\"{color}\"/>",
                ROW - 4
            );
        };
        part(bar.begun_ms, up, starting);
        if done > up {
            part(up, done, readying);
        }
        let took = bar.took().map_or_else(|| "not done".to_owned(), span);
        let _ = writeln!(
            text,
            "<text x=\"{}\" y=\"{}\">{} ({took})</text>",
            x(done) + 6,
            y + ROW - 8,
            escaped(bar.name)
        );
    }
    text.push_str("</svg>\n");
    text
}

/// Between two ticks, so that there are about ten: 1, 2 or 5 of a power of ten.
fn step(end: u64) -> usize {
    let least = (end / 10).max(1);
    let mut power = 1;
    loop {
        for step in [power, 2 * power, 5 * power] {
            if step >= least {
                return usize::try_from(step).unwrap_or(usize::MAX);
            }
        }
        power *= 10;
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::{FirstStart, samples};

    fn started(
        name: &str,
        begun_ms: u64,
        up_ms: u64,
        ready_ms: Option<u64>,
        after: &[&str],
    ) -> ServiceStatus {
        let mut service = samples::service(name);
        service.first_start = Some(FirstStart { begun_ms, up_ms: Some(up_ms), ready_ms });
        service.starts_after = after.iter().map(|name| (*name).to_owned()).collect();
        service
    }

    fn boot() -> Vec<ServiceStatus> {
        vec![
            started("web", 1083, 1085, Some(1203), &["migrate", "cache"]),
            started("migrate", 82, 84, Some(1083), &["redis"]),
            started("cache", 2, 4, None, &[]),
            started("redis", 2, 4, Some(80), &[]),
            started("by-hand", 60_000, 60_001, None, &["web"]),
            samples::down("spare"),
        ]
    }

    #[test]
    fn the_chain_is_what_the_last_one_waited_for_longest() {
        let services = boot();
        let chart = chart(&services).unwrap();
        assert_eq!(
            text(&chart),
            concat!(
                "4 services were started in 1.203s\n",
                "\n",
                "the last one, below it what it waited for:\n",
                "  web           +120ms  from 1.083s\n",
                "    migrate    +1.001s  from 82ms\n",
                "      redis      +78ms  from 2ms\n",
                "\n",
                "all, the longest first:\n",
                "    +1.001s  migrate\n",
                "     +120ms  web\n",
                "      +78ms  redis\n",
                "       +2ms  cache\n",
            )
        );
        assert!(super::chart(&[samples::down("spare")]).is_none());
        let one = &boot()[2..3];
        assert!(text(&super::chart(one).unwrap()).starts_with("1 service was started in 4ms\n"));
    }

    /// A supervisor of another version may say anything: the picture was drawn with sums that are too large for their numbers.
    #[test]
    fn times_beyond_all_measure_are_drawn_at_the_edge() {
        let services = [started("web", u64::MAX, u64::MAX, Some(0), &[]), started("db", 0, 7, None, &[])];
        for services in [&services[..], &services[..1]] {
            assert!(svg(&chart(services).unwrap()).ends_with("</svg>\n"));
        }
    }

    #[test]
    fn what_is_not_done_yet_is_the_last_of_a_boot_that_is_not_over() {
        let mut services = boot();
        services[0].awaits_ready = true;
        services[0].first_start = Some(FirstStart { begun_ms: 1083, up_ms: Some(1085), ready_ms: None });
        let chart = chart(&services).unwrap();
        assert_eq!(chart.took_ms, None);
        assert!(text(&chart).contains("  web         not done  from 1.083s\n"), "{}", text(&chart));
        assert!(svg(&chart).contains("the boot is not over"));
    }

    #[test]
    fn a_circle_of_services_has_an_end() {
        let services = [started("a", 0, 0, None, &["b"]), started("b", 0, 0, None, &["a"])];
        assert_eq!(chart(&services).unwrap().chain.len(), 2);
    }

    #[test]
    fn the_picture_has_a_bar_for_each_and_stays_in_its_frame() {
        let services = boot();
        let svg = svg(&chart(&services).unwrap());
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        for name in ["web (120ms)", "migrate (1.001s)", "redis (78ms)", "cache (2ms)", ">200ms<"] {
            assert!(svg.contains(name), "{name}: {svg}");
        }
        assert_eq!(svg.matches("fill=\"#c0392b\"").count(), 3, "what is on the chain");
        let places = svg.split("x=\"").skip(1).filter_map(|rest| rest.split('"').next()?.parse::<u64>().ok());
        assert!(places.into_iter().all(|x| x <= WIDTH - NAMES), "{svg}");
        assert_eq!([1, 9, 10, 99, 1203, 60_000].map(step), [1, 1, 1, 10, 200, 10_000]);
        assert_eq!(escaped("<&>"), "&lt;&amp;&gt;");
    }
}
