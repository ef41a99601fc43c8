//! From a definition to a running main process: environment, user, streams, limits, then the containment.

use crate::containment::{IncarnationId, MAIN_PID};
use crate::core::event::{Event, Incarnation};
use crate::core::exit::Exit;
use crate::core::fleet::ServiceId;
use crate::core::gateway::{Gateway, Phase};

use crate::core::signal::Signal;
use crate::core::words::LogFormat;
use crate::daemon::boot::ownership::places::RUNTIME_DIR;
use crate::daemon::boot::steps::planned::note_to_successor;
use crate::daemon::execute::log_dir;
use crate::daemon::services::Service;
use crate::daemon::services::launch_error::LaunchError;
use crate::daemon::services::mirror::Mirrored;
use crate::daemon::services::privileges;
use crate::daemon::services::process_limits;
use crate::daemon::surface::slots;
use crate::daemon::view::decide;
use crate::daemon::{Notice, Options, Supervisor};
use crate::definition::environment::{Environment, base, environment, expanded, read_files};
use crate::definition::limits::inherited;
use crate::definition::resolved::{Definition, Origin, Ready};
use crate::definition::template::DEFAULT_PROFILE;
use crate::definition::{Surroundings, resolved};
use crate::hermes::presence::{self, Presence};
use crate::log::{Dress, LogSpec, SourceId};
use crate::s6::script;
use crate::store::Change;
use crate::sys::beneath::Beneath;
use crate::sys::credentials::Credentials;
use crate::sys::spawn::plan::{ChildPlan, PlanError};
use crate::sys::users::User;
use rustix::fs::{Mode, OFlags};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

impl Supervisor {
    /// The surroundings of now: the gateway user may have been remapped since we started.
    pub(in crate::daemon) fn surroundings_now(&self) -> Surroundings {
        let fresh = Surroundings::now(self.options.home.clone(), self.options.gateway_user.as_deref());
        fresh.unwrap_or_else(|_| self.surroundings.clone())
    }

    /// First half of a start: env files and secrets, a gateway's state file and a slot that is to run as root are looked at by
    /// another thread, because the disk may hang.
    pub(in crate::daemon) fn prepare(
        &mut self,
        id: ServiceId,
        incarnation: Incarnation,
        around: &Surroundings,
    ) {
        let waits = |gateway: &Gateway| {
            gateway.phase() == Phase::Starting && gateway.history().incarnation == incarnation
        };
        if !self.fleet.gateway(id).is_some_and(waits) {
            return self.launch(id, incarnation, Ok(BTreeMap::new()), around);
        }
        let mirror = self.mirror_before_start(id);
        let forget = self.forget_before_start(id);
        let Some(service) = self.services.get(&id).map(Box::as_ref) else { return };
        let definition = &service.definition;
        let (reads, mirrors) = (
            !definition.env_files.is_empty()
                || definition.secrets.is_some()
                || slots::runs_as_root(definition, &self.surroundings),
            mirror.is_some(),
        );
        let gateway = service.gateway_directory(&self.options.home);
        if !reads && !mirrors && gateway.is_none() {
            return self.launch(id, incarnation, Ok(BTreeMap::new()), around);
        }
        let (name, definition) = (definition.name.clone(), reads.then(|| definition.clone()));
        let surroundings = around.clone();
        let notifier = self.wakeups.notifier.clone();
        let work = move || {
            let user = surroundings.gateway.credentials();
            let home = gateway.and_then(|gateway| Some((Beneath::open(&surroundings.home).ok()?, gateway)));
            let presence = home.map(|(home, gateway)| presence::look(&home, &user, &gateway));
            let mirrored = mirror.map(|mirror| mirror());
            // After the wish is in it, and not under a gateway of somebody else. A gateway starts without it, too.
            if !matches!(presence, Some(Presence::There { gateway: Some(_) })) {
                let _ = forget.map(|forget| forget());
            }
            let look = |definition| look_before_start(&definition, &surroundings);
            let file = definition.map_or_else(|| Ok(BTreeMap::new()), look);
            (file, mirrored, presence)
        };
        let named = name.clone();
        let done =
            move |prepared: io::Result<(Result<_, LaunchError>, Option<Mirrored>, Option<Presence>)>| {
                let (file, mirrored, presence) =
                    prepared.unwrap_or_else(|error| (Err(LaunchError::Files(error)), None, None));
                let mirrored = mirrored.map(|written| (named, written));
                notifier.send(Notice::Prepared { id, incarnation, file, mirrored, presence });
            };
        if let Err(refused) = self.logs.files().run(Credentials::own(), work, done) {
            if mirrors {
                self.mirrored(id, &name, Err(io::Error::other(refused.to_string())));
            }
            let file = if reads { Err(refused.into()) } else { Ok(BTreeMap::new()) };
            self.launch(id, incarnation, file, around);
        }
    }

