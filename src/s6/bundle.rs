//! What an s6-overlay image wants to run besides its CMD: the long-runs of the `user` bundle in s6-rc's source format,
//! the older `/etc/services.d`, and the scripts of `/etc/cont-init.d`.
//!
//! These directories are the image's own, and links in them are followed as s6-rc-compile does. Whether a service may
//! run as root is still judged from its directory (`scan`, `slot`). Nothing is compiled: oneshots are refused with a
//! warning, because their `up` is a line of execline and no program.

use super::slot::slot_name;
use crate::core::name::GATEWAY_PREFIX;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// s6-overlay 3: the sources of the image's services.
pub const SOURCES: &str = "/etc/s6-overlay/s6-rc.d";
/// s6-overlay 1 and 2, still served by 3 after all others.
pub const LEGACY: &str = "/etc/services.d";
pub const CONT_INIT: &str = "/etc/cont-init.d";

/// The bundles that s6-overlay starts: the image's, and what is to come after it.
const TOP: [&str; 2] = ["user", "user2"];
/// s6-overlay's own steps, which a service may depend on: for us they are over before any service starts.
const OWN_STEPS: [&str; 4] = ["base", "fix-attrs", "legacy-cont-init", "legacy-services"];
/// More names in one list are not read.
const MOST_NAMES: usize = 10_000;
/// Largest one-line file or list, in bytes.
const MOST_BYTES: u64 = 1 << 20;

/// One long-run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub name: String,
    /// Its service directory.
    pub dir: PathBuf,
    /// Names of other members that have to be up before it. Sorted.
    pub depends_on: Vec<String>,
}

/// Long-runs by name, and what was left out and why.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Bundle {
    pub members: Vec<Member>,
    pub warnings: Vec<String>,
}

/// Reads the bundles `user` and `user2` below `sources`, and the directories in `legacy`. A directory that is missing
/// holds nothing.
pub fn read(sources: &Path, legacy: &Path) -> Bundle {
    let mut reader = Reader::new(sources);
    for top in TOP {
        for name in reader.contents(&sources.join(top), "contents") {
            reader.add(&name, top, true);
        }
    }
    reader.legacy(legacy);
    let mut bundle = reader.bundle;
    let names: BTreeSet<_> = reader.found.keys().cloned().collect();
    bundle.members = reader.found.into_values().collect();
    for member in &mut bundle.members {
        member.depends_on.retain(|name| names.contains(name));
    }
    bundle
}

/// The services in `sources` that the bundles start, of whatever kind.
pub(crate) fn named(sources: &Path) -> BTreeSet<String> {
    let mut reader = Reader::new(sources);
    let pipelines = pipelines(sources);
    let mut named = BTreeSet::new();
    let mut left: Vec<String> = TOP.map(str::to_owned).into();
    while let Some(name) = left.pop() {
        let dir = sources.join(&name);
        let mut others = pipelines.get(&name).cloned().unwrap_or_default();
        for list in ["contents", "dependencies"] {
            others.extend(reader.contents(&dir, list));
        }
        left.extend(others.into_iter().filter(|other| named.insert(other.clone())));
    }
    named
}

/// The services of each pipeline below `sources`, by its name, which the last of them says: it can be named like a bundle
/// (s6-rc-compile, "pipeline-name").
fn pipelines(sources: &Path) -> BTreeMap<String, Vec<String>> {
    let mut found = BTreeMap::new();
    for last in names(sources).unwrap_or_default() {
        let Ok(pipeline) = first_line(&sources.join(&last).join("pipeline-name")) else { continue };
        let mut members: Vec<String> = vec![last.to_string_lossy().into_owned()];
        let mut at = 0;
        while let Some(member) = members.get(at).filter(|_| members.len() < MOST_NAMES) {
            let new = producers(&sources.join(member));
            let new: Vec<String> = new.into_iter().filter(|name| !members.contains(name)).collect();
            members.extend(new);
            at += 1;
        }
        found.insert(pipeline, members);
    }
    found
}

/// What the service `dir` depends on, bundles expanded, and what is wrong with those lists.
pub(crate) fn depends_on(sources: &Path, dir: &Path) -> (Vec<String>, Vec<String>) {
    let mut reader = Reader::new(sources);
    let names = reader.dependencies(dir);
    (names, reader.bundle.warnings)
}

