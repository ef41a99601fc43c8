//! Who a service runs as: the gateway user, or the one that a trusted definition names.
//!
//! Looked up at each use, because an image may change the uid of its user after we start.

use super::resolved::RunAs;
use super::trust::Trust;
use crate::sys::credentials::Credentials;
use crate::sys::users::{self, User};
use std::io;
use std::path::PathBuf;

/// The user that gateways run as when none is chosen, if it exists.
pub const DEFAULT_GATEWAY_USER: &str = "hermes";

#[derive(Debug, thiserror::Error)]
pub enum UserError {
    #[error("there is no user '{0}': create it, or name another one")]
    Unknown(String),
    #[error(
        "cannot run as user '{user}': the supervisor itself is uid {own} and cannot become another user \
         (start it as root with CAP_SETUID and CAP_SETGID, or name uid {own})"
    )]
    NotRoot { user: String, own: u32 },
    #[error(
        "only a root-owned definition outside --home may name another user than the default one, '{gateway}'; {reason}"
    )]
    NotTrusted { gateway: String, reason: String },
    #[error("the user database cannot be read: {0}")]
    Database(#[from] io::Error),
}

/// Who we are and whose files are whose, as everything that judges a definition needs to know it. Made anew for each
/// use, because users change under us.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// Absolute. It need not exist.
    pub home: PathBuf,
    pub gateway: User,
    /// Our effective uid.
    pub own_uid: u32,
}

impl Surroundings {
    /// Those of this process, now.
    ///
    /// # Errors
    /// As [`gateway_user`].
    pub fn now(home: PathBuf, gateway_user_option: Option<&str>) -> Result<Self, UserError> {
        let own_uid = rustix::process::geteuid().as_raw();
        Ok(Self { home, gateway: gateway_user(gateway_user_option)?, own_uid })
    }

    /// Owns nothing that others could change: root, and our own user.
    pub fn is_trusted_owner(&self, uid: u32) -> bool {
        uid == 0 || uid == self.own_uid
    }

    /// Whom a service runs as whose source, trusted so far, names the user `text`.
    ///
    /// # Errors
    /// [`UserError::NotTrusted`] and [`UserError::NotRoot`]. A user who does not exist is no error: there may be one
    /// by the time of the start.
    pub fn may_run_as(&self, text: &str, trust: &Trust) -> Result<RunAs, UserError> {
        match (trust.reason(), self.lookup(&RunAs::Named(text.to_owned()))) {
            // By the uid of today, kept as "the gateway user": a number must not become somebody else's tomorrow.
            (Some(_), Ok(user)) if user.uid == self.gateway.uid => Ok(RunAs::Gateway),
            (Some(reason), _) => {
                Err(UserError::NotTrusted { gateway: self.gateway.name.clone(), reason: reason.to_owned() })
            }
            (None, Err(error @ UserError::NotRoot { .. })) => Err(error),
            (None, _) => Ok(RunAs::Named(text.to_owned())),
        }
    }

    /// Where a service of that user works when its definition does not say: the home directory for one of the gateway
    /// user, for any other `/`. In the home it could be made to load what the gateway user has put there.
    pub fn working_dir(&self, who: &RunAs) -> PathBuf {
        match who {
            RunAs::Named(_) if self.lookup(who).is_ok_and(|user| user.uid != self.gateway.uid) => {
                PathBuf::from("/")
            }
            RunAs::Named(_) | RunAs::Gateway => self.home.clone(),
        }
    }

    /// The user of a service, looked up now.
    ///
    /// # Errors
    /// [`UserError::Unknown`]; [`UserError::NotRoot`] for anybody but ourselves when we are not root.
    pub fn lookup(&self, who: &RunAs) -> Result<User, UserError> {
        match who {
            RunAs::Gateway => reachable(self.gateway.clone(), &self.gateway.name, self.own_uid),
            RunAs::Named(text) => find(text, self.own_uid),
        }
    }
}

/// The gateway user: the chosen one, else `hermes`, else ourselves. Without root it can only be ourselves, so then
/// that is the default too.
///
/// # Errors
/// As [`Surroundings::lookup`].
pub fn gateway_user(chosen: Option<&str>) -> Result<User, UserError> {
    let own_uid = rustix::process::geteuid().as_raw();
    if let Some(text) = chosen {
        return find(text, own_uid);
    }
    if own_uid == 0
        && let Some(user) = users::by_name_or_uid(DEFAULT_GATEWAY_USER, own_uid)?
    {
        return Ok(user);
    }
    Ok(ourselves(own_uid)?)
}

fn find(text: &str, own_uid: u32) -> Result<User, UserError> {
    let user = users::resolve(text)?.ok_or_else(|| UserError::Unknown(text.to_owned()))?;
    reachable(user, text, own_uid)
}

fn reachable(user: User, text: &str, own_uid: u32) -> Result<User, UserError> {
    match own_uid {
        0 => Ok(user),
        own if own == user.uid => Ok(ourselves(own)?),
        own => Err(UserError::NotRoot { user: text.to_owned(), own }),
    }
}

/// Our own user with the groups this process really has: without root they cannot be changed to those of the database.
fn ourselves(uid: u32) -> io::Result<User> {
    let known = users::by_uid(uid)?;
    if let (0, Some(root)) = (uid, &known) {
        return Ok(root.clone());
    }
    let own = Credentials::own();
    let user = known.unwrap_or_else(|| users::nameless(uid, own.gid));
    Ok(if uid == 0 { user } else { User { gid: own.gid, groups: own.groups, ..user } })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn surroundings(own_uid: u32) -> Surroundings {
        Surroundings { home: PathBuf::from("/data"), gateway: users::nameless(own_uid, own_uid), own_uid }
    }

    #[test]
    fn root_runs_anybody_who_exists() {
        let root = surroundings(0);
        assert_eq!(root.lookup(&RunAs::Named("4123456789".into())).unwrap().uid, 4_123_456_789);
        let unknown = root.lookup(&RunAs::Named("no-such-user-here".into())).unwrap_err();
        assert_eq!(
            unknown.to_string(),
            "there is no user 'no-such-user-here': create it, or name another one"
        );
    }

    #[test]
    fn without_root_only_ourselves_and_the_error_names_what_is_missing() {
        let own = surroundings(12345);
        assert_eq!(own.lookup(&RunAs::Named("12345".into())).unwrap().uid, 12345);
        assert_eq!(own.lookup(&RunAs::Gateway).unwrap().uid, 12345);
        let refused = own.lookup(&RunAs::Named("root".into())).unwrap_err().to_string();
        assert!(refused.contains("'root'") && refused.contains("CAP_SETUID"), "{refused}");
    }

    #[test]
    fn without_a_choice_the_gateway_user_is_hermes_or_ourselves() {
        let own = rustix::process::geteuid().as_raw();
        let expected =
            users::by_name(DEFAULT_GATEWAY_USER).unwrap().filter(|_| own == 0).map_or(own, |user| user.uid);
        assert_eq!(gateway_user(None).unwrap().uid, expected);
        assert!(matches!(gateway_user(Some("no-such-user-here")), Err(UserError::Unknown(_))));
    }
}
