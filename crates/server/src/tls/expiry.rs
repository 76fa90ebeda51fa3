//! Until when a certificate is valid: rustls checks it for the other side's and tells nobody for
//! one's own.

use x509_parser::parse_x509_certificate;

/// The end of a certificate's validity, in seconds since 1970; none for what is no certificate.
pub(super) fn expiry(certificate: &[u8]) -> Option<u64> {
    let (_, certificate) = parse_x509_certificate(certificate).ok()?;
    u64::try_from(certificate.validity().not_after.timestamp()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn until(year: i32, month: u8, day: u8) -> Vec<u8> {
        let mut params = rcgen::CertificateParams::new(vec!["kv.example".into()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, month, day);
        let key = rcgen::KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn times_of_both_forms() {
        // From 2050 on, the year has four digits.
        assert_eq!(expiry(&until(2031, 7, 9)), Some(1_941_321_600));
        assert_eq!(expiry(&until(2050, 12, 31)), Some(2_556_057_600));
    }

    #[test]
    fn a_part_of_a_certificate_has_no_expiry_and_no_byte_makes_it_fall_over() {
        let der = until(2031, 7, 9);
        for length in 0..der.len() {
            assert_eq!(expiry(&der[..length]), None, "{length}");
        }
        for at in 0..der.len() {
            for byte in [0, 0x7f, 0x80, 0x84, 0xff] {
                let mut broken = der.clone();
                broken[at] = byte;
                let _ = expiry(&broken);
            }
        }
    }
}
