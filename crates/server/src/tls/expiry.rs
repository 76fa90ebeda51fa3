//! Until when a certificate is valid: rustls checks it for the other side's and tells nobody for
//! one's own.
//!
//! ```text
//! Certificate  SEQUENCE { TBSCertificate SEQUENCE {
//!     [0] version (may be absent), serial INTEGER, algorithm SEQUENCE, issuer SEQUENCE,
//!     validity SEQUENCE { from Time, until Time }, ... } ... }
//! Time         UTCTime YYMMDDhhmmssZ (50 to 99 are 19xx) or GeneralizedTime YYYYMMDDhhmmssZ
//! ```
//! Reads DER and nothing else; what does not fit has no expiry. (RFC 5280, 4.1)

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The end of a certificate's validity, in seconds since 1970.
pub(super) fn expiry(certificate: &[u8]) -> Option<u64> {
    let (_, certificate, _) = element(certificate).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (_, mut fields, _) = element(certificate).filter(|(tag, ..)| *tag == SEQUENCE)?;
    if fields.first() == Some(&VERSION) {
        fields = element(fields)?.2;
    }
    for _serial_algorithm_issuer in 0..3 {
        fields = element(fields)?.2;
    }
    let (_, validity, _) = element(fields).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (_, _from, validity) = element(validity)?;
    let (tag, until, _) = element(validity)?;
    time(tag, until)
}

/// Tag and content of the first element, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], mut rest) = der.split_first_chunk()?;
    let mut length = usize::from(first);
    if first >= 0x80 {
        let digits = rest.split_off(..usize::from(first & 0x7f))?;
        if digits.is_empty() || digits.len() > 4 {
            return None;
        }
        length = digits
            .iter()
            .fold(0, |length, digit| length << 8 | usize::from(*digit));
    }
    let (content, after) = rest.split_at_checked(length)?;
    Some((tag, content, after))
}

fn time(tag: u8, text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (year, rest) = match (tag, text.len()) {
        (UTC_TIME, 12) => {
            let year: u64 = text[..2].parse().ok()?;
            (year + if year < 50 { 2000 } else { 1900 }, &text[2..])
        }
        (GENERALIZED_TIME, 14) => (text[..4].parse().ok()?, &text[4..]),
        _ => return None,
    };
    let part = |at: usize| rest[at..at + 2].parse::<u64>().ok();
    let (month, day) = (part(0)?, part(2)?);
    if year < 1970 || !(1..=12).contains(&month) || day == 0 {
        return None;
    }
    let seconds = part(4)? * 3600 + part(6)? * 60 + part(8)?;
    Some(days(year, month, day) * 86_400 + seconds)
}

/// Days from 1970-01-01. Years begin in March, so that the leap day is their last.
fn days(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month < 3 {
        (year - 1, month + 9)
    } else {
        (year, month - 3)
    };
    let leaps = year / 4 - year / 100 + year / 400;
    // 719,468 days from 0000-03-01 to 1970-01-01.
    365 * year + leaps + (153 * month + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_both_forms() {
        for (tag, text, expected) in [
            (UTC_TIME, "700101000000Z", 0),
            (UTC_TIME, "260228235959Z", 1_772_323_199),
            (UTC_TIME, "240229000000Z", 1_709_164_800),
            (GENERALIZED_TIME, "20501231235959Z", 2_556_143_999),
            (GENERALIZED_TIME, "20000301000000Z", 951_868_800),
            (GENERALIZED_TIME, "99991231235959Z", 253_402_300_799),
        ] {
            assert_eq!(time(tag, text.as_bytes()), Some(expected), "{text}");
        }
        for (tag, text) in [
            (UTC_TIME, "20501231235959Z"),
            (UTC_TIME, "261301000000Z"),
            (UTC_TIME, "260100000000Z"),
            (UTC_TIME, "2601010000+0Z"),
            (UTC_TIME, "260101000000"),
            (GENERALIZED_TIME, "19690101000000Z"),
            (0x02, "260101000000Z"),
        ] {
            assert_eq!(time(tag, text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_real_certificate_and_every_part_of_one() {
        let mut params = rcgen::CertificateParams::new(vec!["kv.example".into()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2031, 7, 9);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let der: &[u8] = certificate.der();
        assert_eq!(expiry(der), Some(1_941_321_600));
        for length in 0..der.len() {
            assert_eq!(expiry(&der[..length]), None, "{length}");
        }
        // No byte makes it fall over.
        for at in 0..der.len() {
            for byte in [0, 0x7f, 0x80, 0x84, 0xff] {
                let mut broken = der.to_vec();
                broken[at] = byte;
                let _ = expiry(&broken);
            }
        }
    }
}
