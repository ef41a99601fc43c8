//! `bench-count PATH TIMES`: one hot path so many times and nothing else, for callgrind. `bench/instructions` runs it
//! with two different TIMES and takes the difference, so that start and end of the program do not count.

mod hot;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let times = args.get(1).and_then(|times| times.parse().ok()).unwrap_or(0);
    match args.first().map_or("", String::as_str) {
        "core-crash" => {
            let mut core = hot::Core::new(1000);
            (0..times).for_each(|_| core.crash());
        }
        "core-stop-start" => {
            let mut core = hot::Core::new(1000);
            (0..times).for_each(|_| core.stop_and_start());
        }
        "start-plan" => {
            let start = hot::Start::new();
            (0..times).for_each(|_| start.plan());
        }
        "store-commit" => {
            let mut database = hot::Database::new();
            (0..times).for_each(|_| database.commit(1));
        }
        // A megabyte each, so that the files are rotated, too.
        "log-megabyte" => {
            let mut room = hot::Room::new();
            (0..times).for_each(|_| room.flood(1_000_000));
        }
        _ => return ExitCode::from(2),
    }
    ExitCode::SUCCESS
}
