//! The s6 surface: what an image that was made for s6-overlay, and its tools, find in its place.
//!
//! This is the part before anything is supervised: the places below `/run`, the environment as files, the image's own
//! scripts. The scan directory and what becomes of its slots is in `slots`.
//!
//! Invariant: what is believed later, with root's rights, lies where nobody but root can write.

pub(in crate::daemon) mod slots;

use crate::daemon::Options;
use crate::daemon::boot::preparation::{self, Told};
use crate::definition::Surroundings;
use crate::definition::trust::is_roots_alone;
use crate::s6::applets::applet;
use crate::s6::container_environment::{self, PLACE as ENVIRONMENT};
use crate::s6::{SCAN_DIRECTORY, bundle, materialise};
use crate::sys::beneath::Beneath;
use crate::sys::credentials::Credentials;
use crate::sys::signal::SignalFd;
use rustix::fs::{AtFlags, Gid, Mode, Uid};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

/// Where s6-overlay has its things, and where the image's tools look for them.
const RUN: &str = "/run";
const SCAN_NAME: &str = "service";
/// The directories below `/run` that are root's alone, each behind the one that it lies in. `basedir` is what `hermes`
/// looks for, beside the name of PID 1; `servicedirs` is what the image's own slots lead to.
const OWN_PLACES: [&str; 4] = ["s6", BASE_NAME, "s6-rc", SERVICEDIRS_NAME];
const BASE_NAME: &str = "s6/basedir";
const SERVICEDIRS_NAME: &str = "s6-rc/servicedirs";
/// Where the applets are; only what runs under the supervisor has it on PATH.
const COMMANDS: &str = "/command";
/// The name of the process that scans `/run/service` under s6.
const SCANNER: &str = "s6-svscan";

/// Whether `hermes` takes us for s6.
pub fn is_visible() -> bool {
    std::process::id() == 1 && Path::new(RUN).join(BASE_NAME).is_dir() && Path::new(COMMANDS).is_dir()
}

/// What is there already when we go on as another program: only what is our own process's has to be made again.
pub fn resume(options: &mut Options) {
    look_like_s6();
    let _ = commands_first(&mut options.environment);
    let place = Path::new(ENVIRONMENT);
    // As before: what lies in somebody else's place is nobody's environment.
    let trusted = !rustix::process::geteuid().is_root() || place.parent().is_some_and(is_roots_alone);
    if let (true, Ok(loaded)) = (trusted, container_environment::load(place)) {
        options.environment.extend(loaded);
    }
}

/// What `hermes` looks for (hermes_cli.service_manager, detection of s6).
fn look_like_s6() {
    if std::process::id() == 1 {
        let _ = rustix::thread::set_name(&std::ffi::CString::new(SCANNER).unwrap_or_default());
    }
}

/// What is done before anything is supervised. `Err`: end now with this exit code.
pub fn prepare(
    options: &mut Options,
    signals: &SignalFd,
    nofile: Option<(u64, u64)>,
    told: Told<'_>,
) -> Result<(), u8> {
    let say = told.say;
    look_like_s6();
    let complain = |what: &str, result: io::Result<()>| {
        if let Err(error) = result {
            say(&format!("hermes-sup: the s6 surface is incomplete: {what}: {error}"));
        }
    };
    let places = own_places();
    // What lies in somebody else's place is nobody's environment.
    let trusted = places.is_ok();
    complain(RUN, places);
    complain(COMMANDS, commands_first(&mut options.environment));
    let owner = |options: &Options| {
        let around = Surroundings::now(options.home.clone(), options.gateway_user.as_deref());
        // An unknown user is the start's to refuse.
        around.map_or_else(|_| Credentials::own(), |around| around.gateway.credentials())
    };
    let before = owner(options);
    if trusted {
        let environment = options.environment.clone();
        let dumped = container_environment::dump(environment, Path::new(ENVIRONMENT), before.gid);
        complain(ENVIRONMENT, dumped.map(drop));
    }
    complain(SCAN_DIRECTORY, fresh_scan_directory(&before));
    preparation::run_scripts(options, signals, nofile, told)?;
    // The scripts may have given the gateway user another number.
    let after = owner(options);
    complain(SCAN_DIRECTORY, hand_over(&before, &after));
    if trusted {
        match container_environment::load(Path::new(ENVIRONMENT)) {
            Ok(loaded) => options.environment.extend(loaded),
            Err(error) => complain(ENVIRONMENT, Err(error)),
        }
    }
    Ok(())
}

/// The directories whose content is believed are root's alone, whatever an image or an earlier run made of them. A link
/// in their place is removed, not followed.
fn own_places() -> io::Result<()> {
    let root = rustix::process::geteuid().is_root();
    let run = Beneath::open(Path::new(RUN))?;
    for place in OWN_PLACES {
        let mut dir = own_directory(&run, Path::new(place))?;
        if root {
            match rustix::fs::fchown(&dir, Some(Uid::ROOT), Some(Gid::ROOT)) {
                // Without CAP_CHOWN what is somebody else's goes, and ours takes its place.
                Err(Errno::PERM) => {
                    let (above, name) = above(&run, Path::new(place))?;
                    materialise::remove_anybodys(&above, name)?;
                    dir = own_directory(&run, Path::new(place))?;
                }
                taken => taken?,
            }
            rustix::fs::fchmod(&dir, Mode::from_raw_mode(0o755))?;
        }
    }
    materialise::remove(&run.dir(Path::new("s6"))?, Path::new("container_environment"))
}

