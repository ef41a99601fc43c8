//! Loading from real directories, and what hostile owners of files and directories try.
//!
//! These need root to give files to other users, and a directory that only root can write all the way from `/`; the
//! temporary directory is not one, `/run` is. Without root they are left to the tier that has it.

use super::{Loaded, find_cycle, load, load_file};
use crate::core::name::ServiceName;
use crate::definition::Diagnostic;
use crate::definition::environment::read_files;
use crate::definition::resolved::{Definition, EnvFile, RunAs, Secrets};
use crate::definition::template::Profile;
use crate::definition::trust::{Place, Trust};
use crate::definition::users::Surroundings;
use crate::sys::users::nameless;
use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

const GATEWAY: u32 = 10000;
const STRANGER: u32 = 10001;

/// A services directory of root's, and a home of the gateway user with one too.
struct Ground {
    _root: tempfile::TempDir,
    etc: PathBuf,
    home: PathBuf,
    services: PathBuf,
}

impl Ground {
    fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let root = tempfile::tempdir_in("/run").unwrap();
        mode(root.path(), 0o755);
        let (etc, home) = (root.path().join("etc"), root.path().join("home"));
        let services = home.join("services");
        for (dir, owner) in [(&etc, 0), (&home, GATEWAY), (&services, GATEWAY)] {
            std::fs::create_dir(dir).unwrap();
            give(dir, owner, 0o755);
        }
        Some(Self { _root: root, etc, home, services })
    }

    fn surroundings(&self) -> Surroundings {
        Surroundings { home: self.home.clone(), gateway: nameless(GATEWAY, GATEWAY), own_uid: 0 }
    }

    fn load(&self) -> Loaded {
        load(&[self.etc.clone(), self.services.clone()], &self.surroundings())
    }
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn give(path: &Path, owner: u32, bits: u32) {
    chown(path, Some(owner), Some(owner)).unwrap();
    mode(path, bits);
}

fn put(dir: &Path, name: &str, text: &str, owner: u32) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    give(&path, owner, 0o644);
    path
}

fn name(text: &str) -> ServiceName {
    ServiceName::new(text).unwrap()
}

fn names(loaded: &Loaded) -> Vec<&str> {
    loaded.services.keys().map(ServiceName::as_str).collect()
}

/// What was said about each file, by file name.
fn said(loaded: &Loaded) -> Vec<(String, String)> {
    let file = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    loaded.diagnostics.iter().map(|found| (file(&found.path), found.message.clone())).collect()
}

fn command(loaded: &Loaded, service: &str) -> String {
    loaded.services[&name(service)].command[0].clone()
}

#[test]
fn a_bad_file_is_reported_and_does_not_stop_the_others() {
    let Some(ground) = Ground::new() else { return };
    put(&ground.etc, "a.toml", "command = ['a']", 0);
    put(&ground.etc, "b.toml", "command = 1", 0);
    put(&ground.etc, "Bad.toml", "command = ['x']", 0);
    put(&ground.etc, "dashboard.toml", "command = ['x']", 0);
    put(&ground.etc, "latin.toml", "", 0);
    std::fs::write(ground.etc.join("latin.toml"), b"command = ['\xff']").unwrap();
    put(&ground.etc, "notes.txt", "not ours", 0);
    put(&ground.etc, ".b.toml", "an editor's", 0);
    put(&ground.services, "c.toml", "command = ['c']", GATEWAY);
    let dirs = [ground.etc.clone(), ground.home.join("nowhere"), ground.services.clone()];
    let loaded = load(&dirs, &ground.surroundings());
    assert_eq!(names(&loaded), ["a", "c"]);
    assert_eq!(loaded.broken.iter().map(ServiceName::as_str).collect::<Vec<_>>(), ["b", "latin"]);
    let files: Vec<String> = said(&loaded).into_iter().map(|(file, _)| file).collect();
    assert_eq!(files, ["Bad.toml", "b.toml", "dashboard.toml", "latin.toml"]);
    assert_eq!(loaded.unread, Vec::<PathBuf>::new(), "a directory that does not exist is no error");
}