    /// Second half: everything is at hand.
    pub(in crate::daemon) fn launch(
        &mut self,
        id: ServiceId,
        incarnation: Incarnation,
        file: Result<BTreeMap<String, String>, LaunchError>,
        around: &Surroundings,
    ) {
        let current =
            self.fleet.gateway(id).is_some_and(|g| g.has_tree() && g.history().incarnation == incarnation);
        let Some(service) = self.services.get(&id).filter(|_| current) else { return };
        if self.fleet.gateway(id).is_some_and(|gateway| gateway.phase() != Phase::Starting) {
            return self.never_ran(id, incarnation, &LaunchError::Stopped);
        }
        let name = service.name.clone();
        // What the core awaits is the preparation, also where its definition was changed meanwhile and has none.
        let prepares = self.fleet.gateway(id).is_some_and(Gateway::is_preparing);
        let hooks = service.definition.hooks.as_ref();
        let first = prepares.then(|| hooks.and_then(|hooks| hooks.pre_start.clone()));
        let started = file.and_then(|file| {
            let plan = match first {
                Some(argv) => {
                    let argv = argv.ok_or(LaunchError::Gone)?;
                    let mut plan = self.plan(id, file, Program::OwnHook(argv), around)?;
                    self.tell_hook(id, PRE_START, &mut plan)?;
                    plan
                }
                None => {
                    let mut plan = self.plan(id, file, Program::Command, around)?;
                    self.give_readiness(id, incarnation, &mut plan)?;
                    plan
                }
            };
            self.spawn(id, IncarnationId { name, n: incarnation }, plan)
        });
        if let Err(error) = started {
            self.never_ran(id, incarnation, &error);
        }
    }

    /// The way in which the service will report that it is ready.
    fn give_readiness(
        &mut self,
        id: ServiceId,
        incarnation: Incarnation,
        plan: &mut ChildPlan,
    ) -> Result<(), LaunchError> {
        let definition = &self.services.get(&id).ok_or(LaunchError::Gone)?.definition;
        if definition.has_notify_socket() {
            let silence = definition.watchdog().map(|silence| silence.as_micros().to_string());
            let name = self.notify_name(id, incarnation);
            let made = self.listeners.notify(&self.wakeups.registry, id, incarnation, &name);
            made.map_err(LaunchError::NotifySocket)?;
            plan.set_env("NOTIFY_SOCKET", &format!("@{name}"))?;
            if let Some(silence) = silence {
                plan.set_env("WATCHDOG_USEC", &silence)?;
            }
        }
        match self.services.get(&id).map(|service| &service.definition.ready) {
            Some(Ready::Fd(number)) => {
                let pass = self.listeners.pipe(&self.wakeups.registry, id, incarnation, *number);
                plan.pass = Some(pass.map_err(LaunchError::ReadinessPipe)?);
            }
            // Before its first line.
            Some(Ready::Log(pattern)) => {
                self.logs.watch(SourceId(id.0), incarnation, Arc::clone(&pattern.0));
                self.topics.readiness.watches(id, incarnation);
            }
            Some(Ready::GatewayState | Ready::Notify | Ready::Probe(_) | Ready::None) | None => {}
        }
        Ok(())
    }

    /// The finish program of a service that has ended, told how (s6-supervise, "finish").
    pub(in crate::daemon) fn launch_finish(
        &mut self,
        id: ServiceId,
        incarnation: Incarnation,
        (exit, pid): (Exit, i32),
    ) {
        decide!(self.readiness.forget(id));
        let allowed = self.services.get(&id).map_or(Ok(()), |service| {
            // The image's own directories and /run: not where a disk hangs.
            slots::check_root(&service.definition, &self.surroundings)
        });
        let Some(service) = self.services.get(&id) else { return };
        let name = service.name.clone();
        let (code, signal) = match exit {
            Exit::Code(code) => (u32::from(code), 0),
            other => (256, other.signal().map_or(0, Signal::number)),
        };
        let slot = service.definition.slot.as_ref().map_or(name.as_str(), |slot| slot.name.as_str());
        let arguments = [code.to_string(), signal.to_string(), slot.to_owned(), pid.to_string()];
        let hooks = service.definition.hooks.as_ref().filter(|_| service.definition.slot.is_none());
        let hook = hooks.and_then(|hooks| hooks.post_stop.clone());
        let program = hook.map_or(Program::Finish(arguments), Program::OwnHook);
        let is_hook = matches!(program, Program::OwnHook(_));
        let around = self.surroundings_now();
        let plan = allowed.map_err(LaunchError::from);
        let plan = plan.and_then(|()| self.plan(id, BTreeMap::new(), program, &around));
        let plan = plan.and_then(|mut plan| {
            if is_hook {
                self.tell_hook(id, POST_STOP, &mut plan)?;
                tell_end(&mut plan, exit, pid)?;
            }
            Ok(plan)
        });
        let started = plan.and_then(|plan| self.spawn(id, IncarnationId { name, n: incarnation }, plan));
        if let Err(error) = started {
            self.never_ran(id, incarnation, &error);
        }
    }

