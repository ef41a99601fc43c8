//! The s6 surface: an image that was made for s6-overlay, with the supervisor in its place.

mod gateways;
mod image_services;
mod marks;
mod random;
mod scripts;
mod trust;

use crate::harness::setup::HERMES;
use crate::harness::{Answer, Place, Rung, Setup, Supervisor, World, wait};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

/// A gateway that does nothing but say how it was called.
const HERMES_PROGRAM: &str = "#!/bin/sh\necho \"hermes $*\"\nexec /adversary pause MARK\n";
const SOURCES: &str = "/etc/s6-overlay/s6-rc.d";

fn setup(rung: Rung, place: Place) -> Setup {
    Setup::new(rung, place)
        .env("HERMES_SUP_S6_SURFACE", "1")
        .env("HERMES_HOME", "/opt/data")
        .env("PATH", "/opt/bin:/usr/bin:/bin")
}

/// PID 1 with this main program.
fn init(words: &[&str]) -> Setup {
    setup(Rung::Cgroup, Place::Pid1).main_program(words)
}

fn idle() -> Setup {
    init(&["/adversary", "hold"])
}

/// A program of root's. `MARK` in it becomes the mark of the world.
fn script(world: &World, path: &str, text: &str) -> PathBuf {
    let path = world.write(path, text.replace("MARK", &world.mark));
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("a mode");
    path
}

/// A world with a `hermes` and the profile `coder` beside the root one.
fn world(setup: Setup) -> World {
    let world = World::new(setup);
    script(&world, "/opt/bin/hermes", HERMES_PROGRAM);
    world.write_as_hermes("/opt/data/profiles/coder/SOUL.md", "soul");
    world
}

/// A long-run of the image: its files, `run` and `finish` being programs.
fn longrun(world: &World, name: &str, files: &[(&str, &str)]) {
    world.write(&format!("{SOURCES}/user/contents.d/{name}"), "");
    world.write(&format!("{SOURCES}/{name}/type"), "longrun\n");
    for (file, text) in files {
        let path = format!("{SOURCES}/{name}/{file}");
        match *file {
            "run" | "finish" => drop(script(world, &path, text)),
            _ => drop(world.write(&path, text)),
        }
    }
}

/// A shell of the gateway user beside the supervisor.
fn shell(world: &World, supervisor: &Supervisor, text: &str) -> Answer {
    world.exec(supervisor, HERMES, &["/bin/sh", "-ec", &text.replace("MARK", &world.mark)])
}

fn services(world: &World) -> Vec<String> {
    world.ctl(&["list"]).ok().lines().map(str::to_owned).collect()
}

#[track_caller]
fn wait_service(world: &World, name: &str, there: bool) {
    wait::until(&format!("'{name}' to be there: {there}"), &world.path("/run/service"), || {
        (services(world).iter().any(|known| known == name) == there).then_some(())
    });
}

/// As the Hermes CLI registers a gateway: built under a name with a dot, renamed, told.
const REGISTER: &str = r#"
cd /run/service
mkdir .gateway-$1.tmp .gateway-$1.tmp/log
cd .gateway-$1.tmp
echo longrun >type
cat >run <<'END'
#!/command/with-contenv sh
echo "uid $(id -u) in $PWD child=$HERMES_S6_SUPERVISED_CHILD"
exec /adversary pause MARK
END
printf '#!/bin/sh\ntouch /tmp/finish-ran\n' >finish
printf '#!/bin/sh\ntouch /tmp/logger-ran\n' >log/run
chmod 755 run finish log/run
[ "$2" = up ] || touch down
cd ..
mv .gateway-$1.tmp gateway-$1
"#;

fn register(world: &World, supervisor: &Supervisor, name: &str, want: &str, more: &str) -> Answer {
    let text = REGISTER.replace("$1", name).replace("$2", want);
    shell(world, supervisor, &format!("{text}\n{more}"))
}

const TELL: &str = "/command/s6-svscanctl -a /run/service";
