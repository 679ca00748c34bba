//! The addresses of `listen`: their text form and whether other machines reach them.
//!
//! Invariant: printing an address gives text that parses to it again. Host names are kept as
//! text and resolved by `server`, which does the I/O. Used by the rest of `config` and `server`.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

/// The longest path of a unix socket: what fits `sockaddr_un` with its closing zero.
const UNIX_PATH_BYTES_MAX: usize = 107;

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddr {
    /// A TCP port of a host, which is an IP address (IPv6 without brackets) or a name.
    Tcp {
        /// The address or name.
        host: String,
        /// The port; 0 lets the system choose one.
        port: u16,
        /// TLS is spoken there.
        tls: bool,
    },
    /// A unix socket at this path.
    Unix(PathBuf),
}

/// Why a text is not an address to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListenError {
    /// No `:port` at the end.
    #[error("the port is missing")]
    NoPort,
    /// The port is not a number up to 65535.
    #[error("the port is not a number from 0 to 65535")]
    BadPort,
    /// Nothing before the port.
    #[error("the host is missing; every address is \"0.0.0.0\" or \"[::]\"")]
    NoHost,
    /// More than one colon and no brackets.
    #[error("an IPv6 address goes in brackets")]
    NoBrackets,
    /// Brackets around something else.
    #[error("what is in brackets is not an IPv6 address")]
    BadIpv6,
    /// A character that no host name has.
    #[error("the host is neither an address nor a name")]
    BadHost,
    /// An empty path, one with a zero byte, or one that is too long for a socket.
    #[error("the path of a unix socket has 1 to {UNIX_PATH_BYTES_MAX} bytes, none of them zero")]
    BadPath,
}

impl ListenAddr {
    /// Reads `host:port`, `[v6]:port`, either with `tls:` before it, or `unix:path`.
    pub fn parse(text: &str) -> Result<Self, ListenError> {
        if let Some(path) = text.strip_prefix("unix:") {
            if path.is_empty() || path.len() > UNIX_PATH_BYTES_MAX || path.contains('\0') {
                return Err(ListenError::BadPath);
            }
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        let encrypted = text.strip_prefix("tls:");
        let at = encrypted.unwrap_or(text);
        let (host, port) = at.rsplit_once(':').ok_or(ListenError::NoPort)?;
        let host = Self::host(host)?;
        if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(ListenError::BadPort);
        }
        let port = port.parse().map_err(|_| ListenError::BadPort)?;
        Ok(Self::Tcp {
            host: host.to_owned(),
            port,
            tls: encrypted.is_some(),
        })
    }

    /// The host without its brackets.
    fn host(text: &str) -> Result<&str, ListenError> {
        if text.is_empty() {
            return Err(ListenError::NoHost);
        }
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or(ListenError::BadIpv6)?;
            return match inner.parse() {
                Ok(IpAddr::V6(_)) => Ok(inner),
                Ok(IpAddr::V4(_)) | Err(_) => Err(ListenError::BadIpv6),
            };
        }
        if text.contains(':') {
            return Err(ListenError::NoBrackets);
        }
        let in_a_name = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        if !text.bytes().all(in_a_name) {
            return Err(ListenError::BadHost);
        }
        Ok(text)
    }

    /// True if TLS is spoken there.
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tcp { tls: true, .. })
    }

    /// True if only this machine reaches the address. A name other than `localhost` may mean
    /// anything, so it counts as public.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp { host, .. } => match host.parse::<IpAddr>() {
                Ok(address) => address.to_canonical().is_loopback(),
                Err(_) => host.eq_ignore_ascii_case("localhost"),
            },
            Self::Unix(_) => true,
        }
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port, tls } => {
                let tls = if *tls { "tls:" } else { "" };
                if host.contains(':') {
                    write!(out, "{tls}[{host}]:{port}")
                } else {
                    write!(out, "{tls}{host}:{port}")
                }
            }
            Self::Unix(path) => write!(out, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_parse_and_print_as_written() {
        for text in [
            "127.0.0.1:11211",
            "[::1]:0",
            "[fe80::1]:65535",
            "localhost:1",
            "cache-1.example.org:80",
            "unix:/run/storage_server.sock",
            "unix:relative.sock",
            "tls:127.0.0.1:11212",
            "tls:[::1]:0",
        ] {
            let address = ListenAddr::parse(text).unwrap();
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn each_bad_address_says_what_is_wrong_with_it() {
        use ListenError as E;
        for (text, error) in [
            ("", E::NoPort),
            ("localhost", E::NoPort),
            ("11211", E::NoPort),
            (":11211", E::NoHost),
            ("a:", E::BadPort),
            ("a:+1", E::BadPort),
            ("a:65536", E::BadPort),
            ("::1:11211", E::NoBrackets),
            ("[::1:11211", E::BadIpv6),
            ("[127.0.0.1]:1", E::BadIpv6),
            ("a b:1", E::BadHost),
            ("*:1", E::BadHost),
            ("tls:", E::NoPort),
            ("tls:11212", E::NoPort),
            ("tls:unix:/x", E::BadPort),
            ("unix:", E::BadPath),
            ("unix:/a\0b", E::BadPath),
        ] {
            assert_eq!(ListenAddr::parse(text), Err(error), "{text:?}");
        }
        let long = format!("unix:/{}", "x".repeat(UNIX_PATH_BYTES_MAX));
        assert_eq!(ListenAddr::parse(&long), Err(E::BadPath));
    }

    #[test]
    fn only_loopback_and_unix_sockets_are_local() {
        for (text, local) in [
            ("127.0.0.1:1", true),
            ("127.9.9.9:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("LocalHost:1", true),
            ("unix:/x", true),
            ("tls:localhost:1", true),
            ("tls:10.0.0.1:1", false),
            ("0.0.0.0:1", false),
            ("[::]:1", false),
            ("10.0.0.1:1", false),
            ("[::ffff:10.0.0.1]:1", false),
            ("localhost.example.org:1", false),
        ] {
            assert_eq!(ListenAddr::parse(text).unwrap().is_local(), local, "{text}");
        }
    }
}
