//! What a child needs between clone and exec, prepared where allocating is still allowed.
//!
//! A plan is finished before the clone: C strings, numbers, masks, open descriptors. The child (`child.rs`) only
//! reads it. A plan also has a byte form, because on the keeper rung the process that clones is not the one that
//! plans; the descriptors travel beside the bytes, in a fixed order.

use crate::core::policy::DEFAULT_PATH;
use crate::sys::credentials::Credentials;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

/// Where a standard stream of the child goes.
#[derive(Debug)]
pub enum Stdio {
    /// The same as ours: only the main program.
    Inherit,
    Fd(OwnedFd),
}

/// What the child is in terms of sessions and terminals (setsid(2), tcsetpgrp(3)).
#[derive(Debug)]
pub enum Session {
    /// A session of its own without a terminal: every service.
    New,
    /// Its own process group in our session, made the terminal's foreground group if there is a terminal.
    Foreground { terminal: Option<OwnedFd> },
}

/// Capability masks, bit n = capability n (capabilities(7)). Computed by the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CapabilityMasks {
    /// What stays in the bounding set.
    pub bounding: u64,
    /// What the service gets although it is not root; a subset of `bounding`.
    pub ambient: u64,
}

/// A finished order for one child. See the fields; `new` fills the ones that must be checked.
#[derive(Debug)]
pub struct ChildPlan {
    argv: Vec<CString>,
    envp: Vec<CString>,
    candidates: Vec<CString>,
    working_dir: Option<CString>,
    /// `None`: keep ours.
    pub umask: Option<u32>,
    /// `None`: keep ours.
    pub identity: Option<Credentials>,
    pub no_new_privs: bool,
    /// Its owner wants set-uid programs to have their effect, also where containment would rather not. Read where that is
    /// chosen; no part of the byte form.
    pub may_gain: bool,
    /// It may signal only what it starts (Landlock, ABI 6); needs `no_new_privs`.
    pub scope_signals: bool,
    /// Orphans of what it starts become its children (PR_SET_CHILD_SUBREAPER): it can be ended with all that it has started.
    pub subreaper: bool,
    /// `None`: inherit all four sets.
    pub capabilities: Option<CapabilityMasks>,
    /// Mounts that it sees read-only, in a mount namespace of its own, where that can be made (CAP_SYS_ADMIN).
    pub read_only: Vec<CString>,
    /// RLIMIT_NOFILE, soft and hard; `None`: keep ours. What is more than the child may have is cut to what it may.
    pub nofile: Option<(u64, u64)>,
    /// RLIMIT_NPROC and RLIMIT_CORE likewise.
    pub nproc: Option<(u64, u64)>,
    pub core: Option<(u64, u64)>,
    /// `None`: keep ours.
    pub oom_score_adj: Option<i16>,
    /// Kernel samepage merging, where the kernel has it.
    pub ksm: bool,
    /// Without transparent huge pages.
    pub thp_disabled: bool,
    /// Its memory may run out before its exec, and then the OOM killer takes every process that shares it.
    pub scarce_memory: bool,
    pub session: Session,
    pub stdin: Stdio,
    pub stdout: Stdio,
    pub stderr: Stdio,
    /// One more descriptor for the child; everything else above 2 is closed by exec.
    pub pass: Option<Pass>,
}

/// A descriptor that the child gets under a number of its own, 3 or higher.
#[derive(Debug)]
pub struct Pass {
    pub fd: OwnedFd,
    pub number: i32,
}

/// Why no plan can be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error("the command is empty")]
    NoCommand,
    #[error("{0} contains a NUL byte, which no process can be given")]
    Nul(String),
}

