//! Tokens out of a body, fast: the usual JSON is scanned by hand, straight into the vector that is
//! hashed. Anything unusual is left to the general reader, which also words the errors.

use super::error::{ApiError, FieldError};

/// Digits that always fit an i64.
const SAFE_DIGITS: usize = 18;

/// Tokens of `{"tokens": [...]}` with nothing else in it; `None` for any other body.
pub(super) fn from_plain_json(body: &[u8]) -> Option<Vec<i64>> {
    let mut scan = Scan { rest: body };
    scan.eat(b'{')?;
    scan.skip_space();
    scan.rest = scan.rest.strip_prefix(b"\"tokens\"")?;
    scan.eat(b':')?;
    scan.eat(b'[')?;
    // A token takes two bytes at least; most take five or six.
    let mut tokens = Vec::with_capacity(body.len() / 6);
    if scan.eat(b']').is_none() {
        loop {
            scan.skip_space();
            tokens.push(scan.int()?);
            if scan.eat(b',').is_none() {
                scan.eat(b']')?;
                break;
            }
        }
    }
    scan.eat(b'}')?;
    scan.skip_space();
    scan.rest.is_empty().then_some(tokens)
}

/// Tokens as little-endian u32.
pub(super) fn from_bytes(body: &[u8]) -> Result<Vec<i64>, ApiError> {
    let (tokens, rest) = body.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(ApiError::invalid(FieldError {
            kind: "bytes_length",
            loc: vec!["body".into()],
            msg: "Input should be 4 bytes a token, little-endian".into(),
            input: body.len().into(),
        }));
    }
    Ok(tokens
        .iter()
        .map(|bytes| i64::from(u32::from_le_bytes(*bytes)))
        .collect())
}

struct Scan<'a> {
    rest: &'a [u8],
}

impl Scan<'_> {
    #[inline]
    fn skip_space(&mut self) {
        while let [b' ' | b'\t' | b'\n' | b'\r', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    /// Space, then `byte`.
    #[inline]
    fn eat(&mut self, byte: u8) -> Option<()> {
        self.skip_space();
        match self.rest {
            [first, rest @ ..] if *first == byte => {
                self.rest = rest;
                Some(())
            }
            _ => None,
        }
    }

    /// A plain int as JSON allows it: no leading zero, no fraction, no exponent.
    #[inline]
    fn int(&mut self) -> Option<i64> {
        let negative = match self.rest {
            [b'-', rest @ ..] => {
                self.rest = rest;
                true
            }
            _ => false,
        };
        let mut value: i64 = 0;
        let mut n_digits = 0;
        for byte in self.rest {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                break;
            }
            if n_digits == SAFE_DIGITS {
                return None;
            }
            value = value * 10 + i64::from(digit);
            n_digits += 1;
        }
        if n_digits == 0 || (n_digits > 1 && self.rest[0] == b'0') {
            return None;
        }
        self.rest = &self.rest[n_digits..];
        match self.rest.first() {
            Some(b'.' | b'e' | b'E') => None,
            _ => Some(if negative { -value } else { value }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn usual_bodies_are_scanned() {
        for (body, tokens) in [
            (r#"{"tokens": [1, 2, 3]}"#, &[1, 2, 3][..]),
            (r#"{"tokens":[0,-5,128000]}"#, &[0, -5, 128_000]),
            (" { \"tokens\" : [ ] } \n", &[]),
        ] {
            assert_eq!(
                from_plain_json(body.as_bytes()).as_deref(),
                Some(tokens),
                "{body}"
            );
        }
    }

    #[test]
    fn anything_else_is_left_to_the_general_reader() {
        for body in [
            "",
            "{",
            "{}",
            "[]",
            r#"{"tokens": [1,]}"#,
            r#"{"tokens": [01]}"#,
            r#"{"tokens": [1.0]}"#,
            r#"{"tokens": [1e3]}"#,
            r#"{"tokens": ["1"]}"#,
            r#"{"tokens": [1]} x"#,
            r#"{"tokens": [1], "a": 2}"#,
            r#"{"tokens": [9223372036854775807]}"#,
            r#"{"tokens": [-]}"#,
            r#"{"tokens": [1 2]}"#,
            r#"{"tokens": [1"#,
        ] {
            assert_eq!(from_plain_json(body.as_bytes()), None, "{body}");
        }
    }

    #[test]
    fn binary_tokens_come_in_fours() {
        assert_eq!(from_bytes(&[1, 0, 0, 0, 0, 1, 0, 0]).unwrap(), [1, 256]);
        assert!(from_bytes(&[1, 0, 0]).is_err());
    }

    proptest! {
        #[test]
        fn agrees_with_serde_json(body in r#"[ \[\]{},:"tokens0-9.eE-]{0,40}"#) {
            if let Some(tokens) = from_plain_json(body.as_bytes()) {
                let value: serde_json::Value = serde_json::from_str(&body).unwrap();
                prop_assert_eq!(value, serde_json::json!({ "tokens": tokens }));
            }
        }

        #[test]
        fn reads_what_serde_json_writes(tokens: Vec<i32>) {
            let tokens: Vec<i64> = tokens.into_iter().map(i64::from).collect();
            let body = serde_json::json!({ "tokens": tokens }).to_string();
            prop_assert_eq!(from_plain_json(body.as_bytes()), Some(tokens));
        }
    }
}
