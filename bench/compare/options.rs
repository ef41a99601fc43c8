//! The command line of the harness, which `bench/run` fills in.

use crate::ground::Ground;
use std::path::PathBuf;

#[derive(Debug, Clone)]
pub struct Options {
    pub quick: bool,
    /// Where the supervisors run.
    pub ground: Ground,
    /// Names of rows; empty means all.
    pub only: Vec<String>,
    /// Numbers of services or of processes in a tree; empty means all that the row has.
    pub sizes: Vec<usize>,
    /// Names of peers; empty means all that are installed.
    pub peers: Vec<String>,
    /// Where dinit and dinitctl are.
    pub dinit: Option<PathBuf>,
    /// Where an s6 built from source has its programs; Debian's otherwise.
    pub s6: Option<PathBuf>,
    /// The static binaries: hermes-sup, and the examples bench-service and adversary.
    pub hermes: PathBuf,
    /// Another hermes-sup to compare with, as a static binary: an earlier one, or one without what is tried.
    pub against: Option<PathBuf>,
    pub service: PathBuf,
    pub adversary: PathBuf,
    /// Where worlds are laid out: its file system is the one that durable commands wait for.
    pub work: PathBuf,
    pub results: PathBuf,
    /// For the rows on containers; without it they are left out.
    pub image: Option<String>,
    /// How the run was asked for, for the report.
    pub command: String,
    pub commit: String,
}

impl Options {
    /// # Errors
    /// What is wrong, in one line.
    pub fn parse(args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            quick: false,
            ground: Ground::Memory,
            only: Vec::new(),
            sizes: Vec::new(),
            peers: Vec::new(),
            dinit: None,
            s6: None,
            hermes: PathBuf::new(),
            against: None,
            service: PathBuf::new(),
            adversary: PathBuf::new(),
            work: PathBuf::from("/tmp"),
            results: PathBuf::from("bench/results"),
            image: None,
            command: String::new(),
            commit: String::new(),
        };
        // `cargo bench` adds this word for every harness.
        let mut args = args.filter(|word| word != "--bench");
        while let Some(word) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{word} wants a value"));
            match word.as_str() {
                "--quick" => options.quick = true,
                "--world" => options.ground = Ground::parse(&value()?)?,
                "--only" => options.only.extend(value()?.split(',').map(str::to_owned)),
                "--sizes" => {
                    for size in value()?.split(',') {
                        options.sizes.push(size.parse().map_err(|_| format!("{size} is no size"))?);
                    }
                }
                "--peers" => options.peers.extend(value()?.split(',').map(str::to_owned)),
                "--dinit-bin" => options.dinit = Some(value()?.into()),
                "--s6-bin" => options.s6 = Some(value()?.into()),
                "--hermes" => options.hermes = value()?.into(),
                "--against" => options.against = Some(value()?.into()),
                "--service" => options.service = value()?.into(),
                "--adversary" => options.adversary = value()?.into(),
                "--image" => options.image = Some(value()?),
                "--work" => options.work = value()?.into(),
                "--results" => options.results = value()?.into(),
                "--command" => options.command = value()?,
                "--commit" => options.commit = value()?,
                other => return Err(format!("{other} is no option of the harness: see bench/run --help")),
            }
        }
        for (name, path) in [
            ("--hermes", &options.hermes),
            ("--service", &options.service),
            ("--adversary", &options.adversary),
        ] {
            if !path.is_file() {
                return Err(format!("{name} must name a program: start the harness with bench/run"));
            }
        }
        Ok(options)
    }

    pub fn wants_row(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|wanted| wanted == name)
    }

    /// Of a plan of sizes and rounds, what is asked for. How cost grows is seen in one world; elsewhere two sizes do.
    pub fn sizes(&self, plan: &[(usize, usize)]) -> Vec<(usize, usize)> {
        let wanted = |(size, _): &&(usize, usize)| match (&self.sizes[..], self.ground) {
            ([], Ground::Memory) => true,
            ([], _) => [100, 1000].contains(size),
            (sizes, _) => sizes.contains(size),
        };
        plan.iter().filter(wanted).copied().collect()
    }

    pub fn wants_peer(&self, name: &str) -> bool {
        self.peers.is_empty() || self.peers.iter().any(|wanted| wanted == name)
    }
}