/// The scripts of `dir` in the order of the C locale, names that begin with a dot left out. A directory that is missing
/// holds none. Every entry is one: s6-overlay runs each by its path, and one that is no program fails.
///
/// # Errors
/// As getdents64(2).
pub fn scripts(dir: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(names(dir)?.into_iter().map(|name| dir.join(name)).collect())
}

struct Reader<'a> {
    sources: &'a Path,
    /// Those of `sources`, read when the first one may be meant.
    pipelines: Option<BTreeMap<String, Vec<String>>>,
    found: BTreeMap<String, Member>,
    bundle: Bundle,
}

impl<'a> Reader<'a> {
    fn new(sources: &'a Path) -> Self {
        Self { sources, pipelines: None, found: BTreeMap::new(), bundle: Bundle::default() }
    }
    fn warn(&mut self, path: &Path, what: &str) {
        let warning = format!("{}: {what}", path.display());
        // Several services may name what is left out.
        if !self.bundle.warnings.contains(&warning) {
            self.bundle.warnings.push(warning);
        }
    }

    /// Takes in what `parent` names, and, as s6-rc does, whatever that depends on.
    fn add(&mut self, name: &str, parent: &str, expand: bool) {
        // Each name once, so that dependencies in a circle come to an end here.
        let mut left = vec![(name.to_owned(), parent.to_owned(), expand)];
        while let Some((name, parent, expand)) = left.pop() {
            if OWN_STEPS.contains(&name.as_str()) || self.found.contains_key(&name) {
                continue;
            }
            let dir = self.sources.join(&name);
            if !dir.is_dir() {
                if let Some(members) =
                    self.pipelines.get_or_insert_with(|| pipelines(self.sources)).get(&name)
                {
                    left.extend(members.iter().map(|member| (member.clone(), name.clone(), true)));
                    continue;
                }
                self.warn(&dir, &format!("is no directory, though '{parent}' names it"));
                continue;
            }
            match first_line(&dir.join("type")).as_deref() {
                Ok("longrun") => {
                    if let Some(producer) = consumes(&dir) {
                        self.warn(&dir.join("consumer-for"), &format!("'{name}' reads the output of {producer}, which the supervisor keeps itself: left out"));
                        continue;
                    }
                    let depends_on = self.dependencies(&dir);
                    left.extend(depends_on.iter().map(|other| (other.clone(), name.clone(), true)));
                    self.found.insert(name.clone(), Member { name, dir, depends_on });
                }
                Ok("oneshot") => {
                    self.warn(&dir.join("up"), &format!("'{name}' is a oneshot of s6-rc, which is not supported: put a script into /etc/cont-init.d"));
                }
                Ok("bundle") if expand => {
                    let members = self.contents(&dir, "contents");
                    left.extend(members.into_iter().map(|member| (member, name.clone(), false)));
                }
                Ok("bundle") => {
                    self.warn(&dir, &format!("is a bundle in the bundle '{parent}': name its members there"));
                }
                Ok(_) => self.warn(&dir.join("type"), "is not known; allowed: longrun, oneshot, bundle"),
                Err(error) => self.warn(&dir.join("type"), &format!("cannot be read: {error}")),
            }
        }
    }

    /// The services that `dir` names in `dependencies.d`; of a bundle, its members.
    fn dependencies(&mut self, dir: &Path) -> Vec<String> {
        let mut all = BTreeSet::new();
        for name in self.contents(dir, "dependencies") {
            let other = self.sources.join(&name);
            if first_line(&other.join("type")).is_ok_and(|kind| kind == "bundle") {
                all.extend(self.contents(&other, "contents"));
            } else {
                all.insert(name);
            }
        }
        all.into_iter().filter(|name| !OWN_STEPS.contains(&name.as_str())).collect()
    }