impl ChildPlan {
    /// A plan for a service: new session, all streams from `null` until the caller says otherwise, nothing else
    /// changed. The program is searched in the PATH of `env`; no file is touched, the child does the trying.
    ///
    /// # Errors
    /// [`PlanError`] for an empty command and for NUL bytes.
    pub fn new<A, K, V>(
        argv: &[A],
        env: impl IntoIterator<Item = (K, V)>,
        working_dir: Option<&OsStr>,
        null: [OwnedFd; 3],
    ) -> Result<Self, PlanError>
    where
        A: AsRef<OsStr>,
        K: AsRef<OsStr>,
        V: AsRef<OsStr>,
    {
        let program = argv.first().ok_or(PlanError::NoCommand)?.as_ref();
        if program.is_empty() {
            return Err(PlanError::NoCommand);
        }
        let mut search = OsString::from(DEFAULT_PATH);
        let mut envp = Vec::new();
        for (key, value) in env {
            let (key, value) = (key.as_ref(), value.as_ref());
            if key == "PATH" {
                search = value.to_owned();
            }
            let (key, value) = (key.as_bytes(), value.as_bytes());
            // With its last NUL.
            let mut entry = Vec::with_capacity(key.len() + value.len() + 2);
            entry.extend_from_slice(key);
            entry.push(b'=');
            entry.extend_from_slice(value);
            let variable = || PlanError::Nul("an environment variable".to_owned());
            envp.push(CString::new(entry).map_err(|_| variable())?);
        }
        let [stdin, stdout, stderr] = null.map(Stdio::Fd);
        Ok(Self {
            argv: argv.iter().map(|a| c_string(a.as_ref(), "an argument")).collect::<Result<_, _>>()?,
            envp,
            candidates: candidates(program, &search)?,
            working_dir: working_dir.map(|dir| c_string(dir, "the working directory")).transpose()?,
            umask: None,
            identity: None,
            no_new_privs: false,
            may_gain: false,
            scope_signals: false,
            subreaper: false,
            capabilities: None,
            read_only: Vec::new(),
            nofile: None,
            nproc: None,
            core: None,
            oom_score_adj: None,
            ksm: false,
            thp_disabled: false,
            scarce_memory: false,
            session: Session::New,
            stdin,
            stdout,
            stderr,
            pass: None,
        })
    }

    /// Sets one variable, replacing an older value.
    ///
    /// # Errors
    /// [`PlanError::Nul`].
    pub fn set_env(&mut self, key: &str, value: &str) -> Result<(), PlanError> {
        let prefix = format!("{key}=");
        let entry = c_string(OsStr::new(&format!("{prefix}{value}")), key)?;
        self.envp.retain(|old| !old.as_bytes().starts_with(prefix.as_bytes()));
        self.envp.push(entry);
        Ok(())
    }

    /// Executes this file, whatever the first argument says.
    pub fn set_program(&mut self, path: CString) {
        self.candidates = vec![path];
    }

    pub fn argv(&self) -> &[CString] {
        &self.argv
    }

    pub fn envp(&self) -> &[CString] {
        &self.envp
    }

    /// The paths that are tried, in order.
    pub fn candidates(&self) -> &[CString] {
        &self.candidates
    }

    pub fn working_dir(&self) -> Option<&CString> {
        self.working_dir.as_ref()
    }

