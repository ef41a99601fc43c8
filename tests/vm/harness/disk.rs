//! The disk of a machine: in memory, with a cache that a power cut loses, served to qemu as a network block device (the NBD
//! protocol, github.com/NetworkBlockDevice/nbd, doc/proto.md: fixed newstyle handshake, simple replies).
//!
//! What the guest wrote since its last flush is lost at a [`Disk::cut`], in any part: of each write the disk keeps all,
//! nothing, or any of its sectors. So a later write may be there without an earlier one. What was flushed, or
//! written with FUA, is there. A sector is never torn, and never holds anything but one of its own contents.

use super::fsck::{self, SUPERBLOCK, SUPERBLOCK_LENGTH};
use super::patience::Patience;
use super::{Dice, split};
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};

/// The most that a drive promises to write whole.
const SECTOR: usize = 512;

// The protocol's numbers.
const MAGIC: &[u8; 16] = b"NBDMAGICIHAVEOPT";
const OPTION: &[u8; 8] = b"IHAVEOPT";
const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
const REQUEST: u32 = 0x2560_9513;
const REPLY: u32 = 0x6744_6698;
const FIXED_NEWSTYLE: u16 = 1;
const OPT_ABORT: u32 = 2;
const OPT_GO: u32 = 7;
const REP_ACK: u32 = 1;
const REP_INFO: u32 = 3;
const REP_UNSUPPORTED: u32 = 1 << 31 | 1;
const INFO_EXPORT: u16 = 0;
/// It has flags, flushes, and writes through where it is asked to (FUA).
const EXPORT_FLAGS: u16 = 1 | 4 | 8;
const FUA: u16 = 1;
const READ: u16 = 0;
const WRITE: u16 = 1;
const DISCONNECT: u16 = 2;
const FLUSH: u16 = 3;
const EINVAL: u32 = 22;

/// What a cut does to writes that were not flushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Lost,
    Kept,
    /// Those up to some moment.
    InOrder,
    Torn,
}

struct Platter {
    /// As the guest reads it, and as a cut leaves it for sure.
    live: Vec<u8>,
    durable: Vec<u8>,
    unflushed: Vec<(usize, Vec<u8>)>,
    off: bool,
    /// Writes and flushes that are still answered before the power fails.
    left: Option<u64>,
    /// The power fails at a write of the superblock, of which this sector alone arrives.
    tear: Option<usize>,
    /// Nobody will use it any more.
    over: bool,
    /// Each write and flush is refused with this errno; 0: none is.
    errno: u32,
    counts: Counts,
    dice: Dice,
}

/// What a disk has done.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counts {
    /// Writes that were not flushed when the power was cut, and of these such that did not arrive whole.
    pub in_cache: usize,
    pub lost: usize,
}

#[derive(Clone)]
pub struct Disk(Arc<(Mutex<Platter>, Condvar)>);

