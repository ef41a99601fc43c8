//! One run from its beginning to its verdict.

use super::asking::Told;
use super::calls;
use super::harness::{End, Rung};
use super::stage::Stage;
use super::stories::{Story, world_of};
use super::tracer::{Fault, Seen};
use rustix::io::Errno;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// What the fault did to those who look at the supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// The call was not made this time.
    Missed,
    /// Nothing that anybody could see.
    None,
    /// All was done, and a line says what went wrong.
    Degraded,
    /// Something was refused, with the reason.
    Refused,
}

pub struct Run {
    pub effect: Effect,
    pub seen: Seen,
    /// Nothing in it: the run is as it should be.
    pub wrong: Vec<String>,
    /// What the supervisor said.
    pub log: String,
    pub took: Duration,
}

pub fn run(story: &Story, rung: Rung, fault: Option<&Fault>) -> Run {
    let began = Instant::now();
    let mut stage = Stage::new(world_of(story, rung));
    let (mut effect, mut log) = (Effect::None, String::new());
    let judged = catch_unwind(AssertUnwindSafe(|| {
        (story.before)(&mut stage);
        (story.watched)(&mut stage, fault.cloned());
        stage.disarm();
        effect = judge(&mut stage, fault);
    }));
    if let Err(panic) = judged {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        stage.wrong(format!("the story came to no end: {}", text.unwrap_or_default()));
    }
    log.push_str(&stage.log());
    let (world, seen, mut wrong) = stage.tear_down();
    drop(world);
    if fault.is_some() && !seen.struck {
        effect = Effect::Missed;
    }
    wrong.extend(seen.trouble.iter().map(|trouble| format!("the tracer: {trouble}")));
    Run { effect, seen, wrong, log, took: began.elapsed() }
}

fn judge(stage: &mut Stage, fault: Option<&Fault>) -> Effect {
    let mut refused = stage.said.iter().any(|said| said.told != Told::Done);
    for said in stage.said.clone() {
        // The one that was to answer did not come up, and says why; the one after it knows of no caller.
        let is_named = fault.is_some_and(|fault| said.verb == "upgrade" && names(&stage.log(), fault.errno));
        if let Told::Lost(why) = &said.told
            && !fault.is_some_and(cuts_connections)
            && !is_named
        {
            stage.wrong(format!("{} {} was not answered: {why}", said.verb, said.service));
        }
    }
    if !stage.over {
        stage.await_image();
        if !stage.runs() {
            refused = true;
            if stage.ended != Some(End::Code(1)) {
                stage.wrong(format!("the supervisor has ended: {:?}", stage.ended));
            }
            // Whatever it was, it is over, and the next one must do.
            stage.boot();
        }
        // A definition that may not be read is refused until somebody has put that right.
        if fault.is_some_and(|fault| is_of_definitions(fault) && names(&stage.log(), fault.errno)) {
            stage.reload();
            stage.said.pop();
        }
        stage.settle();
        stage.check_status();
        if !stage.restart("two") {
            let said = stage.said.last().map(|said| format!("{:?}", said.told));
            stage.wrong(format!("stuck: two cannot be restarted afterwards: {}", said.unwrap_or_default()));
        }
        stage.terminate();
    }
    if stage.ended != Some(End::Code(0)) {
        stage.wrong(format!("a shutdown ends with {:?}", stage.ended));
    }
    let leaves_cgroups = fault.is_some_and(|fault| {
        fault.site.call == "unlinkat" && fault.site.object.starts_with("/sys/fs/cgroup")
    });
    stage.check_nothing_left(leaves_cgroups);
    stage.check_database();
    let log = stage.world.stderr();
    if let Some(line) = log.lines().find(|line| line.contains("bug:") || line.contains("panicked")) {
        stage.wrong(format!("it has panicked: {line}"));
    }
    let Some(fault) = fault else {
        if refused {
            stage.wrong(format!("without a fault something is refused: {:?}", stage.said));
        }
        return Effect::None;
    };
    let mut text = stage.log();
    // It may have learned nothing, and not be able to say so to anybody.
    if cuts_connections(fault)
        && stage.said.iter().all(|said| matches!(said.told, Told::Done | Told::Lost(_)))
    {
        return if refused { Effect::Refused } else { Effect::None };
    }
    for said in &stage.said {
        if let Told::Failed(why) = &said.told {
            text.push_str(why);
        }
    }
    // What it found on a second attempt was the disk that is full, and it was that.
    let is_full =
        stage.world.setup.world.iter().any(|word| word == "--tmpfs") && text.contains("no space for");
    // A keeper that has not come up cannot say why.
    let is_of_keeper = fault.site.thread == "child" && text.contains("cannot start its keeper");
    let named = names(&text, fault.errno) || is_full || is_of_keeper;
    match (refused, named) {
        (true, true) => Effect::Refused,
        (true, false) => {
            let told: Vec<_> = stage.said.iter().filter(|said| said.told != Told::Done).collect();
            let told = format!("{told:?}");
            stage.wrong(format!("refused, and {} is named nowhere: {told}", calls::name(fault.errno)));
            Effect::Refused
        }
        (false, true) => Effect::Degraded,
        (false, false) => Effect::None,
    }
}

fn is_of_definitions(fault: &Fault) -> bool {
    fault.site.thread.starts_with("definition") && matches!(fault.errno, Errno::ACCESS)
}

/// A caller's own connection is what fails: it may learn nothing more.
fn cuts_connections(fault: &Fault) -> bool {
    let of_a_caller = fault.site.call == "epoll_ctl" || fault.site.object.starts_with("socket:");
    fault.site.thread == "main" && of_a_caller && fault.site.call != "accept4"
}

/// In the words of one of the C libraries, or in those that we have for it.
fn names(text: &str, errno: Errno) -> bool {
    let system = std::io::Error::from(errno).to_string();
    let system = system.split(" (os error").next().unwrap_or_default().to_lowercase();
    let others: &[&str] = match errno {
        Errno::NOSPC | Errno::DQUOT => &["no space for", "no space or", "quota exceeded"],
        Errno::ROFS => &["read-only volume"],
        Errno::IO => &["reports an error", "i/o error"],
        Errno::ACCESS | Errno::PERM => &["no permission for"],
        Errno::MFILE => &["no file descriptors available"],
        // A thread that cannot be had is EAGAIN, whatever clone(2) says (pthread_create(3)).
        Errno::NOMEM => &["out of memory", "failed to start its threads", "no thread"],
        Errno::NOENT => &["does not exist"],
        Errno::BUSY => &["resource busy"],
        Errno::AGAIN => &[
            "resource temporarily unavailable",
            "limit on cgroups",
            "no more processes or threads",
            "its limit nproc allows",
        ],
        Errno::ADDRINUSE => &["address in use"],
        Errno::NOTTY => &["not a tty"],
        Errno::OPNOTSUPP => &["not supported"],
        _ => &[],
    };
    let text = text.to_lowercase();
    // getgrouplist(3) of musl does not tell which.
    if text.contains("the group database gave no usable list") {
        return true;
    }
    text.contains(&system) || others.iter().any(|words| text.contains(words))
}
