//! The environment of a service: the supervisor's own, the variables of its user, its env files, its secrets, then `env`.

mod expand;
mod file;
mod keys;

pub use expand::{ExpandError, escaped, expanded, has_variables};
pub use file::{EnvFileError, LineError, read_files};
pub(super) use keys::{is_variable_name, read, with_variables};

use super::programs::Programs;
use super::resolved::Definition;
use super::users::Surroundings;
use crate::sys::users::User;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

/// What a service sees: variables with their values, in order.
pub type Environment<'a> = Vec<(Cow<'a, OsStr>, Cow<'a, OsStr>)>;

/// What is left of the supervisor's environment with `env_clear`; what we say to services ourselves is added to it.
const KEPT: [&str; 6] = ["HOME", "LANG", "LOGNAME", "PATH", "TZ", "USER"];

/// What a service of `user` has before its definition says anything. `inherited` is the supervisor's environment.
///
/// A service of another user than the gateway's, and one of root in any case, looks for programs only where nobody else
/// can put some: other directories are left out of the inherited PATH.
pub fn base<'a>(
    inherited: &'a BTreeMap<OsString, OsString>,
    user: &'a User,
    surroundings: &Surroundings,
    programs: &Programs,
) -> Environment<'a> {
    // Room for the variables of the user, and a few of the definition.
    let mut all = Environment::with_capacity(inherited.len() + 8);
    for (key, value) in inherited {
        if key == "PATH" && (user.uid != surroundings.gateway.uid || user.uid == 0) {
            all.push((key.into(), programs.path_of(value, user.uid).into()));
        } else {
            all.push((key.into(), value.into()));
        }
    }
    if user.uid != surroundings.own_uid {
        set(&mut all, OsStr::new("HOME"), user.home.as_os_str());
        set(&mut all, OsStr::new("USER"), OsStr::new(&user.name));
        set(&mut all, OsStr::new("LOGNAME"), OsStr::new(&user.name));
    }
    all
}

/// Everything the service sees. `definition` has its variables filled in, `files` is what [`read_files`] gave.
pub fn environment<'a>(
    base: Environment<'a>,
    definition: &'a Definition,
    files: &'a BTreeMap<String, String>,
) -> Environment<'a> {
    let mut all = base;
    if definition.env_clear {
        all.retain(|(key, _)| KEPT.iter().any(|kept| *key == OsStr::new(kept)));
    }
    // What the definition says wins over files, but for secrets, which it does not name twice.
    for (key, value) in files.iter().chain(&definition.env) {
        set(&mut all, OsStr::new(key), OsStr::new(value));
    }
    all
}

/// Sets one variable of what is in order.
fn set<'a>(all: &mut Environment<'a>, key: &'a OsStr, value: &'a OsStr) {
    match all.binary_search_by(|(known, _)| (**known).cmp(key)) {
        Ok(place) => all.get_mut(place).into_iter().for_each(|entry| entry.1 = value.into()),
        Err(place) => all.insert(place, (key.into(), value.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::name::ServiceName;
    use crate::definition::resolved::Record;
    use crate::definition::trust::Trust;
    use crate::sys::users::nameless;
    use std::path::PathBuf;

    #[test]
    fn what_the_definition_says_wins_over_the_file_and_the_file_over_what_is_inherited() {
        let home = PathBuf::from("/opt/data");
        let surroundings = Surroundings { home, gateway: nameless(10000, 10000), own_uid: 0 };
        let (name, argv) = (ServiceName::new("web").unwrap(), ["x".to_owned()]);
        let env = BTreeMap::from([("BOTH".to_owned(), "env".to_owned())]);
        let record = Record { name: &name, argv: &argv, env: &env, user: "10000" };
        let definition = Definition::from_record(record, &Trust::Trusted, &surroundings).unwrap();
        let seen = |uid: u32| {
            let inherited =
                [("PATH", "/tmp:/usr/bin"), ("HOME", "/root"), ("BOTH", "inherited"), ("FILE", "no")];
            let file =
                [("BOTH", "file"), ("FILE", "file")].map(|(key, value)| (key.to_owned(), value.to_owned()));
            let inherited = inherited.map(|(key, value)| (key.into(), value.into())).into();
            let (user, file) = (nameless(uid, uid), file.into());
            let all =
                environment(base(&inherited, &user, &surroundings, &Programs::default()), &definition, &file);
            assert!(all.is_sorted() && all.windows(2).all(|pair| pair[0].0 != pair[1].0), "{all:?}");
            ["PATH", "HOME", "USER", "BOTH", "FILE"].map(|key| {
                let found = all.iter().find(|(known, _)| known == OsStr::new(key));
                found.map_or("-".to_owned(), |(_, value)| value.display().to_string())
            })
        };
        assert_eq!(seen(10000), ["/tmp:/usr/bin", "/", "10000", "env", "file"]);
        assert_eq!(seen(10001), ["/usr/bin", "/", "10001", "env", "file"]);
        assert_eq!(seen(0), ["/usr/bin", "/root", "-", "env", "file"]);
    }

    #[test]
    fn a_cleared_environment_keeps_what_no_program_does_without() {
        let home = PathBuf::from("/opt/data");
        let surroundings = Surroundings { home, gateway: nameless(10000, 10000), own_uid: 0 };
        let (name, argv) = (ServiceName::new("web").unwrap(), ["${SECRET}".to_owned()]);
        let env = BTreeMap::from([("OWN".to_owned(), "${SECRET:-}".to_owned())]);
        let record = Record { name: &name, argv: &argv, env: &env, user: "10000" };
        let registered = Definition::from_record(record, &Trust::Trusted, &surroundings).unwrap();
        let inherited =
            [("HOME", "/root"), ("LC_ALL", "C"), ("PATH", "/bin"), ("SECRET", "1"), ("TZ", "CET")];
        let inherited = inherited.map(|(key, value)| (key.into(), value.into())).into();
        let user = nameless(10000, 10000);
        let base = || base(&inherited, &user, &surroundings, &Programs::default());
        let shown = |all: &Environment<'_>| {
            all.iter()
                .map(|(key, value)| format!("{}={} ", key.display(), value.display()))
                .collect::<String>()
        };

        assert_eq!(
            expanded(&registered, &base()).as_deref(),
            Ok(&registered),
            "what was registered is no definition"
        );
        let cleared = Definition { env_clear: true, has_variables: true, ..registered };
        let files = BTreeMap::from([("FILE".to_owned(), "2".to_owned())]);
        let filled = expanded(&cleared, &base()).unwrap();
        assert_eq!(filled.command, ["1"]);
        let all = environment(base(), &filled, &files);
        assert_eq!(shown(&all), "FILE=2 HOME=/ LOGNAME=10000 OWN=1 PATH=/bin TZ=CET USER=10000 ");
    }
}
