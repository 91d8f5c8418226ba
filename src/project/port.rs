//! Ports of the agent's loopback that are to be reached on this machine's loopback, and the range they may take here.
//!
//! There is no address in it: both ends are loopback, always.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A port of the agent's loopback, and the port of this machine's loopback where it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortForward {
    /// In the sandbox.
    pub port: u16,
    /// On this machine.
    pub local: u16,
}

/// Text that is not `PORT` or `PORT:LOCAL`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not PORT or PORT:LOCAL, each from 1 to 65535")]
pub struct PortForwardError;

impl FromStr for PortForward {
    type Err = PortForwardError;

    fn from_str(text: &str) -> Result<Self, PortForwardError> {
        let (port, local) = text.split_once(':').unwrap_or((text, text));
        match (number(port), number(local)) {
            (Some(port), Some(local)) => Ok(Self { port, local }),
            _ => Err(PortForwardError),
        }
    }
}

impl fmt::Display for PortForward {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.port == self.local {
            write!(formatter, "{}", self.port)
        } else {
            write!(formatter, "{}:{}", self.port, self.local)
        }
    }
}

/// Digits alone: `u16::from_str` also takes a plus sign.
fn number(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| plain && *number != 0)
}

/// Ports of this machine, from the first to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// Reads `PORT` or `FIRST-LAST`.
    pub fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let range = Self { first: number(first)?, last: number(last)? };
        (range.first <= range.last).then_some(range)
    }

    /// Whether the port is one of them.
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_port_with_and_without_one_of_this_machine_and_writes_it_back() {
        assert_eq!("3000".parse(), Ok(PortForward { port: 3000, local: 3000 }));
        assert_eq!("80:8080".parse(), Ok(PortForward { port: 80, local: 8080 }));
        for text in ["3000", "80:8080"] {
            assert_eq!(text.parse::<PortForward>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn refuses_what_names_no_port_or_an_address() {
        for text in
            ["", "0", "65536", "+1", " 1", "1:0", "1:2:3", "80:", ":80", "0.0.0.0:80", "127.0.0.1:80:80", "80/udp"]
        {
            assert_eq!(text.parse::<PortForward>(), Err(PortForwardError), "{text}");
        }
    }

    #[test]
    fn a_range_holds_its_ends_and_is_not_written_backwards() {
        let range = PortRange::parse("3000-3999").unwrap();
        assert!(range.contains(3000) && range.contains(3999));
        assert!(!range.contains(2999) && !range.contains(4000));
        assert!(PortRange::parse("5173").unwrap().contains(5173));
        for text in ["3999-3000", "0-10", "1-65536", "a-b", "1-2-3", ""] {
            assert_eq!(PortRange::parse(text), None, "{text}");
        }
    }
}
