//! The whole room, with real FIFOs, threads, pipes and directories.

mod disk;
mod reading;
mod room;

use super::*;
use std::io::PipeReader;
use std::sync::mpsc::Receiver;

const SECONDS: Duration = Duration::from_secs(20);
const A: SourceId = SourceId(1);
const B: SourceId = SourceId(2);

struct Room {
    runtime: tempfile::TempDir,
    home: tempfile::TempDir,
    logs: Logs,
    container: Container,
    events: Receiver<LogEvent>,
    out: Option<PipeReader>,
    err: Option<PipeReader>,
}

impl Room {
    fn new() -> Self {
        let (runtime, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        // Where a supervisor's is, only it can enter.
        std::fs::set_permissions(runtime.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700))
            .unwrap();
        let (out, out_end) = std::io::pipe().unwrap();
        let (err, err_end) = std::io::pipe().unwrap();
        let container = Container::on([Some(out_end.into()), Some(err_end.into())]).unwrap();
        let (notify, events) = channel();
        let notify = move |event| notify.send(event).unwrap();
        let logs = Logs::start(runtime.path(), container.clone(), notify).unwrap();
        Self { runtime, home, logs, container, events, out: Some(out), err: Some(err) }
    }

    fn spec(&self, name: &str) -> LogSpec {
        LogSpec {
            name: ServiceName::new(name).unwrap(),
            home: self.home.path().to_owned(),
            dir: Path::new("logs/gateways").join(name),
            max_size: 1_000_000,
            keep: 10,
            to_container: true,
            dress: Dress::Plain,
            overflow: Overflow::Block,
            owner: Credentials::own(),
            readers: None,
            writer: Credentials::own(),
        }
    }

    fn open(&self, id: SourceId, spec: LogSpec) {
        self.logs.open(id, spec).unwrap();
        self.logs.announce(false);
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.home.path().join("logs/gateways").join(name)
    }

    fn event(&self) -> LogEvent {
        self.events.recv_timeout(SECONDS).unwrap()
    }

    fn drained(&self, id: SourceId) {
        if !self.logs.drain(id) {
            assert_eq!(self.event(), LogEvent::Drained(id));
        }
    }

    /// All lines of the service, in order, without their heads: archives, then `current`.
    fn lines(&self, name: &str) -> Vec<String> {
        texts(&self.dir(name))
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    // '@' sorts before 'c'.
    files.sort();
    files
}

fn texts(dir: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for file in files(dir) {
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'), "{} ends within a line", file.display());
        lines.extend(text.lines().map(|line| line[stamp::TIME_LEN..].to_owned()));
    }
    lines
}

fn write_all(fd: &OwnedFd, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let count = rustix::io::write(fd, bytes).unwrap();
        bytes = &bytes[count..];
    }
}

/// Keeps the files thread in a piece of work, as a disk that hangs does, until the sender is dropped.
fn hang(logs: &Logs) -> std::sync::mpsc::Sender<()> {
    let (release, released) = channel::<()>();
    let (begun, begins) = channel();
    let work = move || {
        begun.send(()).unwrap();
        let _ = released.recv();
    };
    logs.files().run(Credentials::own(), work, |_| {}).unwrap();
    begins.recv_timeout(SECONDS).unwrap();
    release
}
