//! Names and addresses of hosts.

use std::net::Ipv6Addr;

use crate::cli::settings::values::quoted;

/// Reads host names and addresses that are separated by commas, without ports, and returns them in
/// lower case.
pub(in crate::cli) fn host_names(text: &str) -> Result<Vec<String>, String> {
    let is_fit = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    let is_name = |name: &str| {
        let has_port = name.contains(':') && !name.ends_with(']');
        !name.is_empty() && name.chars().all(is_fit) && !has_port
    };
    let names = text.split(',').map(str::trim);
    names
        .map(|name| {
            is_name(name)
                .then(|| name.to_ascii_lowercase())
                .ok_or_else(|| {
                    format!(
                        "must be host names without ports, separated by commas, not {}",
                        quoted(text)
                    )
                })
        })
        .collect()
}

/// Reads one host name or address without a port; an address of IPv6 may stand in the brackets that
/// it has in a URL.
pub(in crate::cli) fn host(text: &str) -> Result<String, String> {
    let refuse = |remedy: &str| {
        Err(format!(
            "must be an address or a host name, not {}{remedy}",
            quoted(text)
        ))
    };
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let host = bare.unwrap_or(text);
    // The part behind a percent sign names the interface of an address that only this host has.
    let address = host.split('%').next().unwrap_or_default();
    let is_v6 = address.parse::<Ipv6Addr>().is_ok();
    if host == "*" {
        refuse(": without this setting all addresses are meant; `0.0.0.0` is all of IPv4")
    } else if host.contains(':') && !is_v6 {
        refuse(": a port is given by --http-port")
    } else if host.is_empty()
        || bare.is_some() && !is_v6
        || host
            .chars()
            .any(|c| c.is_whitespace() || c.is_control() || "/*[]".contains(c))
    {
        refuse("")
    } else {
        Ok(host.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_no_port() {
        for (text, read) in [
            ("localhost", "localhost"),
            ("0.0.0.0", "0.0.0.0"),
            ("::1", "::1"),
            ("[::1]", "::1"),
            ("fe80::1%eth0", "fe80::1%eth0"),
        ] {
            assert_eq!(host(text).as_deref(), Ok(read), "{text}");
        }
        for (text, remedy) in [
            (
                "*",
                ": without this setting all addresses are meant; `0.0.0.0` is all of IPv4",
            ),
            ("127.0.0.1:18086", ": a port is given by --http-port"),
            ("[::1]:18086", ": a port is given by --http-port"),
            ("a b", ""),
            ("[h]", ""),
            ("[]", ""),
            ("", ""),
        ] {
            let refusal = format!("must be an address or a host name, not `{text}`{remedy}");
            assert_eq!(host(text), Err(refusal), "{text}");
        }
    }

    #[test]
    fn host_names_have_no_ports() {
        assert_eq!(
            host_names("Outbox.internal, [FD00::1],10.0.0.1"),
            Ok(vec![
                "outbox.internal".to_owned(),
                "[fd00::1]".to_owned(),
                "10.0.0.1".to_owned()
            ])
        );
        for text in [
            "", "a,", "a:80", "[::1]:80", "fd00::1", "a b", "*", "http://a",
        ] {
            assert_eq!(
                host_names(text),
                Err(format!(
                    "must be host names without ports, separated by commas, not `{text}`"
                ))
            );
        }
    }
}
