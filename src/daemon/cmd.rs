//! What becomes of the container's CMD.

use super::{Options, surface};
use crate::core::name::ServiceName;
use crate::hermes::redirect::{Redirect, redirect};
use std::ffi::OsString;

/// What becomes of the CMD.
pub(super) enum Cmd {
    Main(Vec<OsString>),
    /// A gateway in the foreground; its service stays down.
    Foreground(Vec<OsString>, ServiceName),
    /// A gateway, supervised instead, with further arguments.
    Supervised(ServiceName, Vec<String>),
    None,
}

pub(super) fn is_gateway_run(argv: &[OsString], options: &Options) -> bool {
    matches!(
        redirect(argv, |name| options.variable(name), None),
        Redirect::Supervise { .. } | Redirect::Foreground { .. }
    )
}

pub(super) fn judge_cmd(argv: Option<Vec<OsString>>, options: &Options, active: Option<&ServiceName>) -> Cmd {
    let Some(argv) = argv else { return Cmd::None };
    match redirect(&argv, |name| options.variable(name), active) {
        Redirect::NotAGateway => Cmd::Main(argv),
        Redirect::Foreground { hold_down } => Cmd::Foreground(argv, hold_down),
        // The unmodified `hermes` sees an s6 and hands the gateway over itself.
        Redirect::Supervise { .. } if options.s6_surface && surface::is_visible() => Cmd::Main(argv),
        Redirect::Supervise { profile, extra_args } => Cmd::Supervised(profile, extra_args),
    }
}
