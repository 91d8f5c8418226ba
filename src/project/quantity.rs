//! Durations and sizes as people write them: `30d`, `12h`, `90m`; `4GiB`, `512MiB`.

use std::time::Duration;

/// Reads a duration: a whole number and `s`, `m`, `h` or `d`; at least one second, at most ten years.
pub fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    let seconds = whole(number)?.checked_mul(factor)?;
    (1..=3650 * 86_400).contains(&seconds).then(|| Duration::from_secs(seconds))
}

/// Reads a size in bytes: a whole number and `KiB`, `MiB`, `GiB` or `TiB`.
pub fn size(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(3)?)?;
    let shift = match unit {
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return None,
    };
    whole(number)?.checked_mul(1 << shift).filter(|bytes| (1..=1 << 50).contains(bytes))
}

fn whole(text: &str) -> Option<u64> {
    // `parse` alone would take a leading plus sign.
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// Writes a size with the largest binary unit that divides it.
pub fn show_size(bytes: u64) -> String {
    for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes >= 1 << shift && bytes.is_multiple_of(1 << shift) {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    format!("{bytes}B")
}

/// Writes a duration with the largest unit that divides it.
pub fn show_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    for (factor, unit) in [(86_400, "d"), (3600, "h"), (60, "m")] {
        if seconds >= factor && seconds.is_multiple_of(factor) {
            return format!("{}{unit}", seconds / factor);
        }
    }
    format!("{seconds}s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_durations_and_sizes() {
        for text in ["30d", "12h", "90m", "45s"] {
            assert_eq!(show_duration(duration(text).unwrap()), text);
        }
        for text in ["4GiB", "512MiB", "3KiB", "2TiB"] {
            assert_eq!(show_size(size(text).unwrap()), text);
        }
    }

    #[test]
    fn refuses_what_is_not_a_number_with_a_unit() {
        for text in ["", "d", "+1d", "-1d", "0d", "1 d", "1w", "99999999999999999999d", "1é", "4000d"] {
            assert_eq!(duration(text), None, "{text}");
        }
        for text in ["", "GiB", "4GB", "4", "1.5GiB", "0MiB", "99999999TiB", "éGiB"] {
            assert_eq!(size(text), None, "{text}");
        }
    }
}