#[test]
fn of_two_files_with_one_name_the_trusted_one_counts_even_when_it_is_bad_or_comes_later() {
    let Some(ground) = Ground::new() else { return };
    put(&ground.etc, "web.toml", "command = ['ours']", 0);
    put(&ground.etc, "bad.toml", "command = 1", 0);
    put(&ground.services, "web.toml", "command = ['theirs']", GATEWAY);
    put(&ground.services, "bad.toml", "command = ['theirs']", GATEWAY);
    for dirs in [[&ground.etc, &ground.services], [&ground.services, &ground.etc]] {
        let loaded = load(&dirs.map(Clone::clone), &ground.surroundings());
        assert_eq!(names(&loaded), ["web"]);
        assert_eq!(command(&loaded, "web"), "ours");
        let refused =
            said(&loaded).into_iter().filter(|(_, what)| what.contains("is already defined by")).count();
        assert_eq!(refused, 2);
    }
}

#[test]
fn a_user_is_named_only_by_what_nobody_but_root_can_change() {
    let Some(ground) = Ground::new() else { return };
    let root = "command = ['x']\nuser = 'root'";
    put(&ground.etc, "good.toml", root, 0);
    put(&ground.etc, "given.toml", root, STRANGER);
    mode(&put(&ground.etc, "writable.toml", root, 0), 0o664);
    put(&ground.services, "planted.toml", root, GATEWAY);
    put(&ground.services, "roots-own.toml", root, 0);
    let loaded = ground.load();
    assert_eq!(names(&loaded), ["good"]);
    assert_eq!(loaded.services[&name("good")].user, RunAs::Named("root".to_owned()));
    let refusal =
        "only a root-owned definition outside --home may name another user than the default one, '10000'";
    let home = format!("this one is below --home {}", ground.home.display());
    let expected = [
        ("given.toml", "this file is owned by uid 10001".to_owned()),
        ("writable.toml", "this file can be written by others (mode 664)".to_owned()),
        ("planted.toml", home.clone()),
        ("roots-own.toml", home),
    ];
    let expected = expected.map(|(file, why)| (file.to_owned(), format!("{refusal}; {why}")));
    assert_eq!(said(&loaded), expected);
}

#[test]
fn a_directory_that_others_can_change_taints_every_file_below_it() {
    let Some(ground) = Ground::new() else { return };
    let deep = ground.etc.join("deep");
    std::fs::create_dir(&deep).unwrap();
    put(&deep, "web.toml", "command = ['x']\nuser = 'root'", 0);
    let open = || load(std::slice::from_ref(&deep), &ground.surroundings());
    assert_eq!(names(&open()), ["web"]);
    for (dir, owner, bits, why) in [
        (&ground.etc, STRANGER, 0o755, "is owned by uid 10001"),
        (&ground.etc, 0, 0o777, "can be written by others (mode 777)"),
        (&ground.etc, 0, 0o1777, "can be written by others (mode 777)"),
        (&deep, 0, 0o775, "can be written by others (mode 775)"),
    ] {
        give(dir, owner, bits);
        let loaded = open();
        assert_eq!(names(&loaded), [""; 0]);
        assert!(
            said(&loaded)[0].1.ends_with(&format!("directory {} {why}", dir.display())),
            "{:?}",
            said(&loaded)
        );
        give(dir, 0, 0o755);
    }
}

#[test]
fn a_link_counts_only_where_nobody_else_could_have_planted_it() {
    let Some(ground) = Ground::new() else { return };
    put(&ground.etc, "web.toml", "command = ['x']\nuser = 'root'", 0);
    let ours = ground.etc.with_file_name("ours");
    symlink("etc/../etc", &ours).unwrap();
    assert_eq!(names(&load(&[ours], &ground.surroundings())), ["web"]);
    // A link of ours into the home is still the home.
    let into_home = ground.etc.with_file_name("into-home");
    symlink(&ground.services, &into_home).unwrap();
    put(&ground.services, "web.toml", "command = ['x']\nuser = 'root'", 0);
    let loaded = load(&[into_home], &ground.surroundings());
    assert!(said(&loaded)[0].1.contains("this one is below --home"), "{:?}", said(&loaded));
    // One that a stranger made, in a directory of the stranger's, is refused.
    let strange = ground.etc.with_file_name("strange");
    std::fs::create_dir(&strange).unwrap();
    symlink(&ground.etc, strange.join("link")).unwrap();
    give(&strange, STRANGER, 0o755);
    let loaded = load(&[strange.join("link")], &ground.surroundings());
    assert_eq!((names(&loaded), loaded.unread.len()), (vec![], 1));
    assert!(
        said(&loaded)[0].1.contains("is a symbolic link that others may have planted"),
        "{:?}",
        said(&loaded)
    );
    // A circle ends.
    let circle = ground.etc.with_file_name("circle");
    symlink(&circle, &circle).unwrap();
    assert!(Place::open(&circle, &ground.surroundings()).is_err());
}

