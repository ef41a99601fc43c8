//! Local calendar time, as the C library reads it from TZ and /etc/localtime.
#![allow(unsafe_code)]

use std::io;

/// A moment on the wall clock of this machine, to the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Local {
    pub year: i64,
    pub month: u8,
    pub day: u8,
    pub hour: u8,
    pub minute: u8,
    pub second: u8,
    /// East of UTC, in seconds.
    pub offset: i64,
}

impl Local {
    /// The local time at `unix` seconds since 1970-01-01 UTC, with the daylight saving rule in force at that moment.
    ///
    /// # Errors
    /// EOVERFLOW when the year does not fit localtime_r(3).
    pub fn at(unix: i64) -> io::Result<Self> {
        // Not by the name time_t, which the libc crate means to change for musl; what localtime_r takes is inferred.
        let time = unix;
        let mut parts = std::mem::MaybeUninit::<libc::tm>::uninit();
        // SAFETY: both pointers are live for the call; localtime_r fills `parts` when it answers non-null.
        let parts = unsafe {
            if libc::localtime_r(&raw const time, parts.as_mut_ptr()).is_null() {
                return Err(io::Error::last_os_error());
            }
            parts.assume_init()
        };
        let small = |value: libc::c_int| u8::try_from(value).unwrap_or(0);
        Ok(Self {
            year: i64::from(parts.tm_year) + 1900,
            month: small(parts.tm_mon + 1),
            day: small(parts.tm_mday),
            hour: small(parts.tm_hour),
            minute: small(parts.tm_min),
            second: small(parts.tm_sec),
            offset: parts.tm_gmtoff,
        })
    }
}

impl Local {
    /// `YYYY-MM-DDTHH:MM:SS+hhmm`.
    pub fn iso8601(&self) -> String {
        let Self { year, month, day, hour, minute, second, offset } = self;
        let (sign, minutes) = (if *offset < 0 { '-' } else { '+' }, offset.abs() / 60);
        let (east_hour, east_minute) = (minutes / 60, minutes % 60);
        format!(
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{sign}{east_hour:02}{east_minute:02}"
        )
    }
}

/// `YYYY-MM-DD HH:MM:SS`.
impl std::fmt::Display for Local {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { year, month, day, hour, minute, second, .. } = self;
        write!(f, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The zone belongs to the whole process, so the cases run in a process of their own.
    #[test]
    fn daylight_saving_is_right_to_the_second() {
        if std::env::var_os("LOCALTIME_INNER").is_none() {
            let output = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "sys::localtime::tests::daylight_saving_is_right_to_the_second"])
                .env("LOCALTIME_INNER", "1")
                .env("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && text.contains("1 passed"), "{text}");
            return;
        }
        for (unix, text) in [
            (0, "1970-01-01 01:00:00"),
            (1_774_745_999, "2026-03-29 01:59:59"),
            (1_774_746_000, "2026-03-29 03:00:00"),
            (1_792_889_999, "2026-10-25 02:59:59"),
            (1_792_890_000, "2026-10-25 02:00:00"),
        ] {
            assert_eq!(Local::at(unix).unwrap().to_string(), text);
        }
    }
}