    /// The names in the directory `LIST.d`, or one a line in the file LIST, which is the older form.
    fn contents(&mut self, dir: &Path, list: &str) -> Vec<String> {
        let place = dir.join(format!("{list}.d"));
        let read = if place.is_dir() {
            names(&place)
        } else {
            text(&dir.join(list)).map(|text| {
                let lines = text.lines().map(str::trim);
                lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(OsString::from).collect()
            })
        };
        let found = match read {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                self.warn(&place, &format!("cannot be read: {error}"));
                Vec::new()
            }
        };
        self.checked(&place, found)
    }

    fn checked(&mut self, place: &Path, names: Vec<OsString>) -> Vec<String> {
        let mut good = Vec::new();
        for name in names.iter().take(MOST_NAMES) {
            match slot_name(name) {
                Ok(name) => good.push(name.to_owned()),
                Err(error) => self.warn(place, &error.to_string()),
            }
        }
        good
    }

    fn legacy(&mut self, dir: &Path) {
        let found = match names(dir) {
            Ok(found) => found,
            Err(error) => {
                self.warn(dir, &format!("cannot be read: {error}"));
                return;
            }
        };
        for name in self.checked(dir, found) {
            let service = dir.join(&name);
            if !service.is_dir() {
                continue;
            }
            if name.starts_with(GATEWAY_PREFIX) {
                self.warn(&service, "has the name of a gateway's slot: rename it");
            } else if let Some(first) = self.found.get(&name) {
                let first = first.dir.display().to_string();
                self.warn(&service, &format!("is already defined by {first}; remove one"));
            } else {
                self.found.insert(name.clone(), Member { name, dir: service, depends_on: Vec::new() });
            }
        }
    }
}

/// What the long-run's standard input comes from, if it is the second half of a pipeline.
fn consumes(dir: &Path) -> Option<String> {
    let producers = producers(dir);
    (!producers.is_empty()).then(|| producers.join(", "))
}

/// Whose output the service reads.
fn producers(dir: &Path) -> Vec<String> {
    let producers = text(&dir.join("consumer-for")).unwrap_or_default();
    producers.split_whitespace().map(str::to_owned).collect()
}