    /// The byte form, without descriptors and session (always [`Session::New`]): a version byte, then every field in
    /// the order of `decode`.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode_into(&mut out);
        out
    }

    /// The same, added to `out`.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        for list in [&self.argv, &self.envp, &self.candidates, &self.read_only] {
            put_u32(out, list.len());
            for text in list {
                put_bytes(out, text.as_bytes());
            }
        }
        put_option(out, self.working_dir.as_ref(), |out, dir| put_bytes(out, dir.as_bytes()));
        put_option(out, self.umask, |out, mask| out.extend(mask.to_le_bytes()));
        put_option(out, self.identity.as_ref(), |out, who| {
            out.extend(who.uid.to_le_bytes());
            out.extend(who.gid.to_le_bytes());
            put_u32(out, who.groups.len());
            who.groups.iter().for_each(|group| out.extend(group.to_le_bytes()));
        });
        let memory = [self.ksm, self.thp_disabled, self.scarce_memory];
        for flag in [self.no_new_privs, self.scope_signals, self.subreaper].into_iter().chain(memory) {
            out.push(u8::from(flag));
        }
        put_option(out, self.capabilities, |out, masks| {
            out.extend(masks.bounding.to_le_bytes());
            out.extend(masks.ambient.to_le_bytes());
        });
        for limit in [self.nofile, self.nproc, self.core] {
            put_option(out, limit, |out, (soft, hard)| {
                out.extend(soft.to_le_bytes());
                out.extend(hard.to_le_bytes());
            });
        }
        put_option(out, self.oom_score_adj, |out, adjustment| out.extend(adjustment.to_le_bytes()));
        put_option(out, self.pass.as_ref(), |out, pass| out.extend(pass.number.to_le_bytes()));
    }

    /// The descriptors that belong to the byte form: stdin, stdout, stderr and the one that is passed, if any. `None`
    /// if a stream is inherited, which cannot be passed on.
    pub fn descriptors(&self) -> Option<Vec<BorrowedFd<'_>>> {
        let fd = |stream| match stream {
            &Stdio::Inherit => None,
            Stdio::Fd(fd) => Some(fd.as_fd()),
        };
        let mut fds = vec![fd(&self.stdin)?, fd(&self.stdout)?, fd(&self.stderr)?];
        fds.extend(self.pass.as_ref().map(|pass| pass.fd.as_fd()));
        Some(fds)
    }

    /// Reads the byte form back.
    ///
    /// # Errors
    /// `InvalidData` when it is cut short, of another version, or claims more than it holds, descriptors included.
    pub fn decode(bytes: &[u8], descriptors: Vec<OwnedFd>) -> io::Result<Self> {
        let mut input = Input(bytes);
        if input.take::<1>()? != [VERSION] {
            return Err(malformed());
        }
        let mut lists = [const { Vec::new() }; 4];
        for list in &mut lists {
            for _ in 0..input.u32()? {
                list.push(input.c_string()?);
            }
        }
        let [argv, envp, candidates, read_only] = lists;
        let working_dir = input.option(Input::c_string)?;
        let umask = input.option(Input::u32)?;
        let identity = input.option(|input| {
            let (uid, gid, count) = (input.u32()?, input.u32()?, input.u32()?);
            let groups = (0..count).map(|_| input.u32()).collect::<io::Result<_>>()?;
            Ok(Credentials { uid, gid, groups })
        })?;
        let mut flag = || input.take::<1>().map(|byte| byte != [0]);
        let [no_new_privs, scope_signals, subreaper] = [flag()?, flag()?, flag()?];
        let [ksm, thp_disabled, scarce_memory] = [flag()?, flag()?, flag()?];
        let capabilities =
            input.option(|input| Ok(CapabilityMasks { bounding: input.u64()?, ambient: input.u64()? }))?;
        let mut limit = || input.option(|input| Ok((input.u64()?, input.u64()?)));
        let [nofile, nproc, core] = [limit()?, limit()?, limit()?];
        let oom_score_adj = input.option(|input| input.take().map(i16::from_le_bytes))?;
        let number = input.option(|input| input.take().map(i32::from_le_bytes))?;
        let mut descriptors = descriptors.into_iter();
        let mut fd = || descriptors.next().ok_or_else(malformed);
        let [stdin, stdout, stderr] = [Stdio::Fd(fd()?), Stdio::Fd(fd()?), Stdio::Fd(fd()?)];
        let pass = number.map(|number| Ok::<_, io::Error>(Pass { fd: fd()?, number })).transpose()?;
        if !input.0.is_empty() || argv.is_empty() || candidates.is_empty() {
            return Err(malformed());
        }
        let session = Session::New;
        Ok(Self {
            argv,
            envp,
            candidates,
            working_dir,
            umask,
            identity,
            no_new_privs,
            may_gain: false,
            scope_signals,
            subreaper,
            capabilities,
            read_only,
            nofile,
            nproc,
            core,
            oom_score_adj,
            ksm,
            thp_disabled,
            scarce_memory,
            session,
            stdin,
            stdout,
            stderr,
            pass,
        })
    }

    /// Which descriptor the child puts at which number.
    pub(super) fn places(&self) -> Vec<(RawFd, RawFd)> {
        let streams = [(&self.stdin, 0), (&self.stdout, 1), (&self.stderr, 2)];
        let given = |(stream, number): (&Stdio, RawFd)| match stream {
            Stdio::Inherit => None,
            Stdio::Fd(fd) => Some((fd.as_raw_fd(), number)),
        };
        let passed = self.pass.as_ref().map(|pass| (pass.fd.as_raw_fd(), pass.number));
        streams.into_iter().filter_map(given).chain(passed).collect()
    }

    /// Takes its descriptors, which a child that was made has by now.
    pub(super) fn take_descriptors(&mut self) -> Vec<OwnedFd> {
        let streams = [&mut self.stdin, &mut self.stdout, &mut self.stderr];
        let taken = streams.map(|stream| match std::mem::replace(stream, Stdio::Inherit) {
            Stdio::Inherit => None,
            Stdio::Fd(fd) => Some(fd),
        });
        taken.into_iter().flatten().chain(self.pass.take().map(|pass| pass.fd)).collect()
    }

    /// The highest number that the child gives a new meaning.
    pub(super) fn highest(&self) -> i32 {
        self.pass.as_ref().map_or(2, |pass| pass.number.max(2))
    }

    /// Moves every descriptor of the plan above those, so that the child can put them in place one after the other
    /// without overwriting one that it still needs.
    pub(super) fn lift_descriptors(&mut self) -> io::Result<()> {
        let highest = self.highest();
        for stream in [&mut self.stdin, &mut self.stdout, &mut self.stderr] {
            if let Stdio::Fd(fd) = stream {
                lift(fd, highest)?;
            }
        }
        if let Some(pass) = &mut self.pass {
            lift(&mut pass.fd, highest)?;
        }
        Ok(())
    }
}