#[test]
fn no_link_fifo_or_file_of_root_below_home_makes_us_read_what_the_gateway_user_could_not() {
    let Some(ground) = Ground::new() else { return };
    let secret = put(&ground.etc, "secret", "command = ['secret']", 0);
    mode(&secret, 0o600);
    symlink(&secret, ground.services.join("link.toml")).unwrap();
    std::fs::hard_link(&secret, ground.services.join("hard.toml")).unwrap();
    let fifo = ground.services.join("fifo.toml");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o644.into(), 0).unwrap();
    std::fs::create_dir(ground.services.join("dir.toml")).unwrap();
    put(&ground.services, "good.toml", "command = ['x']", GATEWAY);
    let loaded = ground.load();
    assert_eq!(names(&loaded), ["good"]);
    let all = format!("{:?}", loaded.diagnostics);
    assert!(!all.contains("secret']"), "{all}");
    let files: Vec<String> = said(&loaded).into_iter().map(|(file, _)| file).collect();
    assert_eq!(files, ["dir.toml", "fifo.toml", "hard.toml", "link.toml"]);
    assert!(all.contains("is a symbolic link; put the file itself here"), "{all}");

    // The services directory itself as a link out of the home.
    std::fs::rename(&ground.services, ground.home.join("old")).unwrap();
    symlink(&ground.etc, &ground.services).unwrap();
    let loaded = load(std::slice::from_ref(&ground.services), &ground.surroundings());
    assert_eq!((names(&loaded), loaded.unread.len()), (vec![], 1));
}

#[test]
fn what_a_stranger_put_below_home_does_not_become_the_gateway_users() {
    let Some(ground) = Ground::new() else { return };
    let text = "command = ['x']";
    put(&ground.services, "mine.toml", text, GATEWAY);
    put(&ground.services, "roots.toml", text, 0);
    put(&ground.services, "strangers.toml", text, STRANGER);
    mode(&put(&ground.services, "world.toml", text, GATEWAY), 0o666);
    let shared = put(&ground.services, "shared.toml", text, GATEWAY);
    mode(&shared, 0o664);
    let other_group = put(&ground.services, "group.toml", text, GATEWAY);
    chown(&other_group, None, Some(STRANGER)).unwrap();
    mode(&other_group, 0o664);
    let loaded = ground.load();
    assert_eq!(names(&loaded), ["mine", "roots", "shared"]);
    let said = said(&loaded);
    assert!(said[1].1.contains("belongs to uid 10001, not to '10000'"), "{said:?}");
    for (index, file) in [(0, "group.toml"), (2, "world.toml")] {
        assert_eq!(said[index].0, file);
        assert!(said[index].1.contains("can be written by others: chmod go-w it"), "{said:?}");
    }
    for (owner, bits) in [(STRANGER, 0o755), (GATEWAY, 0o777)] {
        give(&ground.services, owner, bits);
        let loaded = ground.load();
        assert_eq!(
            (names(&loaded), loaded.unread.as_slice()),
            (vec![], [ground.services.clone()].as_slice())
        );
    }
}

