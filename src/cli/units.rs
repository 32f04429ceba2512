//! Times, dates and sizes as people read them.

use time::OffsetDateTime;

/// The two largest units of it.
pub(super) fn duration(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, s) => format!("{s} s"),
        (0, 0, m, s) => format!("{m} min {s} s"),
        (0, h, m, _) => format!("{h} h {m} min"),
        (d, h, _, _) => format!("{d} d {h} h"),
    }
}

/// Bytes in the largest binary unit that leaves at least 1.
pub(super) fn size(bytes: u64) -> String {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => format!("{:.1} {name}", bytes as f64 / *unit as f64),
        None => format!("{bytes} B"),
    }
}

/// Milliseconds since the epoch as a date and a time, in UTC.
pub(super) fn date(milliseconds: u64) -> Option<String> {
    let seconds = i64::try_from(milliseconds / 1000).ok()?;
    let moment = OffsetDateTime::from_unix_timestamp(seconds).ok()?;
    let (hour, minute, second) = moment.to_hms();
    Some(format!("{} {hour:02}:{minute:02}:{second:02} UTC", moment.date()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units() {
        let shown = [999, 61_000, 3_700_000, 90_061_000].map(duration);
        assert_eq!(shown, ["0 s", "1 min 1 s", "1 h 1 min", "1 d 1 h"]);
    }

    #[test]
    fn sizes_have_one_unit() {
        assert_eq!([0, 1023, 1536, 5 << 20, 3 << 30].map(size), ["0 B", "1023 B", "1.5 KiB", "5.0 MiB", "3.0 GiB"]);
    }

    #[test]
    fn dates_are_in_utc() {
        assert_eq!(date(1_700_000_000_999).as_deref(), Some("2023-11-14 22:13:20 UTC"));
        assert_eq!(date(u64::MAX), None);
    }
}
