//! The guard of a route that must not reach into the network around it
//! (`private_addresses = "deny"`). Pure.
//!
//! It looks at the very addresses that a connection is then made to, after all lookups: a name that
//! moves to an inner address, a number or an octal form in place of an address, and an address
//! within another one (mapped, translated, tunneled) make no difference to it. Of IPv6 all is
//! refused that is not assigned for use in the Internet.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// All addresses of a host are refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the route has private_addresses = \"deny\", and its host has no other address than {addresses}"
)]
pub(in crate::handlers) struct Refused {
    addresses: String,
}

/// Leaves out the addresses that are refused.
pub(in crate::handlers) fn public(addresses: &[SocketAddr]) -> Result<Vec<SocketAddr>, Refused> {
    let mut refused = String::new();
    let is_public = |address: &&SocketAddr| match refusal(address.ip()) {
        None => true,
        Some(kind) => {
            let comma = if refused.is_empty() { "" } else { ", " };
            let _ = write!(refused, "{comma}{} ({kind})", address.ip());
            false
        }
    };
    let public: Vec<SocketAddr> = addresses.iter().filter(is_public).copied().collect();
    if public.is_empty() && !addresses.is_empty() {
        return Err(Refused { addresses: refused });
    }
    Ok(public)
}

/// What an address is that is refused; `None` for one of the Internet.
pub(in crate::handlers) fn refusal(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => refusal_v4(address),
        IpAddr::V6(address) => refusal_v6(address),
    }
}

fn refusal_v4(address: Ipv4Addr) -> Option<&'static str> {
    let kind = match address.octets() {
        // Link-local, shared and public ones by their ranges.
        [169, 254, 169, 254] | [100, 100, 100, 200] | [192, 0, 0, 192] | [168, 63, 129, 16] => {
            "metadata of a cloud"
        }
        [0, ..] => "unspecified",
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => "private",
        [100, 64..=127, ..] => "shared by a provider's customers",
        [127, ..] => "loopback",
        [169, 254, ..] => "link-local",
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => "documentation",
        [192, 0, 0, _] | [192, 88, 99, _] | [198, 18..=19, ..] | [240..=255, ..] => "reserved",
        [224..=239, ..] => "multicast",
        _ => return None,
    };
    Some(kind)
}

fn refusal_v6(address: Ipv6Addr) -> Option<&'static str> {
    let within = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        refusal_v4(Ipv4Addr::new(a, b, c, d))
    };
    let kind = match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => "unspecified",
        [0, 0, 0, 0, 0, 0, 0, 1] => "loopback",
        [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254] => "metadata of a cloud",
        [0xfc00..=0xfdff, ..] => "unique local",
        [0xfe80..=0xfebf, ..] => "link-local",
        [0xfec0..=0xfeff, ..] => "site-local",
        [0xff00..=0xffff, ..] => "multicast",
        [0x2001, 0, ..] => "Teredo",
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => "documentation",
        [0x2001, 0x1..=0x1ff, ..] => "reserved",
        // IPv4-mapped, the two forms of translation, 6to4 and ISATAP.
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..]
        | [0x2000..=0x3fff, _, _, _, 0 | 0x200, 0x5efe, high, low] => return within(high, low),
        [0x2000..=0x3fff, ..] => return None,
        _ => "reserved",
    };
    Some(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(address: &str) -> Option<&'static str> {
        refusal(address.parse().expect("an address"))
    }

    #[test]
    fn what_is_not_of_the_internet_is_refused_in_each_of_its_forms() {
        for (address, expected) in [
            ("0.0.0.0", "unspecified"),
            ("10.1.2.3", "private"),
            ("100.64.0.1", "shared by a provider's customers"),
            ("100.127.255.255", "shared by a provider's customers"),
            ("100.100.100.200", "metadata of a cloud"),
            ("127.0.0.1", "loopback"),
            ("127.255.0.9", "loopback"),
            ("168.63.129.16", "metadata of a cloud"),
            ("169.254.1.1", "link-local"),
            ("169.254.169.254", "metadata of a cloud"),
            ("172.16.0.1", "private"),
            ("172.31.255.255", "private"),
            ("192.0.0.1", "reserved"),
            ("192.0.2.1", "documentation"),
            ("192.168.1.1", "private"),
            ("198.19.0.1", "reserved"),
            ("203.0.113.9", "documentation"),
            ("224.0.0.1", "multicast"),
            ("239.255.255.250", "multicast"),
            ("255.255.255.255", "reserved"),
            ("::", "unspecified"),
            ("::1", "loopback"),
            ("::7f00:1", "reserved"),
            ("::ffff:127.0.0.1", "loopback"),
            ("::ffff:169.254.169.254", "metadata of a cloud"),
            ("::ffff:0:10.0.0.1", "private"),
            ("64:ff9b::10.0.0.1", "private"),
            ("64:ff9b::a9fe:a9fe", "metadata of a cloud"),
            ("64:ff9b:1::8.8.8.8", "reserved"),
            ("100::1", "reserved"),
            ("2001:0:4136:e378:8000:63bf:3fff:fdd2", "Teredo"),
            ("2001:2::1", "reserved"),
            ("2001:20::1", "reserved"),
            ("2001:db8::1", "documentation"),
            ("2002:7f00:1::1", "loopback"),
            ("2002:c0a8:101::1", "private"),
            ("2a00::5efe:192.168.0.1", "private"),
            ("2a00:1:2:3:200:5efe:a00:1", "private"),
            ("3fff:fff::1", "documentation"),
            ("4000::1", "reserved"),
            ("5f00::1", "reserved"),
            ("fc00::1", "unique local"),
            ("fd00:ec2::254", "metadata of a cloud"),
            ("fd12:3456::1", "unique local"),
            ("fe80::1", "link-local"),
            ("febf::1", "link-local"),
            ("fe80::5efe:8.8.8.8", "link-local"),
            ("fec0::1", "site-local"),
            ("ff02::1", "multicast"),
        ] {
            assert_eq!(kind(address), Some(expected), "{address}");
        }
    }

    #[test]
    fn what_is_of_the_internet_is_not() {
        for address in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.1",
            "192.167.255.255",
            "198.17.0.1",
            "223.255.255.255",
            "2001:4860:4860::8888",
            "2606:4700:4700::1111",
            "2a00:1450:4001::200e",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2002:808:808::1",
        ] {
            assert_eq!(kind(address), None, "{address}");
        }
    }

    #[test]
    fn of_several_addresses_the_refused_ones_are_left_out() {
        let addresses = |texts: &[&str]| -> Vec<SocketAddr> {
            let address = |text: &&str| SocketAddr::new(text.parse().expect("an address"), 80);
            texts.iter().map(address).collect()
        };

        let mixed = addresses(&["10.0.0.1", "1.1.1.1", "::1", "2606:4700::1"]);
        assert_eq!(public(&mixed), Ok(addresses(&["1.1.1.1", "2606:4700::1"])));
        let refused = public(&addresses(&["10.0.0.1", "::1"])).expect_err("none is public");
        assert_eq!(
            refused.to_string(),
            "the route has private_addresses = \"deny\", and its host has no other address than \
             10.0.0.1 (private), ::1 (loopback)"
        );
        assert_eq!(public(&[]), Ok(Vec::new()));
    }
}
