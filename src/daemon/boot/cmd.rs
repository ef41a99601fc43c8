//! What becomes of the container's CMD.

use crate::core::name::ServiceName;
use crate::daemon::{Options, surface};
use crate::hermes::command::{self, Command};
use crate::hermes::redirect::{Redirect, name_default, redirect, wrapped_gateways};
use std::ffi::OsString;

/// What becomes of the CMD.
#[derive(Debug, Clone)]
pub(in crate::daemon) enum Cmd {
    Main(Vec<OsString>),
    /// Gateways in the foreground; their services stay down.
    Foreground(Vec<OsString>, Vec<ServiceName>),
    /// A gateway, supervised instead, with further arguments.
    Supervised(ServiceName, Vec<String>),
    None,
}

/// What a container does about a state that another one may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::daemon) enum Claims {
    /// It is there for the gateways: it claims the state from who gives it up, and does not run without it.
    Insists,
    /// The same, but it claims nothing.
    Waits,
    /// It takes a state that is free and gives it up again; where it is not free, the command runs without it.
    GivesWay,
}

impl Claims {
    /// By the container's command; `None`: it has none.
    pub(in crate::daemon) fn of(command: Option<Command>) -> Self {
        match command {
            Some(Command::Gateway) => Self::Insists,
            None => Self::Waits,
            Some(Command::Dashboard | Command::Hermes | Command::Program) => Self::GivesWay,
        }
    }
}

/// What the CMD is.
pub(in crate::daemon) fn command_of(argv: &[OsString], options: &Options) -> Command {
    command::command(argv, |name| options.variable(name), |program| options.executable(program))
}

pub(in crate::daemon) fn judge_cmd(argv: Option<Vec<OsString>>, options: &Options) -> Cmd {
    let Some(argv) = argv else { return Cmd::None };
    // The unmodified `hermes` sees an s6 and hands a gateway over itself.
    let handed_over = options.s6_surface && surface::is_visible();
    match redirect(&argv, |name| options.variable(name)) {
        Redirect::NotAGateway => {
            let wrapped = wrapped_gateways(&argv, handed_over, |name| options.variable(name));
            if wrapped.is_empty() { Cmd::Main(argv) } else { Cmd::Foreground(argv, wrapped) }
        }
        Redirect::Foreground { hold_down } => Cmd::Foreground(name_default(argv), vec![hold_down]),
        Redirect::Supervise { .. } if handed_over => Cmd::Main(name_default(argv)),
        Redirect::Supervise { profile, extra_args } => Cmd::Supervised(profile, extra_args),
    }
}
