//! Times, medians, and the table that they are printed in.

use std::cell::Cell;
use std::fmt;
use std::time::{Duration, Instant};

/// A measured value.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Quantity {
    Seconds(f64),
    Bytes(f64),
    BytesPerSecond(f64),
    PerSecond(f64),
    Count(f64),
}

impl Quantity {
    pub(crate) fn number(self) -> f64 {
        match self {
            Self::Seconds(number)
            | Self::Bytes(number)
            | Self::BytesPerSecond(number)
            | Self::PerSecond(number)
            | Self::Count(number) => number,
        }
    }
}

impl From<Duration> for Quantity {
    fn from(duration: Duration) -> Self {
        Self::Seconds(duration.as_secs_f64())
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match *self {
            Self::Seconds(seconds) if seconds >= 1.0 => format!("{seconds:.2} s"),
            Self::Seconds(seconds) if seconds >= 0.01 => format!("{:.0} ms", seconds * 1e3),
            Self::Seconds(seconds) => format!("{:.0} µs", seconds * 1e6),
            Self::Bytes(bytes) => format!("{:.1} MB", bytes / 1e6),
            Self::PerSecond(rate) => format!("{rate:.0} /s"),
            Self::Count(count) => format!("{count}"),
            Self::BytesPerSecond(rate) => format!("{:.0} MB/s", rate / 1e6),
        };
        formatter.pad(&text)
    }
}

/// What a value, or its ratio to the peer's, should be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Aim {
    /// At most this many times the peer's value.
    AtMostTimes(f64),
    /// At least this many times the peer's value.
    AtLeastTimes(f64),
    /// At most this, whatever others do.
    AtMost(Quantity),
    /// Nothing was promised.
    None,
}

/// Prints rows as they are measured.
pub(crate) struct Table {
    /// How often each thing is measured.
    pub(crate) runs: usize,
    begun: Instant,
    over: Cell<usize>,
}

impl Table {
    /// Prints the head.
    pub(crate) fn begin(runs: usize) -> Self {
        println!("medians of {runs}; {}", machine());
        println!(
            "{:<44} {:>10}  {:<28} {:>10} {:>7}  {:<10}",
            "what", "measured", "against", "its value", "ratio", "aim"
        );
        println!("{}", "-".repeat(120));
        Self { runs, begun: Instant::now(), over: Cell::new(0) }
    }

    /// Prints a value beside a peer's.
    pub(crate) fn compare(&self, what: &str, measured: Quantity, against: &str, peer: Quantity, aim: Aim) {
        let ratio = measured.number() / peer.number();
        let (aim, holds) = match aim {
            Aim::AtMostTimes(most) => (format!("≤ {most}"), Some(ratio <= most)),
            Aim::AtLeastTimes(least) => (format!("≥ {least}"), Some(ratio >= least)),
            Aim::AtMost(most) => (format!("≤ {most}"), Some(measured.number() <= most.number())),
            Aim::None => (String::new(), None),
        };
        println!("{what:<44} {measured:>10}  {against:<28} {peer:>10} {ratio:>7.2}  {aim:<10} {}", self.verdict(holds));
    }

    /// Prints a value that has no peer.
    pub(crate) fn single(&self, what: &str, measured: Quantity, aim: Aim) {
        let (aim, holds) = match aim {
            Aim::AtMost(most) => (format!("≤ {most}"), Some(measured.number() <= most.number())),
            _ => (String::new(), None),
        };
        println!("{what:<44} {measured:>10}  {:<28} {:>10} {:>7}  {aim:<10} {}", "", "", "", self.verdict(holds));
    }

    /// Prints a remark below a row.
    pub(crate) fn remark(&self, text: &str) {
        println!("  {text}");
    }

    fn verdict(&self, holds: Option<bool>) -> &'static str {
        match holds {
            Some(true) => "ok",
            Some(false) => {
                self.over.set(self.over.get() + 1);
                "over"
            }
            None => "",
        }
    }

    /// Prints the last line.
    pub(crate) fn end(&self) {
        let seconds = self.begun.elapsed().as_secs();
        println!("{}", "-".repeat(120));
        println!("{} over their aim; {seconds} s; {}", self.over.get(), machine());
    }
}

/// What says how far the times can be trusted: processors, and how busy they are.
fn machine() -> String {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("?");
    format!("{processors} processors, load average {load}")
}

/// The middle of the values.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

/// The middle of durations.
pub(crate) fn median_time(times: &[Duration]) -> Quantity {
    Quantity::Seconds(median(times.iter().map(Duration::as_secs_f64).collect()))
}

/// How long something takes.
pub(crate) fn time(work: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    work();
    begun.elapsed()
}

/// Times two things in turn, so that both meet the same machine; each runs once before, which is not counted.
pub(crate) fn in_turn(
    runs: usize,
    mut ours: impl FnMut() -> Duration,
    mut peer: impl FnMut() -> Duration,
) -> [Quantity; 2] {
    let _ = (ours(), peer());
    let pairs: Vec<(Duration, Duration)> = (0..runs).map(|_| (ours(), peer())).collect();
    let (ours, peer): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    [median_time(&ours), median_time(&peer)]
}
