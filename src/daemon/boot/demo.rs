//! `run --demo`: a few gateways to look at, in a temporary home that is removed afterwards. No root, no Docker.

use crate::daemon::Options;
use std::io;
use std::path::{Path, PathBuf};

/// Name and definition of each. One ticks, one crashes every few seconds, one starts children that would outlive it.
const GATEWAYS: [(&str, &str); 3] = [
    (
        "ticker",
        r#"command = ["/bin/sh", "-c", "n=0; while :; do n=$((n+1)); echo tick $n; sleep 1; done"]
"#,
    ),
    (
        "crasher",
        r#"command = ["/bin/sh", "-c", "echo working; sleep 3; echo giving up >&2; exit 1"]

[restart]
backoff = { initial = "2s", max = "10s" }
"#,
    ),
    (
        "forker",
        r#"command = ["/bin/sh", "-c", "(trap '' TERM; setsid sleep 1000 & setsid sleep 1000 &) ; echo left two daemons behind; exec sleep 1000"]

[stop]
timeout = "2s"
"#,
    ),
];

/// The demo's home, removed when dropped.
#[derive(Debug)]
pub struct Demo {
    home: PathBuf,
    socket: PathBuf,
}

/// Makes the home and points `options` to it.
///
/// # Errors
/// As mkdir(2) and write(2) in the directory for temporary files.
pub fn prepare(options: &mut Options) -> io::Result<Demo> {
    let home = std::env::temp_dir().join(format!("hermes-sup-demo.{}", std::process::id()));
    std::fs::create_dir(&home)?;
    let socket = home.join("control.sock");
    let demo = Demo { home: home.clone(), socket: socket.clone() };
    let services = home.join("services");
    std::fs::create_dir(&services)?;
    for (name, text) in GATEWAYS {
        std::fs::write(services.join(format!("{name}.toml")), text)?;
    }
    // The user who runs the demo owns it, also where a user 'hermes' exists.
    options.gateway_user = Some(rustix::process::geteuid().as_raw().to_string());
    options.home.clone_from(&home);
    options.services = vec![services];
    options.state = home.join("supervisor");
    options.socket = Some(socket);
    Ok(demo)
}

impl Demo {
    /// What to try, in full.
    pub fn welcome(&self) -> String {
        let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("hermes-sup"));
        let ctl = format!("{} ctl --socket {}", shown(&program), shown(&self.socket));
        format!(
            "\nThree services run in {}. In another terminal, try:\n\n  {ctl} status\n  {ctl} status crasher\n  \
             {ctl} logs -f ticker\n  {ctl} stop forker\n\nCtrl-C ends them all and removes the home.\n\n",
            shown(&self.home)
        )
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.home);
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