/// Opens the directory, made where it is missing; what else is there is in the way.
fn own_directory(parent: &Beneath, place: &Path) -> io::Result<Beneath> {
    parent.create_dirs(place, 0o755).or_else(|_| {
        let (above, name) = above(parent, place)?;
        materialise::remove_anybodys(&above, name)?;
        parent.create_dirs(place, 0o755)
    })
}

/// The directory that `place` lies in, and its name there.
fn above<'p>(parent: &Beneath, place: &'p Path) -> io::Result<(Beneath, &'p Path)> {
    let above = parent.dir(place.parent().unwrap_or(Path::new("")))?;
    Ok((above, Path::new(place.file_name().unwrap_or_default())))
}

/// Puts the applets on PATH, made as links to us where the image has none.
fn commands_first(environment: &mut BTreeMap<OsString, OsString>) -> io::Result<()> {
    if !Path::new(COMMANDS).is_dir() {
        std::fs::create_dir(COMMANDS)?;
        let program = std::env::current_exe()?;
        for name in applet::names() {
            std::os::unix::fs::symlink(&program, Path::new(COMMANDS).join(name))?;
        }
    }
    let path = environment.entry("PATH".into()).or_default();
    if std::env::split_paths(path).all(|dir| dir != Path::new(COMMANDS)) {
        let dirs = std::iter::once(PathBuf::from(COMMANDS)).chain(std::env::split_paths(path));
        *path =
            std::env::join_paths(dirs.filter(|dir| !dir.as_os_str().is_empty())).map_err(io::Error::other)?;
    }
    Ok(())
}

/// The scan directory as a boot finds it: empty but for the slots that are no directories of anybody's. Its former owner
/// may still be there and rearrange it.
fn fresh_scan_directory(owner: &Credentials) -> io::Result<()> {
    let scandir = own_directory(&Beneath::open(Path::new(RUN))?, Path::new(SCAN_NAME))?;
    let mut emptied = Ok(());
    for name in scandir.list()? {
        emptied = emptied.and(materialise::remove_anybodys(&scandir, Path::new(&name)));
    }
    materialise::prepare(Path::new(SCAN_DIRECTORY), owner)?;
    // It may be another by now.
    let scandir = own_directory(&Beneath::open(Path::new(RUN))?, Path::new(SCAN_NAME))?;
    let own = Credentials::own();
    let writer = if rustix::fs::fstat(&scandir)?.st_uid == owner.uid { owner } else { &own };
    for name in static_slots() {
        let place = Path::new(RUN).join(SERVICEDIRS_NAME).join(&name);
        std::fs::create_dir_all(place.join("supervise"))?;
        writer.on_files(|| rustix::fs::symlinkat(&place, &scandir, &name))??;
    }
    emptied
}

/// Names of services that the image brings: they are shown in the scan directory, but do not come from it.
pub fn static_slots() -> Vec<String> {
    bundle::read(Path::new(bundle::SOURCES), Path::new(bundle::LEGACY))
        .members
        .into_iter()
        .map(|member| member.name)
        .collect()
}

/// Gives to the gateway user of now what was made for whom it was. Its owner may plant links meanwhile.
fn hand_over(before: &Credentials, after: &Credentials) -> io::Result<()> {
    if (before.uid, before.gid) == (after.uid, after.gid) {
        return Ok(());
    }
    let (uid, gid) = (Some(Uid::from_raw(after.uid)), Some(Gid::from_raw(after.gid)));
    let run = Beneath::open(Path::new(RUN))?;
    let scandir = run.dir(Path::new(SCAN_NAME))?;
    match rustix::fs::fchown(&scandir, uid, gid) {
        Err(Errno::PERM) => {
            materialise::remove_anybodys(&run, Path::new(SCAN_NAME))?;
            fresh_scan_directory(after)?;
            return give_environment(after);
        }
        given => given?,
    }
    // Made anew by whom it is for: what was made before may be a second name of a file of root's by now.
    materialise::remove(&scandir, Path::new(materialise::CONTROL))?;
    materialise::prepare(Path::new(SCAN_DIRECTORY), after)?;
    give_environment(after)
}

/// Its group becomes that of the gateway user, which takes no capability but to be in it.
fn give_environment(after: &Credentials) -> io::Result<()> {
    let gid = Some(Gid::from_raw(after.gid));
    Credentials { gid: after.gid, ..Credentials::own() }.as_group(|| {
        let environment = Beneath::open(Path::new(ENVIRONMENT))?;
        rustix::fs::fchown(&environment, None, gid)?;
        for name in environment.list()? {
            rustix::fs::chownat(&environment, name, None, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(())
    })
}