/// Moves a descriptor above `highest`.
pub(super) fn lift(fd: &mut OwnedFd, highest: i32) -> io::Result<()> {
    if fd.as_raw_fd() <= highest {
        *fd = rustix::io::fcntl_dupfd_cloexec(&*fd, highest + 1)?;
    }
    Ok(())
}

/// `program` itself when it has a slash, otherwise one path for each directory of `search`.
fn candidates(program: &OsStr, search: &OsStr) -> Result<Vec<CString>, PlanError> {
    let name = program.as_bytes();
    if name.contains(&b'/') {
        return Ok(vec![c_string(program, "the command")?]);
    }
    search
        .as_bytes()
        .split(|byte| *byte == b':')
        // An empty entry would be the current directory: a user who can write there could plant a program.
        .filter(|dir| !dir.is_empty())
        .chain(search.is_empty().then_some(&b"/bin"[..]))
        .map(|dir| c_string(OsStr::from_bytes(&[dir, b"/", name].concat()), "the command"))
        .collect()
}

fn c_string(text: &OsStr, what: &str) -> Result<CString, PlanError> {
    CString::new(text.as_bytes()).map_err(|_| PlanError::Nul(what.to_owned()))
}

const VERSION: u8 = 7;

fn malformed() -> io::Error {
    io::Error::from(io::ErrorKind::InvalidData)
}

