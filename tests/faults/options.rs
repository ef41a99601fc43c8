//! The command line.

use std::time::Duration;

pub struct Options {
    pub budget: Option<Duration>,
    pub sample: Option<usize>,
    /// So many runs of the order are left out: another campaign has made them.
    pub skip: usize,
    pub seed: u64,
    pub jobs: usize,
    stories: Vec<String>,
    rungs: Vec<String>,
    pub replay: Option<String>,
    pub sites: bool,
}

impl Options {
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut options = Self {
            budget: None,
            sample: None,
            skip: 0,
            seed: 1,
            // A run waits more than it works.
            jobs: 2 * cores,
            stories: Vec::new(),
            rungs: Vec::new(),
            replay: None,
            sites: false,
        };
        while let Some(word) = words.next() {
            if word == "--sites" {
                options.sites = true;
                continue;
            }
            let value = words.next().ok_or_else(|| format!("{word} wants a value"))?;
            let number = || value.parse::<usize>().map_err(|_| format!("{word}: '{value}' is no number"));
            match word.as_str() {
                "--budget" => {
                    let budget =
                        humantime::parse_duration(&value).map_err(|error| format!("{word}: {error}"))?;
                    options.budget = Some(budget);
                }
                "--sample" => options.sample = Some(number()?),
                "--skip" => options.skip = number()?,
                "--seed" => options.seed = number()? as u64,
                "--jobs" => options.jobs = number()?.max(1),
                "--story" => options.stories.push(value),
                "--rung" => options.rungs.push(value),
                "--replay" => options.replay = Some(value),
                _ => return Err(format!("{word} is no option: see tests/faults/main.rs")),
            }
        }
        Ok(options)
    }

    pub fn has_story(&self, name: &str) -> bool {
        self.stories.is_empty() || self.stories.iter().any(|story| story == name)
    }

    pub fn has_rung(&self, name: &str) -> bool {
        self.rungs.is_empty() || self.rungs.iter().any(|rung| rung == name)
    }
}