/// Names in the directory, sorted, without those that begin with a dot; none if it is missing.
pub(crate) fn names(dir: &Path) -> io::Result<Vec<OsString>> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries.take(MOST_NAMES) {
        let name = entry?.file_name();
        if !name.as_encoded_bytes().starts_with(b".") {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn first_line(path: &Path) -> io::Result<String> {
    Ok(text(path)?.lines().next().unwrap_or_default().trim().to_owned())
}

/// A FIFO in the place of a file would wait for ever without O_NONBLOCK.
pub(crate) fn text(path: &Path) -> io::Result<String> {
    let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    let file = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "is not a regular file"));
    }
    let mut text = String::new();
    file.take(MOST_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MOST_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("is larger than {MOST_BYTES} bytes"),
        ));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Image(tempfile::TempDir);

    impl Image {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn put(&self, path: &str, text: &str) -> &Self {
            let path = self.0.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
            self
        }

        fn read(&self) -> (Vec<(String, Vec<String>)>, Vec<String>) {
            let bundle = read(&self.0.path().join("rc"), &self.0.path().join("services.d"));
            let prefix = format!("{}/", self.0.path().display());
            let members = bundle.members.into_iter().map(|member| (member.name, member.depends_on));
            let warnings = bundle.warnings.iter().map(|line| line.replace(&prefix, ""));
            (members.collect(), warnings.collect())
        }
    }

    fn members(list: &[(&str, &[&str])]) -> Vec<(String, Vec<String>)> {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        list.iter().map(|(name, needs)| ((*name).to_owned(), owned(needs))).collect()
    }

    /// The name of a pipeline stood in the bundle, as s6-overlay's README shows it, and none of its services was started.
    #[test]
    fn the_name_of_a_pipeline_stands_for_its_services() {
        let image = Image::new();
        image
            .put("rc/user/contents.d/app-pipeline", "")
            .put("rc/app/type", "longrun\n")
            .put("rc/app/producer-for", "app-log\n")
            .put("rc/app-log/type", "longrun\n")
            .put("rc/app-log/consumer-for", "app\n")
            .put("rc/app-log/pipeline-name", "app-pipeline\n");
        let (found, warnings) = image.read();
        assert_eq!(found, members(&[("app", &[])]));
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains("'app-log' reads the output of app"), "{warnings:?}");
        let named = named(&image.0.path().join("rc"));
        assert!(["app", "app-log"].iter().all(|name| named.contains(*name)), "{named:?}");
    }

    /// Contract: 23.
    #[test]
    fn the_long_runs_of_the_user_bundle_with_their_order() {
        let image = Image::new();
        image
            .put("rc/user/type", "bundle\n")
            .put("rc/user/contents.d/main-hermes", "")
            .put("rc/user/contents.d/dashboard", "")
            .put("rc/user2/contents.d/late", "")
            .put("rc/main-hermes/type", "longrun\n")
            .put("rc/main-hermes/dependencies.d/base", "")
            .put("rc/dashboard/type", "longrun\n")
            .put("rc/dashboard/dependencies.d/db", "")
            .put("rc/db/type", "longrun")
            .put("rc/late/type", "longrun")
            .put("rc/late/dependencies.d/group", "")
            .put("rc/group/type", "bundle")
            .put("rc/group/contents", "# the older form\ndashboard\n\nmain-hermes\n")
            .put("rc/not-in-a-bundle/type", "longrun")
            .put("services.d/old/run", "")
            .put("services.d/README", "");
        let expected = members(&[
            ("dashboard", &["db"]),
            ("db", &[]),
            ("late", &["dashboard", "main-hermes"]),
            ("main-hermes", &[]),
            ("old", &[]),
        ]);
        assert_eq!(image.read(), (expected, vec![]));
    }

    #[test]
    fn what_cannot_be_run_is_left_out_and_named() {
        let image = Image::new();
        image
            .put("rc/user/contents.d/web", "")
            .put("rc/user/contents.d/migrate", "")
            .put("rc/user/contents.d/web-log", "")
            .put("rc/user/contents.d/missing", "")
            .put("rc/user/contents.d/odd", "")
            .put("rc/user/contents.d/typeless", "")
            .put("rc/user/contents.d/inner", "")
            .put("rc/web/type", "longrun\n")
            .put("rc/web/dependencies.d/migrate", "")
            .put("rc/migrate/type", "oneshot\n")
            .put("rc/migrate/up", "/bin/true\n")
            .put("rc/web-log/type", "longrun\n")
            .put("rc/web-log/consumer-for", "web\n")
            .put("rc/odd/type", "daemon\n")
            .put("rc/typeless/run", "")
            .put("rc/inner/type", "bundle")
            .put("rc/inner/contents.d/innermost", "")
            .put("rc/innermost/type", "bundle")
            .put("services.d/web/run", "")
            .put("services.d/gateway-x/run", "");
        let (found, mut warnings) = image.read();
        assert_eq!(found, members(&[("web", &[])]));
        warnings.sort();
        let named: Vec<&str> = warnings.iter().filter_map(|line| line.split(':').next()).collect();
        let expected = [
            "rc/innermost",
            "rc/migrate/up",
            "rc/missing",
            "rc/odd/type",
            "rc/typeless/type",
            "rc/web-log/consumer-for",
            "services.d/gateway-x",
            "services.d/web",
        ];
        assert_eq!(named, expected, "{warnings:#?}");
    }

    #[test]
    fn a_circle_of_dependencies_comes_to_an_end_and_no_image_holds_nothing() {
        let image = Image::new();
        assert_eq!(image.read(), (vec![], vec![]));
        image.put("rc/user/contents.d/a", "");
        for (name, other) in [("a", "b"), ("b", "a")] {
            image.put(&format!("rc/{name}/type"), "longrun");
            image.put(&format!("rc/{name}/dependencies.d/{other}"), "");
        }
        assert_eq!(image.read().0, members(&[("a", &["b"]), ("b", &["a"])]));
    }

    /// Contract: 23.
    #[test]
    fn boot_scripts_come_in_the_order_of_the_c_locale() {
        let image = Image::new();
        for name in ["02-reconcile", "015-perms", "01-setup", "Zoo", ".keep", "not-executable"] {
            image.put(&format!("cont-init.d/{name}"), "");
        }
        let dir = image.0.path().join("cont-init.d");
        std::fs::create_dir(dir.join("a-directory")).unwrap();
        let found: Vec<PathBuf> = scripts(&dir).unwrap();
        let expected = ["01-setup", "015-perms", "02-reconcile", "Zoo", "a-directory", "not-executable"];
        assert_eq!(found, expected.map(|name| dir.join(name)));
        assert_eq!(scripts(&image.0.path().join("none")).unwrap(), Vec::<PathBuf>::new());
    }
}
