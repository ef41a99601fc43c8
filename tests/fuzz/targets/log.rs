//! Log directories: all lines, the last ones, those of a time, and of one stream.

use super::files::Place;
use hermes_sup::core::words::Stream;
use hermes_sup::log::{Query, Reader, open_newest};
use hermes_sup::sys::localtime::Zone;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

/// So many last lines are asked for.
const MOST_LAST: usize = 12;

/// A line as it was read: time, stream, text.
type Read = (String, Stream, Vec<u8>);

pub fn run(document: &[u8]) {
    let place = Place::new();
    place.lay("logs/gateways/web", document, "current");
    let home = place.path();
    let Ok(all) = lines(home, Query::default()) else { return };
    for last in (0..=all.len().min(MOST_LAST)).chain([usize::MAX]) {
        let tail = lines(home, Query { last: Some(last), ..Query::default() }).expect("what was read before");
        let from = all.len().saturating_sub(last);
        // A line without a time has that of the one before it, which may not be among the last.
        let plain = |lines: &[Read]| {
            lines.iter().map(|(_, stream, text)| (*stream, text.clone())).collect::<Vec<_>>()
        };
        assert_eq!(plain(&tail), plain(&all[from..]), "the last {last} of {}", all.len());
    }
    for stream in [Stream::Out, Stream::Err] {
        let of_it =
            lines(home, Query { stream: Some(stream), ..Query::default() }).expect("what was read before");
        assert!(of_it.iter().all(|(_, found, _)| *found == stream));
        assert_eq!(of_it.len(), all.iter().filter(|(_, found, _)| *found == stream).count());
    }
    let moment = UNIX_EPOCH + Duration::from_secs(1_767_225_600);
    let _ = lines(home, Query { since: Some(moment), within: Some(10), last: Some(5), ..Query::default() });
    let _ = lines(home, Query { until: Some(moment), ..Query::default() });
    handed_over(home);
}

fn dir() -> PathBuf {
    PathBuf::from("logs/gateways/web")
}

fn lines(home: &Path, query: Query) -> std::io::Result<Vec<Read>> {
    let mut reader = Reader::open(home, &[dir()], query, &Zone::utc(), &mut |_, _| {})?;
    read(&mut reader)
}

fn read(reader: &mut Reader) -> std::io::Result<Vec<Read>> {
    let mut all: Vec<Read> = Vec::new();
    let mut under_way = false;
    reader.read(false, &mut |line| {
        assert_eq!(line.begins, !under_way, "a line begins where the one before it has ended");
        under_way = !line.ends;
        match all.last_mut().filter(|_| !line.begins) {
            Some((_, _, text)) => text.extend_from_slice(line.text),
            None => all.push((line.time.to_owned(), line.stream, line.text.to_owned())),
        }
        Ok(())
    })?;
    Ok(all)
}

/// The files as somebody is handed them who may not go to them.
fn handed_over(home: &Path) {
    let Ok(files) = open_newest(home, &dir(), 3) else { return };
    let away = [PathBuf::from("logs/gateways/other")];
    let mut reader = Reader::open(home, &away, Query::default(), &Zone::utc(), &mut |_, _| {}).expect("home");
    if reader.hand(0, files).expect("open files") {
        let _ = read(&mut reader);
    }
}