fn put_u32(out: &mut Vec<u8>, number: usize) {
    // More than 4 GiB cannot be an argument list (execve(2), E2BIG): saturating makes decode refuse it.
    out.extend(u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u32(out, bytes.len());
    out.extend(bytes);
}

fn put_option<T>(out: &mut Vec<u8>, value: Option<T>, put: impl FnOnce(&mut Vec<u8>, T)) {
    out.push(u8::from(value.is_some()));
    if let Some(value) = value {
        put(out, value);
    }
}

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or_else(malformed)?;
        self.0 = rest;
        Ok(*head)
    }

    fn u32(&mut self) -> io::Result<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> io::Result<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn c_string(&mut self) -> io::Result<CString> {
        let length = usize::try_from(self.u32()?).map_err(|_| malformed())?;
        let (head, rest) = self.0.split_at_checked(length).ok_or_else(malformed)?;
        self.0 = rest;
        CString::new(head).map_err(|_| malformed())
    }

    fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> io::Result<T>) -> io::Result<Option<T>> {
        if self.take::<1>()? == [0] { Ok(None) } else { read(self).map(Some) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nulls() -> [OwnedFd; 3] {
        [(); 3].map(|()| std::fs::File::open("/dev/null").unwrap().into())
    }

    fn plan(argv: &[&str], env: &[(&str, &str)]) -> Result<ChildPlan, PlanError> {
        ChildPlan::new(argv, env.iter().copied(), None, nulls())
    }

    #[test]
    fn a_bare_name_is_searched_in_the_path_of_the_service_and_never_in_the_current_directory() {
        let shown = |plan: ChildPlan| -> Vec<String> {
            plan.candidates().iter().map(|c| c.to_str().unwrap().to_owned()).collect()
        };
        assert_eq!(shown(plan(&["x"], &[("PATH", "/a::/b:")]).unwrap()), ["/a/x", "/b/x"]);
        assert_eq!(shown(plan(&["./x"], &[("PATH", "/a")]).unwrap()), ["./x"]);
        assert!(shown(plan(&["x"], &[]).unwrap()).contains(&"/usr/bin/x".to_owned()));
        assert_eq!(plan(&[], &[]).unwrap_err(), PlanError::NoCommand);
        assert_eq!(plan(&[""], &[]).unwrap_err(), PlanError::NoCommand);
        assert!(matches!(plan(&["a\0b"], &[]).unwrap_err(), PlanError::Nul(_)));
    }

    #[test]
    fn the_byte_form_reads_back_and_every_cut_of_it_is_refused() {
        let mut plan = plan(&["/bin/x", "arg"], &[("A", "1")]).unwrap();
        plan.set_env("A", "2").unwrap();
        plan.umask = Some(0o27);
        plan.identity = Some(Credentials { uid: 1, gid: 2, groups: [3, 4].into() });
        plan.capabilities = Some(CapabilityMasks { bounding: 5, ambient: 1 });
        plan.nofile = Some((10, 20));
        plan.core = Some((0, u64::MAX));
        plan.oom_score_adj = Some(-7);
        plan.no_new_privs = true;
        plan.scope_signals = true;
        plan.subreaper = true;
        plan.scarce_memory = true;
        plan.ksm = true;
        plan.pass = nulls().into_iter().next().map(|fd| Pass { fd, number: 7 });
        let bytes = plan.encode();
        let four = || nulls().into_iter().chain(nulls().into_iter().take(1)).collect::<Vec<_>>();
        let back = ChildPlan::decode(&bytes, four()).unwrap();
        assert!(ChildPlan::decode(&bytes, nulls().into()).is_err(), "the passed descriptor is missing");
        assert_eq!(back.encode(), bytes);
        assert_eq!(back.envp(), [c"A=2".to_owned()]);
        assert_eq!(back.identity, plan.identity);
        assert_eq!((back.ksm, back.thp_disabled), (true, false));
        for cut in 0..bytes.len() {
            assert!(ChildPlan::decode(&bytes[..cut], four()).is_err(), "cut at {cut}");
        }
        assert!(ChildPlan::decode(&[&bytes[..], b"x"].concat(), four()).is_err(), "a tail is not ours");
    }
}
