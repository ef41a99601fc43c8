//! How long something here has waited for processors and memory, as the kernel counts it (Documentation/accounting/psi.rst): in
//! the cgroup that we and our services are in, which in a container is the container's, else on the whole machine.

use crate::containment;
use crate::daemon::topics::admission::Stalled;
use procfs::{CpuPressure, FromBufRead};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Of the whole machine.
const MACHINE: [&str; 2] = ["/proc/pressure/cpu", "/proc/pressure/memory"];

/// Where it is read.
#[derive(Debug)]
pub enum Pressure {
    Files {
        cpu: PathBuf,
        memory: PathBuf,
    },
    /// The kernel does not count it.
    Unknown,
    /// Of a simulation: more and less of it, now and then unknown, by the number of the look.
    #[cfg(test)]
    Played(std::cell::Cell<u32>),
}

impl Pressure {
    /// Finds the files.
    pub fn open() -> Self {
        let of_cgroup = |dir: PathBuf| [dir.join("cpu.pressure"), dir.join("memory.pressure")];
        let machine = MACHINE.map(PathBuf::from);
        let places = containment::own_pressure().map(of_cgroup).into_iter().chain([machine]);
        let readable = |[cpu, memory]: &[PathBuf; 2]| stalled(cpu).is_some() && stalled(memory).is_some();
        let found = places.into_iter().find(readable);
        found.map_or(Self::Unknown, |[cpu, memory]| Self::Files { cpu, memory })
    }

    pub fn read(&self) -> Option<Stalled> {
        match self {
            Self::Files { cpu, memory } => Some(Stalled { cpu: stalled(cpu)?, memory: stalled(memory)? }),
            Self::Unknown => None,
            #[cfg(test)]
            Self::Played(looks) => {
                let look = looks.replace(looks.get() + 1);
                let stalled = Stalled {
                    cpu: Duration::from_millis(u64::from(look) * 200 + u64::from(look % 7) * 60),
                    memory: Duration::from_millis(u64::from(look / 11) * 60),
                };
                (look % 13 != 12).then_some(stalled)
            }
        }
    }
}

/// The line `some` of such a file. All have that line in the form of CPU pressure.
fn stalled(path: &Path) -> Option<Duration> {
    let text = std::fs::read(path).ok()?;
    let some = CpuPressure::from_buf_read(text.as_slice()).ok()?.some;
    Some(Duration::from_micros(some.total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_that_something_waited_is_read_of_the_line_some() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cpu.pressure");
        assert_eq!(stalled(&path), None);
        let lines = "some avg10=12.50 avg60=1.00 avg300=0.10 total=5000001\nfull avg10=3.00 avg60=0.00 avg300=0.00 total=1\n";
        std::fs::write(&path, lines).unwrap();
        assert_eq!(stalled(&path), Some(Duration::from_micros(5_000_001)));
        std::fs::write(&path, "nonsense\n").unwrap();
        assert_eq!(stalled(&path), None);
        assert_eq!(Pressure::Unknown.read(), None);
    }

    #[test]
    fn a_kernel_that_counts_is_read() {
        let counted = Path::new(MACHINE[0]).exists() && stalled(Path::new(MACHINE[0])).is_some();
        assert_eq!(Pressure::open().read().is_some(), counted);
    }
}