/// In an image without a user hermes, and on a host, the gateway user is root. What root alone can change is root's to run;
/// what somebody else can change must not be, wherever it lies and however harmless it looks.
#[test]
fn where_the_gateway_user_is_root_nothing_runs_that_somebody_else_can_change() {
    let Some(ground) = Ground::new() else { return };
    give(&ground.home, 0, 0o755);
    give(&ground.services, 0, 0o755);
    let around = Surroundings { gateway: nameless(0, 0), ..ground.surroundings() };
    let text = "command = ['x']";
    let dirs = [ground.etc.clone(), ground.services.clone()];
    for (dir, number) in [(&ground.etc, 0), (&ground.services, 1)] {
        put(dir, &format!("roots{number}.toml"), text, 0);
        put(dir, &format!("theirs{number}.toml"), text, STRANGER);
        mode(&put(dir, &format!("open{number}.toml"), text, 0), 0o666);
        // In OpenShift everybody is in root's group.
        mode(&put(dir, &format!("group{number}.toml"), text, 0), 0o664);
    }
    let loaded = load(&dirs, &around);
    assert_eq!(names(&loaded), ["roots0", "roots1"]);
    assert_eq!(said(&loaded).len(), 6, "{:?}", said(&loaded));
    let broken: Vec<&str> = loaded.broken.iter().map(ServiceName::as_str).collect();
    assert_eq!(broken, ["group0", "group1", "open0", "open1", "theirs0", "theirs1"]);
    put(&ground.etc, "gateway.toml", text, STRANGER);
    assert!(load(&dirs, &around).template.is_none());
    std::fs::remove_file(ground.etc.join("gateway.toml")).unwrap();

    // A directory on the way is as good as the file: its owner can put another in its place.
    for dir in [&ground.etc, &ground.services, &ground.home] {
        give(dir, STRANGER, 0o755);
        let left = names(&load(&dirs, &around)).len();
        assert_eq!(left, 1, "{}", dir.display());
        give(dir, 0, 0o755);
    }
    // But not a sticky one of root's, as /tmp is: there nobody can replace what is root's.
    let root = ground.etc.parent().unwrap();
    mode(root, 0o1777);
    assert_eq!(names(&load(&dirs, &around)), ["roots0", "roots1"]);
    mode(root, 0o777);
    assert_eq!(names(&load(&dirs, &around)), [""; 0]);
    mode(root, 0o755);

    let web = loaded.services[&name("roots0")].clone();
    let read = |path: &Path| {
        let env_files = vec![EnvFile { path: path.to_owned(), optional: false }];
        let definition = Definition { env_files, ..web.clone() };
        read_files(&definition, &around.gateway, &around)
            .map(|all| all.len())
            .map_err(|error| error.to_string())
    };
    assert_eq!(read(&put(&ground.etc, "env", "A=1", 0)), Ok(1));
    let theirs = read(&put(&ground.etc, "their.env", "LD_PRELOAD=/tmp/x.so", STRANGER)).unwrap_err();
    assert!(
        theirs.contains("may have been written by somebody else: this file is owned by uid 10001"),
        "{theirs}"
    );
}

/// The gateway user is not root, and still not the one who wrote it.
#[test]
fn what_a_stranger_can_change_does_not_run_as_the_gateway_user_either() {
    let Some(ground) = Ground::new() else { return };
    put(&ground.etc, "mine.toml", "command = ['x']", GATEWAY);
    put(&ground.etc, "theirs.toml", "command = ['x']", STRANGER);
    let loaded = ground.load();
    assert_eq!(names(&loaded), ["mine"]);
    let said = said(&loaded);
    assert!(
        said[0].1.starts_with("may have been written by somebody else: this file is owned by uid 10001;"),
        "{said:?}"
    );
}

/// kubelet shows a ConfigMap as links through `..data`, so that it can exchange all files at once.
fn config_map(dir: &Path, text: &str) {
    let version = dir.join("..2026_01_01");
    std::fs::create_dir(&version).unwrap();
    std::fs::write(version.join("web.toml"), text).unwrap();
    symlink("..2026_01_01", dir.join("..data")).unwrap();
    symlink("..data/web.toml", dir.join("web.toml")).unwrap();
}

