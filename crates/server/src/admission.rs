//! Who may be a worker: patterns of instance names and networks of addresses.
//!
//! With `allow_sources`, a message of any kind is taken only from those networks, and a worker must
//! also report an address inside them: commands are sent there. With `allow_instances`, only
//! instances that fit a pattern are registered, by RegisterMsg or by a first heartbeat. Both are
//! off by default. An address that is no address (a name, or one libzmq does not tell) is outside.
//!
//! Decides only; the fronts answer, count and log.

use std::net::IpAddr;

use crate::config::Config;
use crate::config::value::{KnobValue, Refusal};

/// A network, such as 10.0.0.0/8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    network: IpAddr,
    bits: u32,
}

/// Why somebody is not let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    /// No pattern fits.
    #[error("instance {0:?} fits no pattern of allow_instances")]
    Instance(String),
    /// The connection comes from elsewhere.
    #[error("messages from {0} are not taken: it is in no network of allow_sources")]
    Source(String),
    /// The address that a worker reports is elsewhere.
    #[error("the worker's address {0:?} is in no network of allow_sources")]
    Address(String),
}

/// The configured lists.
#[derive(Debug, Clone, Default)]
pub struct Admission {
    instances: Vec<String>,
    sources: Vec<Cidr>,
}

impl Admission {
    /// The lists of `config`; an empty one allows all.
    pub fn new(config: &Config) -> Self {
        Self {
            instances: config.allow_instances.clone(),
            sources: config.allow_sources.clone(),
        }
    }

    /// Whether where a message comes from matters at all.
    pub fn asks_for_source(&self) -> bool {
        !self.sources.is_empty()
    }

    /// Whether messages from the peer at `source` are taken.
    pub fn check_source(&self, source: Option<&str>) -> Result<(), NotAdmitted> {
        if self.sources.is_empty() || source.is_some_and(|source| self.is_inside(source)) {
            return Ok(());
        }
        let source = source.unwrap_or("an unknown address").to_owned();
        Err(NotAdmitted::Source(source))
    }

    /// Whether a worker of `instance` that says it is at `ip` may be registered.
    pub fn check_worker(&self, instance: &str, ip: &str) -> Result<(), NotAdmitted> {
        let fits = |pattern: &String| fits(pattern.as_bytes(), instance.as_bytes());
        if !self.instances.is_empty() && !self.instances.iter().any(fits) {
            return Err(NotAdmitted::Instance(start(instance)));
        }
        if !self.sources.is_empty() && !self.is_inside(ip) {
            return Err(NotAdmitted::Address(start(ip)));
        }
        Ok(())
    }

    fn is_inside(&self, address: &str) -> bool {
        let bare = address.trim_start_matches('[').trim_end_matches(']');
        let bare = bare.split('%').next().unwrap_or(bare);
        bare.parse()
            .is_ok_and(|ip: IpAddr| self.sources.iter().any(|cidr| cidr.contains(ip)))
    }
}

/// Enough of a text to recognize it.
fn start(text: &str) -> String {
    text.chars().take(64).collect()
}

impl Cidr {
    fn contains(&self, ip: IpAddr) -> bool {
        match (self.network, ip.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(ip)) => {
                let differing = network.to_bits() ^ ip.to_bits();
                differing.leading_zeros() >= self.bits
            }
            (IpAddr::V6(network), IpAddr::V6(ip)) => {
                let differing = network.to_bits() ^ ip.to_bits();
                differing.leading_zeros() >= self.bits
            }
            _ => false,
        }
    }

    fn read(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let network: IpAddr = address.parse().ok()?;
        let most = if network.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            Some(bits) => bits.parse().ok().filter(|bits| *bits <= most)?,
            None => most,
        };
        Some(Self { network, bits })
    }
}

impl KnobValue for Vec<Cidr> {
    fn read(text: &str) -> Result<Self, Refusal> {
        Vec::<String>::read(text)?
            .iter()
            .map(|item| {
                Cidr::read(item).ok_or_else(|| Refusal {
                    expected: "a list of networks, such as 10.0.0.0/8,fd00::/8".into(),
                })
            })
            .collect()
    }

    fn show(&self) -> String {
        let items: Vec<_> = self
            .iter()
            .map(|cidr| format!("{}/{}", cidr.network, cidr.bits))
            .collect();
        items.join(",")
    }
}

/// Whether `text` fits `pattern`, where `*` is any number of characters and `?` is one byte.
///
/// Steps are at most the product of both lengths.
fn fits(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut from) = (0, 0);
    // Where the last star stands, and up to where it has eaten.
    let mut star: Option<(usize, usize)> = None;
    while from < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, from));
                at += 1;
            }
            Some(byte) if *byte == b'?' || *byte == text[from] => {
                at += 1;
                from += 1;
            }
            _ => match &mut star {
                Some((place, eaten)) => {
                    *eaten += 1;
                    at = *place + 1;
                    from = *eaten;
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]
mod tests {
    use super::*;

    fn admission(instances: &str, sources: &str) -> Admission {
        Admission {
            instances: KnobValue::read(instances).unwrap(),
            sources: KnobValue::read(sources).unwrap(),
        }
    }

    #[test]
    fn patterns_are_globs() {
        let fits = |pattern: &str, text: &str| fits(pattern.as_bytes(), text.as_bytes());
        for (pattern, text) in [
            ("*", ""),
            ("*", "abc"),
            ("a*c", "abbc"),
            ("a*b*c", "axbxbxc"),
            ("pod-?", "pod-1"),
            ("abc", "abc"),
            ("**", "x"),
        ] {
            assert!(fits(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("", "a"),
            ("a", ""),
            ("a*c", "abcd"),
            ("pod-?", "pod-"),
            ("ab", "abc"),
            ("*b", "abc"),
        ] {
            assert!(!fits(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn networks_of_both_families() {
        let admission = admission("", "10.0.0.0/8, 192.168.1.7, fd00::/8");
        for inside in [
            "10.255.0.1",
            "192.168.1.7",
            "fd12::1",
            "::ffff:10.0.0.1",
            "[fd00::1]",
        ] {
            assert_eq!(admission.check_source(Some(inside)), Ok(()), "{inside}");
            assert_eq!(admission.check_worker("a", inside), Ok(()), "{inside}");
        }
        for outside in [
            "11.0.0.1",
            "192.168.1.8",
            "fe80::1",
            "localhost",
            "",
            "::10.0.0.1",
        ] {
            assert!(admission.check_source(Some(outside)).is_err(), "{outside}");
            assert!(admission.check_worker("a", outside).is_err(), "{outside}");
        }
        assert!(admission.check_source(None).is_err());
    }

    #[test]
    fn empty_lists_allow_all() {
        let admission = admission("", "");
        assert_eq!(admission.check_source(None), Ok(()));
        assert_eq!(admission.check_worker("a", "kv.example"), Ok(()));
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in ["10.0.0.0/33", "x", "10.0.0.0/", "fd00::/129", "/8"] {
            assert!(Vec::<Cidr>::read(text).is_err(), "{text}");
        }
        let all = Vec::<Cidr>::read("0.0.0.0/0").unwrap();
        assert_eq!(all.show(), "0.0.0.0/0");
        assert!(all[0].contains([1, 2, 3, 4].into()));
    }
}
