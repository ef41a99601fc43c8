//! Disks that fail, hang and lose power on command.

use super::super::disk::{DiskFile, Wrap};
use redb::StorageBackend;
use std::io;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

pub(super) fn plain() -> Wrap {
    super::super::disk::plain()
}

/// A real file behind a switchboard.
#[derive(Debug, Default)]
pub(super) struct TestDisk {
    switches: Mutex<Switches>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Switches {
    syncs: usize,
    /// Errors (errno) that the calls give: how many times still.
    open: (i32, usize),
    write: (i32, usize),
    sync: (i32, usize),
    /// Of each write so many bytes arrive; then there is no space.
    short: Option<usize>,
    /// So many times still a bug is met where the database is opened.
    bugs: usize,
    held: bool,
    waiting: bool,
}

impl TestDisk {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    pub(super) fn wrap(self: &Arc<Self>) -> Wrap {
        let disk = Arc::clone(self);
        Arc::new(move |file| {
            disk.pass(|switches| &mut switches.open)?;
            disk.meet_a_bug();
            Ok(Box::new(TestFile { file, disk: Arc::clone(&disk) }))
        })
    }

    pub(super) fn syncs(&self) -> usize {
        self.switches.lock().unwrap().syncs
    }

    pub(super) fn fail_open(&self, errno: i32, times: usize) {
        self.switches.lock().unwrap().open = (errno, times);
    }

    /// Not in the engine, whose panics are taken for damage.
    pub(super) fn panic_at_open(&self, times: usize) {
        self.switches.lock().unwrap().bugs = times;
    }

    fn meet_a_bug(&self) {
        let met = {
            let bugs = &mut self.switches.lock().unwrap().bugs;
            bugs.checked_sub(1).map(|left| *bugs = left).is_some()
        };
        assert!(!met, "met at the opening");
    }

    pub(super) fn fail_write(&self, errno: i32, times: usize) {
        self.switches.lock().unwrap().write = (errno, times);
    }

    pub(super) fn fail_sync(&self, errno: i32, times: usize) {
        self.switches.lock().unwrap().sync = (errno, times);
    }

    pub(super) fn cut_writes_short(&self, written: usize) {
        self.switches.lock().unwrap().short = Some(written);
    }

    pub(super) fn heal(&self) {
        let mut switches = self.switches.lock().unwrap();
        (switches.open, switches.write, switches.sync) = ((0, 0), (0, 0), (0, 0));
        switches.short = None;
    }

    /// From now on calls that open, write or sync wait.
    pub(super) fn hold(&self) {
        self.switches.lock().unwrap().held = true;
    }

    pub(super) fn release(&self) {
        self.switches.lock().unwrap().held = false;
        self.changed.notify_all();
    }

    pub(super) fn wait_until_held(&self) {
        self.wait_for(|switches| switches.waiting);
    }

    pub(super) fn wait_for_syncs(&self, count: usize) {
        self.wait_for(|switches| switches.syncs >= count);
    }

    fn wait_for(&self, condition: impl Fn(&Switches) -> bool) {
        let switches = self.switches.lock().unwrap();
        let waited = self
            .changed
            .wait_timeout_while(switches, Duration::from_secs(60), |switches| !condition(switches))
            .unwrap();
        assert!(!waited.1.timed_out());
    }

    fn pass(&self, which: impl Fn(&mut Switches) -> &mut (i32, usize)) -> io::Result<()> {
        let mut switches = self.switches.lock().unwrap();
        while switches.held {
            switches.waiting = true;
            self.changed.notify_all();
            switches = self.changed.wait(switches).unwrap();
        }
        switches.waiting = false;
        let (errno, times) = which(&mut switches);
        if *times == 0 {
            return Ok(());
        }
        *times -= 1;
        Err(io::Error::from_raw_os_error(*errno))
    }
}

#[derive(Debug)]
struct TestFile {
    file: DiskFile,
    disk: Arc<TestDisk>,
}

impl StorageBackend for TestFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.pass(|switches| &mut switches.write)?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.pass(|switches| &mut switches.sync)?;
        self.file.sync_data()?;
        self.disk.switches.lock().unwrap().syncs += 1;
        self.disk.changed.notify_all();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.disk.pass(|switches| &mut switches.write)?;
        let Some(written) = self.disk.switches.lock().unwrap().short else {
            return self.file.write(offset, data);
        };
        self.file.write(offset, &data[..written.min(data.len())])?;
        Err(rustix::io::Errno::NOSPC.into())
    }
}

/// A small generator with a seed, so that a failure can be repeated.
#[derive(Debug)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, limit: usize) -> usize {
        // xorshift64* (Vigna 2016).
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let value = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        usize::try_from(value).unwrap() % limit
    }
}

/// A disk in memory with a volatile cache: what is not synced may be lost in any part when the power goes.
#[derive(Debug, Clone, Default)]
pub(super) struct PowerDisk(Arc<Mutex<Power>>);

#[derive(Debug, Default)]
struct Power {
    live: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Step>,
    /// What the disk could look like after a crash at each step, with the number acknowledged by then.
    images: Vec<(Vec<u8>, u64)>,
    acknowledged: Option<u64>,
    dice: Option<Dice>,
}

#[derive(Debug, Clone)]
enum Step {
    Length(usize),
    Write(usize, Vec<u8>),
}

impl PowerDisk {
    /// From now on crash images are taken at each step.
    pub(super) fn acknowledged(&self, number: u64) {
        let mut power = self.0.lock().unwrap();
        power.acknowledged = Some(number);
        power.dice.get_or_insert(Dice(0x9e37_79b9_7f4a_7c15));
    }

    pub(super) fn images(&self) -> Vec<(Vec<u8>, u64)> {
        std::mem::take(&mut self.0.lock().unwrap().images)
    }

    /// A disk that holds such an image.
    pub(super) fn from_image(image: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(Power { live: image.clone(), durable: image, ..Power::default() })))
    }
}

impl Step {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Length(length) => bytes.resize(*length, 0),
            Self::Write(offset, data) => {
                let end = offset + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*offset..end].copy_from_slice(data);
            }
        }
    }
}

impl Power {
    fn step(&mut self, step: Step) {
        step.apply(&mut self.live);
        self.unsynced.push(step);
        self.take_images();
    }

    /// One image for a killed process (the kernel keeps all that was written) and two for a power cut: any part of
    /// what was not synced is there, writes cut at any sector.
    fn take_images(&mut self) {
        let (Some(acknowledged), Some(mut dice)) = (self.acknowledged, self.dice.take()) else { return };
        self.images.push((self.live.clone(), acknowledged));
        for _ in 0..2 {
            let mut image = self.durable.clone();
            for step in &self.unsynced {
                match (dice.below(3), step) {
                    (0, _) => {}
                    (1, Step::Write(offset, data)) => {
                        let sectors = dice.below(data.len() / 512 + 1);
                        Step::Write(*offset, data[..sectors * 512].to_vec()).apply(&mut image);
                    }
                    (_, step) => step.apply(&mut image),
                }
            }
            self.images.push((image, acknowledged));
        }
        self.dice = Some(dice);
    }
}

impl StorageBackend for PowerDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().live.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let power = self.0.lock().unwrap();
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let bytes = power.live.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let length = usize::try_from(len).map_err(io::Error::other)?;
        self.0.lock().unwrap().step(Step::Length(length));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut power = self.0.lock().unwrap();
        power.durable = power.live.clone();
        power.unsynced.clear();
        power.take_images();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        self.0.lock().unwrap().step(Step::Write(offset, data.to_vec()));
        Ok(())
    }
}