#[test]
fn a_config_map_is_read_where_only_root_can_have_made_its_links() {
    let Some(ground) = Ground::new() else { return };
    config_map(&ground.etc, "command = ['x']\nuser = 'root'");
    assert_eq!(ground.load().services[&name("web")].user, RunAs::Named("root".to_owned()));
    // What the link leads to is judged too.
    give(&ground.etc.join("..2026_01_01/web.toml"), STRANGER, 0o644);
    assert_eq!(names(&ground.load()), [""; 0]);
    give(&ground.etc.join("..2026_01_01/web.toml"), 0, 0o644);
    // Links where the gateway user can make them, or everybody.
    for (owner, bits) in [(GATEWAY, 0o755), (0, 0o777), (0, 0o1777)] {
        give(&ground.etc, owner, bits);
        let loaded = ground.load();
        assert_eq!(names(&loaded), [""; 0]);
        assert!(
            said(&loaded)[0].1.contains("is a symbolic link; put the file itself here"),
            "{:?}",
            said(&loaded)
        );
    }
    give(&ground.etc, 0, 0o755);
    // A link out of root's directory into the home is believed as far as the home is.
    put(&ground.services, "in.toml", "command = ['in']", GATEWAY);
    put(&ground.services, "evil.toml.txt", "command = ['x']\nuser = 'root'", GATEWAY);
    symlink(ground.services.join("in.toml"), ground.etc.join("linked.toml")).unwrap();
    symlink(ground.services.join("evil.toml.txt"), ground.etc.join("evil.toml")).unwrap();
    let loaded = ground.load();
    assert_eq!(names(&loaded), ["in", "linked", "web"]);
    assert_eq!(loaded.services[&name("linked")].user, RunAs::Gateway);
    // A circle ends.
    symlink("circle.toml", ground.etc.join("circle.toml")).unwrap();
    assert_eq!(names(&ground.load()), ["in", "linked", "web"]);
}

#[test]
fn a_template_follows_the_same_rules_and_a_bad_one_is_not_replaced_silently() {
    let Some(ground) = Ground::new() else { return };
    let made = |loaded: &Loaded| {
        let coder = name("coder");
        let template = loaded.template.as_ref()?;
        template.gateway(&coder, &Profile::named(&coder), &ground.surroundings()).ok()
    };
    assert_eq!(made(&ground.load()).unwrap().command[..3], ["hermes", "-p", "coder"]);
    let own = "command = ['/bin/gw', '{profile}', '--in={home}']\nenv = { P = '{profile}{profile}' }";
    put(&ground.services, "gateway.toml", own, GATEWAY);
    let gateway: Definition = made(&ground.load()).unwrap();
    assert_eq!(gateway.command, ["/bin/gw", "coder", &format!("--in={}", ground.home.display())]);
    assert_eq!(gateway.env, BTreeMap::from([("P".to_owned(), "codercoder".to_owned())]));
    assert!(!ground.load().services.contains_key(&name("default")), "a template is never a service");
    put(&ground.services, "gateway.toml", &format!("{own}\nuser = 'root'"), GATEWAY);
    let loaded = ground.load();
    assert!(loaded.template.is_none());
    assert!(
        said(&loaded)[0].1.starts_with("only a root-owned definition outside --home may"),
        "{:?}",
        said(&loaded)
    );
    put(&ground.etc, "gateway.toml", &format!("{own}\nuser = '10001'"), 0);
    assert_eq!(made(&ground.load()).unwrap().user, RunAs::Named("10001".to_owned()));
}

#[test]
fn a_cycle_is_refused_at_the_file_that_closes_it_and_an_unknown_service_is_a_warning() {
    let Some(ground) = Ground::new() else { return };
    put(&ground.etc, "a.toml", "command = ['x']\nafter = ['b', 'coder', 'ghost']", 0);
    put(&ground.etc, "b.toml", "command = ['x']\nrequires = ['c']", 0);
    put(&ground.services, "c.toml", "command = ['x']\nafter = ['gateway-a', 'gateway-default']", GATEWAY);
    let loaded = ground.load();
    assert_eq!(names(&loaded), ["a", "b"]);
    let message = "these services wait for each other: c -> a -> b -> c; remove one 'after' or 'requires'";
    let expected = format!("{}:2:10: {message}", ground.services.join("c.toml").display());
    assert_eq!(loaded.diagnostics[0].headline(), expected);
    let missing: Vec<String> =
        loaded.dangling(|name| name.as_str() == "coder").into_iter().map(|warning| warning.message).collect();
    assert_eq!(missing, ["there is no service 'ghost'; 'after' has no effect until there is one"]);
}