impl Disk {
    /// A disk with this content, which is served at `socket` to one machine after the other. What a cut does is up to `dice`.
    pub fn served(content: Vec<u8>, socket: &Path, dice: Dice) -> Self {
        let platter = Platter {
            durable: content.clone(),
            live: content,
            unflushed: Vec::new(),
            off: false,
            left: None,
            tear: None,
            over: false,
            errno: 0,
            counts: Counts::default(),
            dice,
        };
        let disk = Self(Arc::new((Mutex::new(platter), Condvar::new())));
        let listener = UnixListener::bind(socket).expect("a socket");
        let served = disk.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if served.platter(|platter| platter.over) {
                    return;
                }
                // Whatever ends it: to the machine its disk is gone.
                let _ = served.serve(stream);
            }
        });
        disk
    }

    fn platter<T>(&self, act: impl FnOnce(&mut Platter) -> T) -> T {
        act(&mut self.0.0.lock().expect("a lock"))
    }

    /// Ends what serves it at `socket`; no machine may use it.
    pub fn close(&self, socket: &Path) {
        self.platter(|platter| platter.over = true);
        // It looks when somebody comes.
        let _ = UnixStream::connect(socket);
    }

    pub fn counts(&self) -> Counts {
        self.platter(|platter| platter.counts)
    }

    /// From now on writes and flushes are refused with this errno; 0: no longer.
    pub fn refuse(&self, errno: u32) {
        self.platter(|platter| platter.errno = errno);
    }

    /// The power fails: nothing is answered any more, and the cache is lost.
    pub fn cut(&self) {
        self.platter(Platter::cut);
        self.0.1.notify_all();
    }

    /// What a cut at this moment would leave; the machine goes on.
    pub fn would_be_left(&self, dice: &mut Dice) -> Vec<u8> {
        self.platter(|platter| platter.remains(dice))
    }

    /// The power fails by itself after so many more writes and flushes.
    pub fn cut_in(&self, steps: u64) {
        self.platter(|platter| platter.left = Some(steps));
    }

    /// Takes that back.
    pub fn stay_on(&self) {
        self.platter(|platter| platter.left = None);
    }

    /// The power fails by itself in the midst of the next write that changes both sectors of ext4's superblock. Of that write this
    /// sector (0 or 1) alone arrives, of those before it everything.
    pub fn tear_superblock(&self, arrives: usize) {
        self.platter(|platter| platter.tear = Some(arrives));
    }

    pub fn has_torn_superblock(&self) -> bool {
        self.platter(|platter| fsck::is_torn(&platter.live))
    }

    /// After a cut the disk is checked first, as by a host.
    pub fn switch_on(&self) {
        self.platter(|platter| {
            if std::mem::replace(&mut platter.off, false) {
                fsck::before_mount(&mut platter.durable);
                platter.live.clone_from(&platter.durable);
            }
        });
    }

    pub fn is_off(&self) -> bool {
        self.platter(|platter| platter.off)
    }

    /// Waits until the power has failed, as long as the patience with its machine lasts.
    pub fn wait_for_cut(&self, patience: Patience) {
        let (platter, changed) = &*self.0;
        let on = |platter: &mut Platter| !platter.off;
        patience.until(|slice| {
            let platter = platter.lock().expect("a lock");
            let (platter, _) = changed.wait_timeout_while(platter, slice, on).expect("a lock");
            platter.off.then_some(())
        });
    }

    fn serve(&self, mut stream: UnixStream) -> io::Result<()> {
        if !handshake(&mut stream, self.platter(|platter| platter.live.len()))? {
            return Ok(());
        }
        loop {
            let magic = u32::from_be_bytes(take(&mut stream)?);
            let flags = u16::from_be_bytes(take(&mut stream)?);
            let kind = u16::from_be_bytes(take(&mut stream)?);
            let handle: [u8; 8] = take(&mut stream)?;
            let offset = usize::try_from(u64::from_be_bytes(take(&mut stream)?)).map_err(io::Error::other)?;
            let length = u32::from_be_bytes(take(&mut stream)?) as usize;
            if magic != REQUEST || kind == DISCONNECT {
                return Ok(());
            }
            let mut data = vec![0; if kind == WRITE { length } else { 0 }];
            stream.read_exact(&mut data)?;
            let answer = self.platter(|platter| platter.answer((flags, kind), offset, length, data));
            if answer.is_none() {
                self.0.1.notify_all();
            }
            // Where the power is off nobody hears more, and nobody hears that either.
            let Some((error, out)) = answer else { continue };
            let reply = [&REPLY.to_be_bytes()[..], &error.to_be_bytes()[..], &handle[..], &out[..]].concat();
            stream.write_all(&reply)?;
        }
    }
}

impl Platter {
    /// Error and data; `None`: none, ever.
    fn answer(
        &mut self,
        (flags, kind): (u16, u16),
        offset: usize,
        length: usize,
        data: Vec<u8>,
    ) -> Option<(u32, Vec<u8>)> {
        if self.left == Some(0) && kind != READ {
            self.cut();
        }
        if self.off {
            return None;
        }
        if let (Some(left), WRITE | FLUSH) = (&mut self.left, kind) {
            *left -= 1;
        }
        let Some(range) = offset.checked_add(length).map(|end| offset..end) else {
            return Some((EINVAL, Vec::new()));
        };
        if self.live.get(range.clone()).is_none() {
            return Some((EINVAL, Vec::new()));
        }
        match kind {
            READ => return Some((0, self.live[range].to_vec())),
            WRITE | FLUSH if self.errno != 0 => return Some((self.errno, Vec::new())),
            WRITE if self.is_to_tear(offset, &data) => {
                self.tear(&data[SUPERBLOCK - offset..]);
                return None;
            }
            WRITE => {
                self.live[range.clone()].copy_from_slice(&data);
                if flags & FUA == 0 {
                    self.unflushed.push((offset, data));
                } else {
                    // What is in the cache of the same place is older.
                    self.unflushed.iter_mut().for_each(|write| replace(write, offset, &data));
                    self.durable[range].copy_from_slice(&data);
                }
            }
            FLUSH => {
                for (offset, data) in self.unflushed.drain(..) {
                    self.durable[offset..offset + data.len()].copy_from_slice(&data);
                }
            }
            _ => return Some((EINVAL, Vec::new())),
        }
        Some((0, Vec::new()))
    }

