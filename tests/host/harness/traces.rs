//! Traces of the supervisors of a world, where `HERMES_SUP_TRACES` names a directory for them: what their cores were told, for
//! `tests/run traces`. Only a debug build writes any.

use super::setup::Setup;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The directory inside the world.
const INSIDE: &str = "traces";

/// The world's supervisors shall write them, of whatever user they are.
pub fn ask_for(setup: &mut Setup, root: &Path) {
    if std::env::var_os("HERMES_SUP_TRACES").is_some() {
        let dir = root.join(INSIDE);
        std::fs::create_dir(&dir).expect("a directory for traces");
        std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o1777)).expect("its mode");
        setup.environment.push(("HERMES_SUP_TRACE".to_owned(), format!("/{INSIDE}")));
    }
}

/// The world is over: they go into a directory of their own, `name`.
pub fn take(root: &Path, name: &str) {
    let Some(to) = std::env::var_os("HERMES_SUP_TRACES") else { return };
    let to = Path::new(&to).join(name);
    let files = std::fs::read_dir(root.join(INSIDE)).into_iter().flatten().flatten();
    for file in files {
        let _ = std::fs::create_dir_all(&to);
        let _ = std::fs::copy(file.path(), to.join(file.file_name()));
    }
}
