//! `s6-setuidgid`: becomes another user for good, groups and all, and executes a command.
//!
//! What root runs has a PATH without the directories that others can fill. That user gets back those that are its own, in the
//! places where the container's PATH has them; a PATH that somebody has chosen stays.

use super::applet::{Call, SYSTEM, USAGE as WRONG};
use super::exec::exec;
use crate::definition::programs::path_of;
use crate::s6::container_environment::{PLACE, load};
use crate::sys::credentials::Credentials;
use crate::sys::users;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;

const USAGE: &str = "s6-setuidgid USER[:GROUP] COMMAND...";

pub fn main(call: &mut Call<'_>) -> u8 {
    // A leading `--` ends options that there are none of.
    let words = call.words.strip_prefix(&["--".into()]).unwrap_or(call.words);
    let Some((account, command)) = words.split_first().filter(|(_, command)| !command.is_empty()) else {
        return call.usage("a user and a command are needed", USAGE);
    };
    let Some(account) = account.to_str().filter(|account| !account.starts_with('-')) else {
        return call.usage(format!("'{}' is no user", account.to_string_lossy().escape_debug()), USAGE);
    };
    let mut path = None;
    // As in s6: nobody named, nothing changed.
    if !account.is_empty() {
        match wanted(account) {
            Ok(wanted) => {
                if rustix::process::geteuid().is_root() {
                    let containers =
                        load(Path::new(PLACE)).ok().and_then(|mut env| env.remove(OsStr::new("PATH")));
                    path = (call.env)("PATH")
                        .zip(containers)
                        .and_then(|(now, all)| own_path(&now, &all, wanted.uid));
                }
                if let Err(error) = become_them(&wanted) {
                    let why = format!(
                        "unable to become '{}' (uid {}, gid {}): {error}: only root may, with CAP_SETUID and CAP_SETGID",
                        account.escape_debug(),
                        wanted.uid,
                        wanted.gid
                    );
                    return call.fatal(SYSTEM, &why);
                }
            }
            Err(error) => {
                let code = if matches!(error, AccountError::Database(_)) { SYSTEM } else { WRONG };
                return call.fatal(code, &error.to_string());
            }
        }
    }
    exec(call, command, path.map(|path| ("PATH".into(), path)).into_iter().collect())
}

/// The user's own form of the container's PATH, where what there is `now` is root's form of it.
fn own_path(now: &OsStr, containers: &OsStr, uid: u32) -> Option<OsString> {
    (now == path_of(containers, 0)).then(|| path_of(containers, uid))
}

/// Why an account is nobody.
#[derive(Debug, thiserror::Error)]
enum AccountError {
    #[error("unknown user: {}", .0.escape_debug())]
    UnknownUser(String),
    #[error("unknown group: {}", .0.escape_debug())]
    UnknownGroup(String),
    #[error("unable to read the user database: {0}")]
    Database(#[from] io::Error),
}

/// Who is meant. `USER`: with the groups of the database. `USER:GROUP`, each a name or a number: with no other groups.
fn wanted(account: &str) -> Result<Credentials, AccountError> {
    let (user, group) = match account.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (account, None),
    };
    let Some(found) = users::resolve(user)? else {
        return Err(AccountError::UnknownUser(user.to_owned()));
    };
    let Some(group) = group else { return Ok(found.credentials()) };
    let Some(gid) = users::group(group)? else { return Err(AccountError::UnknownGroup(group.to_owned())) };
    Ok(Credentials { uid: found.uid, gid, groups: [].into() })
}

/// Without privileges a process can only become what it is already, and then needs nothing: `docker run --user`.
fn become_them(wanted: &Credentials) -> io::Result<()> {
    match wanted.assume() {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let own = Credentials::own();
            if own.uid != 0 && (own.uid, own.gid) == (wanted.uid, wanted.gid) { Ok(()) } else { Err(error) }
        }
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s6::applets::applet::tests::told;

    #[test]
    fn a_user_gets_its_own_directories_of_the_path_back() {
        if !rustix::process::geteuid().is_root() {
            return; // Such directories are root's to make; the host tier runs this as root.
        }
        let root = tempfile::tempdir_in("/run").unwrap();
        std::fs::set_permissions(root.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let his = root.path().join("bin");
        std::fs::create_dir(&his).unwrap();
        std::os::unix::fs::chown(&his, Some(10000), Some(10000)).unwrap();
        let all = OsString::from(format!("/usr/bin:{}:/bin", his.display()));
        let roots = path_of(&all, 0);
        assert_eq!(roots, "/usr/bin:/bin");
        assert_eq!(own_path(&roots, &all, 10000), Some(all.clone()));
        assert_eq!(own_path(&roots, &all, 10001), Some(roots));
        assert_eq!(own_path(OsStr::new("/chosen"), &all, 10000), None);
    }

    #[test]
    fn accounts_are_names_or_numbers_with_or_without_a_group() {
        let root = users::by_name("root").unwrap().unwrap().credentials();
        assert_eq!(wanted("root").unwrap(), root);
        let bare = |uid, gid| Credentials { uid, gid, groups: [].into() };
        assert_eq!(wanted("0:0").unwrap(), bare(0, 0));
        assert_eq!(wanted("root:4123").unwrap(), bare(0, 4123));
        assert_eq!(wanted("4123:root").unwrap(), bare(4123, 0));
        for (account, why) in [
            ("no-such-user", "unknown user: no-such-user"),
            ("root:no-such-group", "unknown group: no-such-group"),
            (":0", "unknown user: "),
        ] {
            assert_eq!(wanted(account).unwrap_err().to_string(), why);
        }
    }

    #[test]
    fn wrong_words_are_100_and_change_nothing() {
        for words in [&[][..], &["root"], &["--", "root"], &["-x", "true"], &["no-such-user", "true"]] {
            let (code, out, err) = told(main, "s6-setuidgid", words, &|_| None);
            assert_eq!((code, out.as_str(), err.lines().count()), (100, "", 1), "{words:?}: {err}");
        }
    }

    #[test]
    fn a_command_that_cannot_be_executed_is_127_or_126() {
        for (program, code) in [("/no/such/program", 127), ("no-such-program-here", 127), ("/", 126)] {
            assert_eq!(told(main, "s6-setuidgid", &["", program], &|_| None).0, code, "{program}");
        }
    }
}
