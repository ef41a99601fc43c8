//! What a supervisor needs before it begins: the right to run others, a home, a socket and a directory of its own.

use crate::control::server::{ListenError, Server};
use crate::daemon::Options;
use crate::daemon::boot::steps::start_error::StartError;
use crate::definition::Surroundings;
use crate::sys::beneath::Beneath;
use crate::sys::bestow;
use crate::sys::credentials::Credentials;
use crate::sys::users::User;
use rustix::fs::Access;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Where the control socket is by default, and with it everything of this boot.
pub(in crate::daemon) const RUNTIME_DIR: &str = "/run/hermes-sup";

/// Root without the capabilities to be, and to signal, the users it is asked to run.
pub(in crate::daemon) fn may_run_others(options: &Options, around: &Surroundings) -> Result<(), StartError> {
    use caps::{CapSet, Capability};
    let others = around.gateway.uid != 0 || options.main_user.as_deref().is_some_and(|user| user != "root");
    if around.own_uid != 0 || !others {
        return Ok(());
    }
    let needed = [
        (Capability::CAP_SETUID, "SETUID"),
        (Capability::CAP_SETGID, "SETGID"),
        (Capability::CAP_KILL, "KILL"),
    ];
    let missing: Vec<String> = needed
        .iter()
        .filter(|(capability, _)| !caps::has_cap(None, CapSet::Effective, *capability).unwrap_or(true))
        .map(|(_, name)| format!("--cap-add {name}"))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let User { name, uid, gid, .. } = &around.gateway;
    Err(StartError::Powerless { user: name.clone(), missing, uid: *uid, gid: *gid })
}

/// Home is there, and the gateway user can use it.
pub(in crate::daemon) fn prepare_home(around: &Surroundings) -> Result<(), StartError> {
    use std::os::unix::fs::MetadataExt;
    let (home, gateway) = (&around.home, &around.gateway);
    let failed = |what, error| StartError::Home { home: home.clone(), what, error };
    let shown = || home.display().to_string();
    let closed =
        || rustix::fs::access(home, Access::WRITE_OK | Access::EXEC_OK) == Err(rustix::io::Errno::ACCESS);
    match std::fs::metadata(home) {
        Ok(meta) if !meta.is_dir() => Err(StartError::HomeIsNoDirectory { home: home.clone() }),
        Ok(meta) if around.own_uid == 0 && meta.uid() != gateway.uid => Err(StartError::ForeignHome {
            home: shown(),
            owner: meta.uid(),
            user: gateway.name.clone(),
            uid: gateway.uid,
            gid: gateway.gid,
        }),
        // A read-only volume is another matter: then services run all the same, and nothing is recorded.
        Ok(meta) if around.own_uid != 0 && closed() => {
            Err(StartError::ClosedHome { home: shown(), owner: meta.uid(), uid: around.own_uid })
        }
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            make_home(home, gateway).map_err(|error| failed("made", error))
        }
        Err(error) => Err(failed("used", error)),
    }
}

fn make_home(home: &Path, gateway: &User) -> std::io::Result<()> {
    std::fs::create_dir_all(home)?;
    match std::os::unix::fs::lchown(home, Some(gateway.uid), Some(gateway.gid)) {
        // Without CAP_CHOWN it is not given away, but made by its owner.
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            std::fs::remove_dir(home)?;
            let above = Beneath::open(parent(home))?;
            let name = home.file_name().unwrap_or_default();
            bestow::directory(&above, name, 0o755, &gateway.credentials(), &Credentials::own()).map(drop)
        }
        given => given,
    }
}

/// The control socket: the one that was named, else the first default place where it can be. With `former`, which
/// listens there already, it goes on.
pub(in crate::daemon) fn listen(
    options: &Options,
    former: Option<OwnedFd>,
) -> (Result<Server, ListenError>, PathBuf) {
    let (path, mode) = match &options.socket {
        Some(path) => {
            // A missing directory is made; if that fails, the bind says why.
            let _ = std::fs::create_dir_all(parent(path));
            (path.clone(), 0o666)
        }
        None => {
            let run = Path::new(RUNTIME_DIR);
            let usable = std::fs::create_dir_all(run).is_ok()
                && rustix::fs::access(run, Access::WRITE_OK | Access::EXEC_OK).is_ok();
            if usable {
                (run.join("control.sock"), 0o666)
            } else {
                (options.state.join("control.sock"), 0o660)
            }
        }
    };
    let resumed = former.and_then(|listener| Server::resume(&path, listener).ok());
    (resumed.map_or_else(|| Server::listen(&path, mode), Ok), path)
}

pub(in crate::daemon) fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

pub(in crate::daemon) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