    /// What every hook is told.
    pub(in crate::daemon) fn tell_hook(
        &self,
        id: ServiceId,
        hook: &str,
        plan: &mut ChildPlan,
    ) -> Result<(), LaunchError> {
        let gateway = self.fleet.gateway(id).ok_or(LaunchError::Gone)?;
        let name = self.fleet.name(id).ok_or(LaunchError::Gone)?;
        for (variable, value) in [
            ("HERMES_SUP_HOOK", hook),
            ("HERMES_SUP_SERVICE", name.as_str()),
            ("HERMES_SUP_RESTARTS", &gateway.history().restarts.to_string()),
        ] {
            plan.set_env(variable, value)?;
        }
        Ok(())
    }

    /// What runs was started with another definition than the one that its next start has.
    pub(in crate::daemon) fn is_not_in_force(&self, id: ServiceId) -> bool {
        let runs = self.fleet.gateway(id).is_some_and(Gateway::has_tree);
        let differs =
            |service: &Service| service.in_force.is_some_and(|hash| hash != service.definition.hash);
        runs && self.services.get(&id).is_some_and(|service| differs(service))
    }

    /// Into its containment, within its limits.
    fn spawn(&mut self, id: ServiceId, life: IncarnationId, mut plan: ChildPlan) -> Result<(), LaunchError> {
        let service = self.services.get(&id).ok_or(LaunchError::Gone)?;
        let rung = service.definition.containment;
        let (limits, mut not_in_force) = self.topics.limits.of(service, &self.state_trust, inherited);
        process_limits::give(&mut plan, &limits);
        if plan.ksm {
            self.say_of_ksm();
        }
        let spawned = self.containment.spawn(&life, plan, rung, &limits);
        if self.containment.was_made_again() {
            slog::warn!(self.log, "somebody removed the cgroup of this supervisor: it is made again");
            if let Ok(note) = serde_json::to_value(note_to_successor(&self.containment, &self.options)) {
                self.store.commit_lazily(vec![Change::Boot(note)]);
            }
        }
        not_in_force.extend(spawned?);
        decide!(self.limits.begun(id, limits, not_in_force));
        if let Some(service) = self.services.get_mut(&id) {
            service.in_force = Some(service.definition.hash);
        }
        Ok(())
    }

    /// There is no process of this life, and there will be none.
    pub(in crate::daemon) fn never_ran(
        &mut self,
        id: ServiceId,
        incarnation: Incarnation,
        why: &LaunchError,
    ) {
        let reason = why.to_string();
        self.inbox.core(id, Event::SpawnFailed { incarnation, reason });
        self.inbox.core(id, Event::TreeEmpty { incarnation });
    }

    pub(in crate::daemon) fn plan(
        &mut self,
        id: ServiceId,
        file: BTreeMap<String, String>,
        program: Program,
        around: &Surroundings,
    ) -> Result<ChildPlan, LaunchError> {
        let definition = &self.services.get(&id).ok_or(LaunchError::Gone)?.definition;
        if definition.is_unread() {
            return Err(LaunchError::Unread);
        }
        let user = around.lookup(&definition.user)?;
        // A hook writes where the life writes that it belongs to.
        let ends = if matches!(program, Program::Hook(_)) {
            self.logs.child_ends(SourceId(id.0))
        } else {
            self.open_log(id, &user, around, None)?;
            self.logs.first_ends(SourceId(id.0))
        };
        let (stdout, stderr) = ends.map_err(LaunchError::Log)?;
        let definition = &self.services.get(&id).ok_or(LaunchError::Gone)?.definition;
        let null = self.null.try_clone().map_err(LaunchError::Null)?;
        let base = base(&self.options.environment, &user, around, &self.programs);
        let definition = expanded(definition, &base)?;
        let env = environment(base, &definition, &file);
        let mut plan = child_plan(&definition, &user, program, env, around, [null, stdout, stderr])?;
        if !self.socket.starts_with(RUNTIME_DIR) {
            // A service may have another home than we, in which its tools would look for us in vain.
            plan.set_env("HERMES_SUP_SOCKET", &self.socket.to_string_lossy())?;
        }
        plan.nofile = self.nofile;
        Ok(plan)
    }
}

