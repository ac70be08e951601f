//! What gives a figure its meaning: the machine it was found on, and its unit.

use super::LabError;
use serde::Serialize;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Bytes of a gigabyte, as in "per GB".
pub const GB: f64 = 1e9;

/// The machine a figure belongs to; without it a figure says nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// The processor's name.
    pub cpu: String,
    /// Cores this process may use.
    pub cores: usize,
    /// The kernel's release.
    pub kernel: String,
    /// The day, in UTC: `2026-03-01`.
    pub date: String,
}

impl Machine {
    /// This machine, today.
    pub fn this() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self {
            cpu: model.map_or("an unnamed processor", |(_, name)| name.trim()).to_owned(),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            kernel: kernel.trim().to_owned(),
            date: date(since),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, {} cores, Linux {}, {}", self.cpu, self.cores, self.kernel, self.date)
    }
}

/// The day of the Gregorian calendar that lies this long after 1 January 1970 (Howard Hinnant's `civil_from_days`).
fn date(since_epoch: Duration) -> String {
    let days = since_epoch.as_secs() / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // March is month 0, so that the leap day is the last of the year.
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// Whether [`save`] will be able to write `file`; makes it if it is not there, and leaves what is.
///
/// # Errors
/// The file system refuses.
pub fn check_writable(file: &Path) -> Result<(), LabError> {
    let opened = fs::OpenOptions::new().append(true).create(true).open(file);
    opened.map(drop).map_err(LabError::io(format!("write {}", file.display())))
}

/// Writes a report's file, for a command line that may not touch the disk itself.
///
/// # Errors
/// The file system refused.
pub fn save(file: &Path, text: &str) -> Result<(), LabError> {
    fs::write(file, text).map_err(LabError::io(format!("write {}", file.display())))
}

/// A duration as people read it: `85 µs`, `1.2 ms`, `3.0 s`.
pub fn human(duration: Duration) -> String {
    match duration.as_secs_f64() {
        seconds if seconds < 1e-3 => format!("{:.0} µs", seconds * 1e6),
        seconds if seconds < 1.0 => format!("{:.1} ms", seconds * 1e3),
        seconds => format!("{seconds:.1} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_become_dates_across_leap_years() {
        let on = |days: u64| date(Duration::from_secs(days * 86_400 + 7));
        let cases = [(0, "1970-01-01"), (58, "1970-02-28"), (59, "1970-03-01"), (11_016, "2000-02-29")];
        for (days, text) in [(20_513, "2026-03-01"), (11_017, "2000-03-01")].into_iter().chain(cases) {
            assert_eq!(on(days), text);
        }
    }

    #[test]
    fn durations_have_their_unit() {
        let texts = [85e-6, 1.23e-3, 3.0].map(|seconds| human(Duration::from_secs_f64(seconds)));
        assert_eq!(texts, ["85 µs", "1.2 ms", "3.0 s"]);
    }

    #[test]
    fn this_machine_has_a_kernel_and_cores() {
        let machine = Machine::this();
        assert!(machine.cores > 0 && !machine.kernel.is_empty() && machine.date.starts_with("20"), "{machine}");
    }
}
