//! The time of day, for people, and for the dates of certificates; nothing is measured with it.
//!
//! The standard library asks musl for it in 32 bits where a `long` has no more, and panics from 2038-01-19 on, or once a
//! clock is wrongly set beyond that. So it is asked for here, and nowhere else.

use std::time::{Duration, SystemTime, UNIX_EPOCH};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

/// Now. 1970 if the clock stands before that.
pub fn now() -> SystemTime {
    UNIX_EPOCH + since_1970()
}

/// The same, with year, month and day.
pub fn utc() -> OffsetDateTime {
    now().into()
}

/// The same, as HTTP has it (RFC 9110, section 5.6.7).
pub fn http_date() -> String {
    utc().format(&Rfc2822).unwrap_or_default().replace("+0000", "GMT")
}

/// Now, in milliseconds since the epoch, as every answer carries it.
pub fn timestamp() -> u64 {
    millis(now())
}

/// `moment` in milliseconds since the epoch; 0 if the clock stood before it.
pub fn millis(moment: SystemTime) -> u64 {
    moment.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// How much time has passed since the beginning of 1970.
#[cfg(target_pointer_width = "64")]
pub fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// How much time has passed since the beginning of 1970.
#[cfg(not(target_pointer_width = "64"))]
pub fn since_1970() -> Duration {
    /// clock_gettime64, which libc does not name for musl: the same on all 32-bit machines, but MIPS counts from 4,000.
    const CLOCK_GETTIME64: libc::c_long = if cfg!(target_arch = "mips") { 4403 } else { 403 };
    // struct __kernel_timespec.
    let mut time: [i64; 2] = [0; 2];
    // SAFETY: the kernel writes two 64-bit numbers into `time`. Neither libc nor nix offer this call.
    let result = unsafe { libc::syscall(CLOCK_GETTIME64, libc::CLOCK_REALTIME, &mut time) };
    match (result, u64::try_from(time[0])) {
        (0, Ok(seconds)) => Duration::new(seconds, time[1] as u32),
        (0, Err(_)) => Duration::ZERO,
        // A kernel before Linux 5.1, which does not reach 2038 either.
        _ => SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
    }
}
