//! Every system call fails once. `tests/run faults` runs it for as long as it is told to, the host tier a sample of it.
//!
//! For each story and rung the supervisor's calls are recorded. Then the story is told again and again, each time with one of
//! these calls answering one of the errors that it can give. Each time the supervisor has to go on, every caller has to be
//! told the truth, no service may be stuck, nothing may survive the shutdown, and what went wrong has to be said.
//!
//! `--budget 20m`: for so long. `--sample N --seed S`: N of all. `--story NAME`, `--rung NAME`: only those. `--jobs N`.
//! `--replay 'STORY RUNG ERROR N THREAD CALL OBJECT'`: one run, and what the supervisor said. `--sites`: the calls only.

// The host tier's; this program needs only a part.
#[allow(dead_code, unused_imports)]
#[path = "../host/harness/mod.rs"]
mod harness;

#[path = "../lib/asking.rs"]
mod asking;

#[path = "../lib/traced.rs"]
mod traced;

mod calls;
mod found;
mod judge;
mod options;
mod stage;
mod stories;
mod table;
mod tracer;

use harness::Rung;
use judge::{Effect, Run, run};
use options::Options;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use stories::{STORIES, Story};
use table::Table;
use tracer::{Fault, Site};

const RUNGS: [Rung; 2] = [Rung::Cgroup, Rung::Keeper];

/// A run that can be made.
#[derive(Clone)]
struct Point {
    story: &'static Story,
    rung: Rung,
    fault: Fault,
}

impl Point {
    /// As `--replay` takes it.
    fn line(&self) -> String {
        let Fault { site: Site { thread, call, object }, nth, errno } = &self.fault;
        format!(
            "{} {} {} {nth} {thread} {call} {object}",
            self.story.name,
            self.rung.name(),
            calls::name(*errno)
        )
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.splitn(7, ' ');
        let story = stories::by_name(words.next()?)?;
        let rung = words.next()?;
        let rung = RUNGS.into_iter().find(|known| known.name() == rung)?;
        let errno = calls::by_name(words.next()?)?;
        let nth = words.next()?.parse().ok()?;
        let thread = words.next()?.to_owned();
        let call = calls::named(words.next()?)?.name;
        let object = words.next().unwrap_or_default().to_owned();
        Some(Self { story, rung, fault: Fault { site: Site { thread, call, object }, nth, errno } })
    }

    /// Where it comes in the order of a campaign: the first call at every place before the second at any.
    fn rank(&self, seed: u64) -> (u32, u64) {
        let mut hasher = DefaultHasher::new();
        (seed, self.line()).hash(&mut hasher);
        (self.fault.nth, hasher.finish())
    }
}

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(wrong) => {
            say(&wrong);
            return ExitCode::from(2);
        }
    };
    if let Some(line) = &options.replay {
        return replay(line);
    }
    // Each failure is told with the run that it belongs to.
    std::panic::set_hook(Box::new(|_| ()));
    let table = Mutex::new(Table::default());
    let points = record_all(&options, &table);
    if !options.sites {
        again(&options, &table);
        campaign(&options, points, &table);
    }
    let table = table.into_inner().expect("the table");
    say(&table.to_string());
    if table.failed() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The calls of every story, and with them all the runs that can be made, in the order in which they are.
fn record_all(options: &Options, table: &Mutex<Table>) -> Vec<Point> {
    let stories = STORIES.iter().filter(|story| options.has_story(story.name));
    let all: Vec<_> = stories
        .flat_map(|story| RUNGS.map(|rung| (story, rung)))
        .filter(|(_, rung)| options.has_rung(rung.name()))
        .collect();
    let points = Mutex::new(Vec::new());
    share_out(options.jobs, &all, |(story, rung)| {
        let sites = record(story, *rung, table);
        let mut points = points.lock().expect("the points");
        for (site, count) in sites {
            if options.sites {
                say(&format!("{} {} {count} × {site}", story.name, rung.name()));
            }
            for errno in calls::errors(site.call, &site.object) {
                points.extend((1..=count).map(|nth| Point {
                    story,
                    rung: *rung,
                    fault: Fault { site: site.clone(), nth, errno },
                }));
            }
        }
        true
    });
    let mut points = points.into_inner().expect("the points");
    points.sort_by_cached_key(|point| point.rank(options.seed));
    table.lock().expect("the table").possible = points.len();
    points
}

/// Does `work` with each of `all` on so many threads, until one of them says that it is enough.
fn share_out<T: Sync>(jobs: usize, all: &[T], work: impl Fn(&T) -> bool + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| while all.get(next.fetch_add(1, Ordering::Relaxed)).is_some_and(&work) {});
        }
    });
}

/// Twice, for what differs between two runs is no place to find again.
fn record(story: &'static Story, rung: Rung, table: &Mutex<Table>) -> BTreeMap<Site, u32> {
    let [first, second] = [(); 2].map(|()| {
        let run = run(story, rung, None);
        let unheard = run.seen.unheard.iter().map(|number| format!("call {number} is in no table"));
        let wrong = run.wrong.iter().cloned().chain(unheard).collect();
        table.lock().expect("the table").baseline(story.name, rung.name(), wrong, &run.log);
        run.seen.sites
    });
    let common = |(site, count): (Site, u32)| Some((site.clone(), count.min(*second.get(&site)?)));
    first.into_iter().filter_map(common).collect()
}

/// What was found once is looked for each time.
fn again(options: &Options, table: &Mutex<Table>) {
    let points: Vec<_> =
        found::FOUND.iter().map(|line| Point::parse(line).expect("a line of --replay")).collect();
    share_out(options.jobs, &points, |point| {
        if options.has_story(point.story.name) && options.has_rung(point.rung.name()) {
            try_one(point, table);
        }
        true
    });
}

fn try_one(point: &Point, table: &Mutex<Table>) {
    let run = run(point.story, point.rung, Some(&point.fault));
    if let Some(text) = table.lock().expect("the table").add(point, &run) {
        say(&text);
    }
}

fn campaign(options: &Options, points: Vec<Point>, table: &Mutex<Table>) {
    let begun = Instant::now();
    let points = &points[options.skip.min(points.len())..];
    let points = &points[..options.sample.unwrap_or(points.len()).min(points.len())];
    share_out(options.jobs, points, |point| {
        if options.budget.is_some_and(|budget| begun.elapsed() >= budget) {
            return false;
        }
        try_one(point, table);
        true
    });
}

fn replay(line: &str) -> ExitCode {
    let Some(point) = Point::parse(line) else {
        say(&format!("no such run: {line}"));
        return ExitCode::from(2);
    };
    let Run { effect, wrong, log, took, .. } = run(point.story, point.rung, Some(&point.fault));
    say(&format!("{log}\n{effect:?} in {} ms", took.as_millis()));
    wrong.iter().for_each(|line| say(&format!("wrong: {line}")));
    if wrong.is_empty() && effect != Effect::Missed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[allow(clippy::disallowed_macros, reason = "this program is for people")]
fn say(text: &str) {
    println!("{text}");
}