#[test]
fn a_service_that_waits_for_itself_by_its_other_name_is_refused() {
    let Some(ground) = Ground::new() else { return };
    put(&ground.etc, "a.toml", "command = ['x']\nafter = ['gateway-a']", 0);
    put(&ground.etc, "gateway-b.toml", "command = ['x']\nafter = ['b']", 0);
    put(&ground.services, "b.toml", "command = ['x']\nafter = ['gateway-b']", GATEWAY);
    let loaded = ground.load();
    assert_eq!(names(&loaded), ["gateway-b"]);
    assert_eq!(loaded.diagnostics.len(), 2);
}

#[test]
fn a_cycle_is_found_however_long_it_is() {
    let chain: Vec<ServiceName> = (0..20_000).map(|n| name(&format!("s{n}"))).collect();
    let next: BTreeMap<_, _> = chain.iter().zip(chain.iter().skip(1).chain(chain.first())).collect();
    let cycle =
        find_cycle(&chain[0], |name| next.get(name).map(|next| vec![(*next).clone()]).unwrap_or_default());
    assert_eq!(cycle.unwrap().len(), 20_001);
    assert_eq!(find_cycle(&chain[0], |_| vec![chain[1].clone(), chain[2].clone()]), None);
}

#[test]
fn env_files_are_read_as_the_service_and_only_from_whom_it_may_trust() {
    let Some(ground) = Ground::new() else { return };
    let surroundings = ground.surroundings();
    put(&ground.etc, "web.toml", "command = ['x']", 0);
    let web = ground.load().services[&name("web")].clone();
    let read = |path: &Path, uid: u32| {
        let env_files = vec![EnvFile { path: path.to_owned(), optional: false }];
        let definition = Definition { env_files, ..web.clone() };
        let read = read_files(&definition, &nameless(uid, uid), &surroundings);
        read.map(|all| all.len()).map_err(|error| error.to_string())
    };
    let mine = put(&ground.home, ".env", "A=1\nB=2\n", GATEWAY);
    assert_eq!(read(&mine, GATEWAY), Ok(2));
    let refused = read(&mine, 0).unwrap_err();
    assert!(refused.contains("lies below --home, where only services of '10000' may read it"), "{refused}");

    let roots = put(&ground.etc, "env", "A=1\n", 0);
    assert_eq!((read(&roots, 0), read(&roots, STRANGER), read(&roots, GATEWAY)), (Ok(1), Ok(1), Ok(1)));
    mode(&roots, 0o600);
    assert!(read(&roots, GATEWAY).unwrap_err().contains("Permission denied"));
    assert!(read(&roots, STRANGER).unwrap_err().contains("Permission denied"));

    // Planted below home: by a stranger, as a link to something of root's, by a directory that is a link.
    let strangers = put(&ground.home, "strangers.env", "LD_PRELOAD=/tmp/x.so\n", STRANGER);
    assert!(read(&strangers, GATEWAY).unwrap_err().contains("belongs to uid 10001"));
    symlink(&roots, ground.home.join("link.env")).unwrap();
    assert!(read(&ground.home.join("link.env"), GATEWAY).unwrap_err().contains("is a symbolic link"));
    symlink(&ground.etc, ground.home.join("dir")).unwrap();
    assert!(read(&ground.home.join("dir/env"), GATEWAY).is_err());
    // By way of a link outside, the file below home is still judged as one below home.
    symlink(&strangers, ground.etc.join("out.env")).unwrap();
    assert!(read(&ground.etc.join("out.env"), GATEWAY).unwrap_err().contains("belongs to uid 10001"));
    assert!(read(&ground.etc.join("out.env"), 0).is_err());

    // For somebody else than the gateway user, only what that user or root has written.
    let foreign = put(&ground.etc, "foreign.env", "A=1\n", GATEWAY);
    assert!(read(&foreign, STRANGER).unwrap_err().contains("may have been written by somebody else"));
    let large = put(&ground.home, "large.env", &"A=1\n".repeat(1 << 19), GATEWAY);
    assert!(read(&large, GATEWAY).unwrap_err().contains("is larger than 1048576 bytes"));
    assert!(read(&ground.home.join("none.env"), GATEWAY).unwrap_err().contains("No such file"));
}