/// What a program of a service is, whichever of them: a hook has no more than the main process.
fn child_plan(
    definition: &Definition,
    user: &User,
    program: Program,
    env: Environment<'_>,
    around: &Surroundings,
    streams: [OwnedFd; 3],
) -> Result<ChildPlan, LaunchError> {
    let directory = Some(definition.working_dir.as_os_str());
    let argv = argv(definition, user, program);
    let mut plan = ChildPlan::new(&argv, env, directory, streams)?;
    plan.umask = definition.umask;
    plan.identity = (around.own_uid == 0).then(|| user.credentials());
    plan.no_new_privs = definition.security.no_new_privs == Some(true);
    // Nobody but root can have made a slot that runs as root: it inherits, as under the s6 that it was made for.
    plan.may_gain = definition.security.no_new_privs == Some(false) || slots::is_roots(definition, around);
    plan.capabilities = privileges::masks(definition.security, user.uid)?;
    plan.ksm = definition.memory.ksm;
    plan.thp_disabled = definition.memory.thp_disabled;
    Ok(plan)
}

impl Supervisor {
    /// Where the service's output goes, made if it is not there. `main`: the main process of a life that goes on.
    ///
    /// # Errors
    /// [`LaunchError::Pipes`].
    pub(in crate::daemon) fn open_log(
        &mut self,
        id: ServiceId,
        user: &User,
        around: &Surroundings,
        main: Option<i32>,
    ) -> Result<(), LaunchError> {
        let Some(service) = self.services.get_mut(&id) else { return Ok(()) };
        let now = (service.definition.log, user.uid);
        if service.logged != Some(now) {
            let spec = log_spec(&service.definition, log_dir(service), user, around, &self.options);
            let no_pipes = |error| LaunchError::Pipes { dir: self.runtime_dir.clone(), error };
            self.logs.open_for(SourceId(id.0), spec, main).map_err(no_pipes)?;
            service.logged = Some(now);
        }
        Ok(())
    }
}

/// Which program of a service is to be executed.
pub(in crate::daemon) enum Program {
    Command,
    /// With its arguments.
    Finish([String; 4]),
    /// argv of a hook beside the main process.
    Hook(Vec<String>),
    /// argv of a hook in a tree of its own.
    OwnHook(Vec<String>),
}

const PRE_START: &str = "pre_start";
const POST_STOP: &str = "post_stop";

/// How the service ended, for the hook after that.
fn tell_end(plan: &mut ChildPlan, exit: Exit, pid: i32) -> Result<(), PlanError> {
    let code = if let Exit::Code(code) = exit { code.to_string() } else { String::new() };
    let signal = exit.signal().map(|signal| signal.to_string()).unwrap_or_default();
    plan.set_env("HERMES_SUP_EXIT_CODE", &code)?;
    plan.set_env("HERMES_SUP_EXIT_SIGNAL", &signal)?;
    plan.set_env("HERMES_SUP_EXIT_REASON", &exit.to_string())?;
    plan.set_env(MAIN_PID, &pid.to_string())
}

/// What is executed: the command, or a slot's script, which lies below /run, where no disk hangs.
fn argv(definition: &Definition, user: &User, program: Program) -> Vec<OsString> {
    let script = |slot: &resolved::Slot, name| script::command(&slot.dir, name, &user.credentials());
    match (&definition.slot, program) {
        (_, Program::Hook(argv) | Program::OwnHook(argv)) => argv.into_iter().map(OsString::from).collect(),
        (Some(slot), Program::Command) if slots::is_run(definition) => {
            let is_gateway = matches!(definition.origin, Origin::Profile { .. });
            let named = definition.name.as_str() != DEFAULT_PROFILE;
            let changed = || script::with_its_own_takeover(&slot.dir, &user.credentials(), named);
            is_gateway.then(changed).flatten().unwrap_or_else(|| script(slot, "run"))
        }
        (Some(slot), Program::Finish(arguments)) => {
            script(slot, "finish").into_iter().chain(arguments.map(OsString::from)).collect()
        }
        (_, Program::Command) | (None, Program::Finish(_)) => {
            definition.command.iter().map(OsString::from).collect()
        }
    }
}