    fn is_to_tear(&self, offset: usize, data: &[u8]) -> bool {
        let Some(data) = SUPERBLOCK.checked_sub(offset).and_then(|at| data.get(at..at + SUPERBLOCK_LENGTH))
        else {
            return false;
        };
        let old = &self.live[SUPERBLOCK..][..SUPERBLOCK_LENGTH];
        self.tear.is_some() && data.chunks(SECTOR).zip(old.chunks(SECTOR)).all(|(new, old)| new != old)
    }

    /// Cuts the power at a write that begins with this superblock.
    fn tear(&mut self, superblock: &[u8]) {
        let Some(arrives) = self.tear.take() else { return };
        let sector = arrives * SECTOR..(arrives + 1) * SECTOR;
        self.live[SUPERBLOCK..][sector.clone()].copy_from_slice(&superblock[sector]);
        self.durable.clone_from(&self.live);
        self.unflushed.clear();
        self.off = true;
    }

    fn cut(&mut self) {
        // The cache is lost once.
        if std::mem::replace(&mut self.off, true) {
            return;
        }
        self.left = None;
        let mut dice = split(&mut self.dice);
        self.durable = self.remains(&mut dice);
        self.unflushed.clear();
        self.live.clone_from(&self.durable);
    }

    /// What a cut would leave.
    fn remains(&mut self, dice: &mut Dice) -> Vec<u8> {
        let mut left = self.durable.clone();
        self.counts.in_cache += self.unflushed.len();
        let fates = [Fate::Lost, Fate::Kept, Fate::InOrder, Fate::Torn, Fate::Torn, Fate::Torn];
        let fate = fates[dice.index(fates.len())];
        let first = dice.index(self.unflushed.len() + 1);
        for (number, (offset, data)) in self.unflushed.iter().enumerate() {
            let one = if fate == Fate::Torn { dice.index(3) } else { 0 };
            let mut whole = true;
            for (place, sector) in data.chunks(SECTOR).enumerate() {
                let kept = match fate {
                    Fate::Lost => false,
                    Fate::Kept => true,
                    Fate::InOrder => number < first,
                    Fate::Torn => one == 0 || (one == 1 && dice.chance(50)),
                };
                whole &= kept;
                if kept {
                    let at = offset + place * SECTOR;
                    left[at..at + sector.len()].copy_from_slice(sector);
                }
            }
            self.counts.lost += usize::from(!whole);
        }
        left
    }
}

/// Puts of the newer data what lies in the place of a write into it.
fn replace((at, old): &mut (usize, Vec<u8>), offset: usize, data: &[u8]) {
    let (begin, end) = (offset.max(*at), (offset + data.len()).min(*at + old.len()));
    if begin < end {
        old[begin - *at..end - *at].copy_from_slice(&data[begin - offset..end - offset]);
    }
}

fn take<const N: usize>(stream: &mut UnixStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Until the client wants to use the disk; false: it does not.
fn handshake(stream: &mut UnixStream, size: usize) -> io::Result<bool> {
    stream.write_all(MAGIC)?;
    stream.write_all(&FIXED_NEWSTYLE.to_be_bytes())?;
    let _flags: [u8; 4] = take(stream)?;
    loop {
        let magic: [u8; 8] = take(stream)?;
        let option: [u8; 4] = take(stream)?;
        let mut data = vec![0; u32::from_be_bytes(take(stream)?) as usize];
        stream.read_exact(&mut data)?;
        let mut reply = |kind: u32, data: &[u8]| {
            let length = u32::try_from(data.len()).map_err(io::Error::other)?.to_be_bytes();
            let head = [&OPTION_REPLY.to_be_bytes()[..], &option, &kind.to_be_bytes(), &length, data];
            stream.write_all(&head.concat())
        };
        match u32::from_be_bytes(option) {
            _ if &magic != OPTION => return Ok(false),
            OPT_GO => {
                let export = [
                    &INFO_EXPORT.to_be_bytes()[..],
                    &(size as u64).to_be_bytes(),
                    &EXPORT_FLAGS.to_be_bytes(),
                ];
                reply(REP_INFO, &export.concat())?;
                reply(REP_ACK, &[])?;
                return Ok(true);
            }
            OPT_ABORT => {
                reply(REP_ACK, &[])?;
                return Ok(false);
            }
            _ => reply(REP_UNSUPPORTED, &[])?,
        }
    }
}