/// A secret of Docker or Kubernetes is root's, and its service is not.
#[test]
fn secrets_are_read_as_root_where_root_says_so_and_otherwise_as_the_service() {
    let Some(ground) = Ground::new() else { return };
    let surroundings = ground.surroundings();
    put(&ground.etc, "web.toml", "command = ['x']", 0);
    let web = ground.load().services[&name("web")].clone();
    let read = |path: &Path, ours: bool| {
        let secrets = Secrets { files: [("TOKEN".to_owned(), path.to_owned())].into(), ours };
        let definition = Definition { secrets: Some(Box::new(secrets)), ..web.clone() };
        let read = read_files(&definition, &nameless(GATEWAY, GATEWAY), &surroundings);
        read.map(|all| all["TOKEN"].clone()).map_err(|error| error.to_string())
    };
    let roots = put(&ground.etc, "token", "s3cret\n", 0);
    mode(&roots, 0o600);
    assert_eq!(read(&roots, true).as_deref(), Ok("s3cret"));
    let refused = read(&roots, false).unwrap_err();
    assert!(refused.starts_with("secret TOKEN: ") && refused.contains("Permission denied"), "{refused}");
    // docker compose mounts a file of its owner outside.
    let foreign = put(&ground.etc, "foreign", "theirs", STRANGER);
    mode(&foreign, 0o600);
    assert_eq!(read(&foreign, true).as_deref(), Ok("theirs"));
    mode(&foreign, 0o666);
    assert!(read(&foreign, true).unwrap_err().contains("may have been written by somebody else"));
    // Below home nobody reads with more than its own rights, by whatever way.
    let link = ground.home.join("link");
    symlink(&roots, &link).unwrap();
    assert!(read(&link, true).unwrap_err().contains("symbolic link"));
    std::fs::hard_link(&roots, ground.home.join("hard")).unwrap();
    assert!(read(&ground.home.join("hard"), true).unwrap_err().contains("Permission denied"));
    let large = put(&ground.etc, "large", &"x".repeat((64 << 10) + 1), 0);
    assert!(read(&large, true).unwrap_err().contains("is larger than 65536 bytes"));
}

#[test]
fn one_file_is_as_many_services_as_it_says() {
    let Some(ground) = Ground::new() else { return };
    let text = |count: u32| {
        format!("instances = {count}\ncommand = ['work', '--number={{instance}}', '{{profile}}']")
    };
    put(&ground.etc, "worker.toml", &text(2), 0);
    put(&ground.etc, "web.toml", "command = ['{instance}']\nrequires = ['worker']\nafter = ['queue']", 0);
    put(&ground.etc, "queue@.toml", "command = ['queue', '{instance}']", 0);
    put(&ground.etc, "queue@high.toml", "# as the others\n", 0);
    put(&ground.etc, "queue@low.toml", "command = ['low']", 0);
    let loaded = ground.load();
    assert_eq!(loaded.diagnostics, [], "nothing is wrong");
    assert_eq!(names(&loaded), ["queue@high", "queue@low", "web", "worker@1", "worker@2"]);
    let services = &loaded.services;
    assert_eq!(services[&name("worker@2")].command, ["work", "--number=2", "{profile}"]);
    assert_eq!(services[&name("queue@high")].command, ["queue", "high"]);
    let web = &services[&name("web")];
    assert_eq!(web.command, ["{instance}"], "it is none");
    assert_eq!(web.requires, [name("worker@1"), name("worker@2")]);
    assert_eq!(web.after, ["queue@high", "queue@low", "worker@1", "worker@2"].map(name));
    assert!(loaded.dangling(|_| false).is_empty());
    // More of them make none of them another one.
    let hash = services[&name("worker@2")].hash;
    assert_ne!(hash, services[&name("worker@1")].hash);
    put(&ground.etc, "worker.toml", &text(12), 0);
    assert_eq!(ground.load().services[&name("worker@2")].hash, hash);
}