/// Whether it may be started as its definition says, and the variables of its env files and secrets.
fn look_before_start(
    definition: &Definition,
    around: &Surroundings,
) -> Result<BTreeMap<String, String>, LaunchError> {
    slots::check_root(definition, around)?;
    let user = around.lookup(&definition.user)?;
    Ok(read_files(definition, &user, around)?)
}

/// Whose the log files of a service of this user are: below home they are the gateway user's, whatever user the service runs as.
pub(in crate::daemon) fn log_owner(user: &User, around: &Surroundings) -> Credentials {
    if around.own_uid == 0 { around.gateway.credentials() } else { user.credentials() }
}

fn log_spec(
    definition: &Definition,
    dir: std::path::PathBuf,
    user: &User,
    around: &Surroundings,
    options: &Options,
) -> LogSpec {
    let policy = &definition.log;
    let owner = log_owner(user, around);
    // Root reads everything, and its group is for nobody else.
    let readers = (user.uid != 0 && user.uid != owner.uid && user.gid != 0).then_some(user.gid);
    let dress = match (options.log_format, policy.prefix.unwrap_or(options.log_prefix)) {
        (LogFormat::Json, _) => Dress::Json,
        (LogFormat::Text, true) => Dress::Prefix,
        (LogFormat::Text, false) => Dress::Plain,
    };
    LogSpec {
        name: definition.name.clone(),
        home: around.home.clone(),
        dir,
        max_size: policy.max_size,
        keep: policy.keep,
        to_container: policy.to_container,
        dress,
        overflow: policy.overflow,
        owner,
        readers,
        writer: user.credentials(),
    }
}

pub(in crate::daemon) fn dev_null() -> io::Result<OwnedFd> {
    Ok(rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::load;
    use crate::definition::programs::Programs;
    use crate::sys::spawn::plan::CapabilityMasks;
    use crate::sys::users::nameless;
    use std::os::unix::fs::{PermissionsExt, chown};
    use std::path::PathBuf;

    /// A hook of root's definition must not find what the gateway user has put into a directory of the PATH, nor have what the
    /// definition does not give.
    #[test]
    fn a_hook_of_root_has_the_path_and_the_rights_of_its_service() {
        if !rustix::process::geteuid().is_root() {
            return; // Definitions that may name root are root's to make; the host tier runs this as root.
        }
        let root = tempfile::tempdir_in("/run").unwrap();
        let dir = |name: &str, owner: u32| {
            let dir = root.path().join(name);
            std::fs::create_dir(&dir).unwrap();
            chown(&dir, Some(owner), Some(owner)).unwrap();
            dir
        };
        std::fs::set_permissions(root.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let (services, his, home) = (dir("services", 0), dir("his", 10000), dir("home", 10000));
        let planted = his.join("tool");
        std::fs::write(&planted, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(&planted, PermissionsExt::from_mode(0o755)).unwrap();
        let text = "command = [\"tool\"]\nuser = \"root\"\n[hooks]\nmemory_high = [\"tool\"]\n";
        std::fs::write(services.join("rooted.toml"), text).unwrap();
        let around = Surroundings { home, gateway: nameless(10000, 10000), own_uid: 0 };
        let loaded = load(&[services], &around);
        let definition = loaded.services.values().next().expect("it is right");
        let user = around.lookup(&definition.user).unwrap();
        let path = format!("{}:/usr/bin", his.display());
        let inherited = BTreeMap::from([(OsString::from("PATH"), OsString::from(path))]);
        let (file, programs) = (BTreeMap::new(), Programs::default());
        for program in [Program::Command, Program::Hook(vec!["tool".to_owned()])] {
            let env = environment(base(&inherited, &user, &around, &programs), definition, &file);
            let streams = std::array::from_fn(|_| dev_null().unwrap());
            let plan = child_plan(definition, &user, program, env, &around, streams).unwrap();
            let found: Vec<PathBuf> =
                plan.candidates().iter().map(|path| PathBuf::from(path.to_str().unwrap())).collect();
            assert_eq!(found, [PathBuf::from("/usr/bin/tool")]);
            assert!(plan.envp().iter().any(|variable| variable.as_bytes() == b"PATH=/usr/bin"));
            assert_eq!(plan.identity.as_ref().map(|who| who.uid), Some(0));
            assert!(plan.no_new_privs && !plan.may_gain);
            assert_eq!(plan.capabilities, Some(CapabilityMasks { bounding: 0, ambient: 0 }));
        }
    }
}
