//! Which IP addresses are not on the public Internet, and so are never dialled for a public host name.
//!
//! The lists are IANA's special-purpose registries (RFC 6890 and its updates), read strictly: an address that merely
//! carries an IPv4 address inside (mapped, translated, tunnelled) is judged by the inner one.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why an address is special.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpecialUse {
    /// `0.0.0.0/8`, `::` : "this host" (RFC 1122); Linux dials it as loopback.
    Unspecified,
    /// `127.0.0.0/8`, `::1`.
    Loopback,
    /// RFC 1918, and the deprecated site-local `fec0::/10`.
    Private,
    /// `100.64.0.0/10` (RFC 6598).
    SharedAddressSpace,
    /// `169.254.0.0/16`, `fe80::/10`: here are the metadata services of clouds.
    LinkLocal,
    /// `fc00::/7` (RFC 4193), which holds AWS's IPv6 metadata service.
    UniqueLocal,
    /// `224.0.0.0/4`, `ff00::/8`.
    Multicast,
    /// `198.18.0.0/15` (RFC 2544), `2001:2::/48`.
    Benchmarking,
    /// RFC 5737, RFC 3849, RFC 9637.
    Documentation,
    /// `240.0.0.0/4` with the broadcast address, `192.0.0.0/24`, and all of IPv6 that is not global unicast.
    Reserved,
}

impl fmt::Display for SpecialUse {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Unspecified => "unspecified",
            Self::Loopback => "loopback",
            Self::Private => "private",
            Self::SharedAddressSpace => "shared address space (CGNAT)",
            Self::LinkLocal => "link-local",
            Self::UniqueLocal => "unique local",
            Self::Multicast => "multicast",
            Self::Benchmarking => "benchmarking",
            Self::Documentation => "documentation",
            Self::Reserved => "reserved",
        })
    }
}

/// The special use of an address, or `None` for one on the public Internet.
pub fn special_use(address: IpAddr) -> Option<SpecialUse> {
    match address {
        IpAddr::V4(address) => special_use_v4(address),
        IpAddr::V6(address) => special_use_v6(address),
    }
}

fn special_use_v4(address: Ipv4Addr) -> Option<SpecialUse> {
    match address.octets() {
        [0, ..] => Some(SpecialUse::Unspecified),
        [127, ..] => Some(SpecialUse::Loopback),
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Some(SpecialUse::Private),
        [100, 64..=127, ..] => Some(SpecialUse::SharedAddressSpace),
        [169, 254, ..] => Some(SpecialUse::LinkLocal),
        [198, 18 | 19, ..] => Some(SpecialUse::Benchmarking),
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Some(SpecialUse::Documentation),
        // Azure's metadata and DNS helper lives on a public address, 168.63.129.16, and answers only from inside.
        [168, 63, 129, 16] => Some(SpecialUse::LinkLocal),
        [192, 0, 0, _] | [192, 88, 99, _] | [240..=255, ..] => Some(SpecialUse::Reserved),
        [224..=239, ..] => Some(SpecialUse::Multicast),
        _ => None,
    }
}

fn special_use_v6(address: Ipv6Addr) -> Option<SpecialUse> {
    if address.is_unspecified() {
        return Some(SpecialUse::Unspecified);
    }
    if address.is_loopback() {
        return Some(SpecialUse::Loopback);
    }
    if let Some(inner) = embedded(address) {
        return special_use_v4(inner);
    }
    match address.segments() {
        [0xfe80..=0xfebf, ..] => Some(SpecialUse::LinkLocal),
        [0xfec0..=0xfeff, ..] => Some(SpecialUse::Private),
        [0xfc00..=0xfdff, ..] => Some(SpecialUse::UniqueLocal),
        [0xff00..=0xffff, ..] => Some(SpecialUse::Multicast),
        [0x2001, 2, 0, ..] => Some(SpecialUse::Benchmarking),
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Some(SpecialUse::Documentation),
        // 2001::/23 is for protocols (ORCHID, PCP, TURN anycast …), none of which a host name should lead to.
        [0x2001, 0..=0x1ff, ..] => Some(SpecialUse::Reserved),
        [0x2000..=0x3fff, ..] => None,
        _ => Some(SpecialUse::Reserved),
    }
}

/// The IPv4 address that an IPv6 address stands for: IPv4-mapped and -compatible (RFC 4291), translated (RFC 2765),
/// NAT64 (RFC 6052, RFC 8215), 6to4 (RFC 3056), Teredo's client (RFC 4380) and ISATAP (RFC 5214).
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let join = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low] => Some(join(high, low)),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(join(high, low)),
        // The local-use prefix places the address by the operator's choice of length; its very use is local.
        [0x64, 0xff9b, 1, ..] => Some(Ipv4Addr::UNSPECIFIED),
        [0x2002, high, low, ..] => Some(join(high, low)),
        [0x2001, 0, _, _, _, _, high, low] => Some(join(!high, !low)),
        [0x2000..=0x3fff, _, _, _, 0 | 0x200, 0x5efe, high, low] => Some(join(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