#[test]
fn what_is_wrong_with_instances_is_said_once() {
    let Some(ground) = Ground::new() else { return };
    put(&ground.etc, "worker.toml", "instances = 3\ncommand = ['work']", 0);
    put(&ground.etc, "worker@2.toml", "command = ['mine']", 0);
    put(&ground.etc, "a.toml", "instances = 2\ncommand = ['a']\nafter = ['b']", 0);
    put(&ground.etc, "b.toml", "instances = 2\ncommand = ['b']\nafter = ['a']", 0);
    put(&ground.etc, "many.toml", "instances = 257\ncommand = ['many']", 0);
    put(&ground.etc, "none@.toml", "command = []", 0);
    put(&ground.etc, "supervisor@1.toml", "command = ['x']", 0);
    let loaded = ground.load();
    let said: Vec<String> = loaded.diagnostics.iter().map(Diagnostic::headline).collect();
    for expected in [
        "b.toml:3:10: these services wait for each other: b",
        "many.toml:1:13: 'instances' is out of range; allowed: 1 to 256",
        "none@.toml:1:11: 'command' names no program",
        "supervisor@1.toml: 'supervisor@1' is reserved",
        "worker@2.toml: is one of the instances of another file; remove one of both",
    ] {
        assert!(said.iter().any(|line| line.contains(expected)), "{expected}: {said:#?}");
    }
    assert_eq!(said.len(), 5, "{said:#?}");
    assert_eq!(names(&loaded), ["a@1", "a@2", "worker@1", "worker@2", "worker@3"]);
    assert_eq!(command(&loaded, "worker@2"), "work");
}

#[test]
fn an_env_file_with_a_question_mark_may_be_missing() {
    let Some(ground) = Ground::new() else { return };
    let surroundings = ground.surroundings();
    put(&ground.etc, "web.toml", "command = ['x']", 0);
    let web = ground.load().services[&name("web")].clone();
    let (first, second) = (put(&ground.etc, "a.env", "A=1\nB=1", 0), put(&ground.etc, "b.env", "B=2", 0));
    let read = |files: &[(&Path, bool)]| {
        let file =
            |(path, optional): &(&Path, bool)| EnvFile { path: path.to_path_buf(), optional: *optional };
        let definition = Definition { env_files: files.iter().map(file).collect(), ..web.clone() };
        read_files(&definition, &nameless(GATEWAY, GATEWAY), &surroundings).map_err(|error| error.to_string())
    };
    let none = ground.etc.join("none.env");
    let all = read(&[(&first, false), (&none, true), (&second, true)]).unwrap();
    assert_eq!(all, [("A", "1"), ("B", "2")].map(|(key, value)| (key.to_owned(), value.to_owned())).into());
    assert!(read(&[(&none, false)]).unwrap_err().contains("No such file"));
    // It is there, and wrong.
    let bad = put(&ground.etc, "bad.env", "oops", 0);
    assert!(read(&[(&bad, true)]).unwrap_err().contains("is not an assignment"));
}

#[test]
fn one_file_is_read_as_it_would_be_in_its_place() {
    let Some(ground) = Ground::new() else { return };
    let surroundings = ground.surroundings();
    let web = put(&ground.etc, "web.toml", "command = ['x']\nuser = 'root'", 0);
    let loaded = load_file(&web, &surroundings).unwrap();
    assert_eq!((names(&loaded), loaded.diagnostics.len()), (vec!["web"], 0));
    assert_eq!(Place::open(&ground.etc, &surroundings).unwrap().trust(), &Trust::Trusted);
    assert!(load_file(&ground.home.join("none/web.toml"), &surroundings).is_err());
}

/// Two files of 55 kB with thousands of names each took ten seconds: the place of each name was looked for from the beginning of the
/// text. Counted in names, not in seconds: no more than a few of them have their place looked for.
#[test]
fn of_thousands_of_names_that_do_not_exist_a_few_are_shown() {
    let Some(ground) = Ground::new() else { return };
    let names: Vec<String> = (0..6_800).map(|n| format!("\"n{n}\"")).collect();
    let text = format!("command = ['true']\nafter = [{}]\n", names.join(", "));
    for name in ["a", "b", "c"] {
        std::fs::write(ground.etc.join(format!("{name}.toml")), &text).unwrap();
    }
    let loaded = ground.load();
    assert_eq!(loaded.services.len(), 3, "{:?}", loaded.diagnostics);
    let dangling = loaded.dangling(|_| false);
    assert_eq!(dangling.len(), 3 * 20);
    assert!(dangling[0].headline().contains("a.toml:2:10: there is no service 'n0'"), "{}", dangling[0]);
}
