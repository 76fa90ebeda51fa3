//! The scalars of JSON and the space between them, written as MessagePack while they are read.

use crate::codec::error::Problem;
use crate::codec::{DecodeError, encode};

/// Position in a JSON text.
pub(super) struct Scan<'a> {
    pub(super) json: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Scan<'a> {
    pub(super) fn rest(&self) -> &'a [u8] {
        self.json.get(self.at..).unwrap_or_default()
    }

    pub(super) fn peek(&self) -> Result<u8, DecodeError> {
        self.rest()
            .first()
            .copied()
            .ok_or_else(|| Problem::Truncated.into())
    }

    pub(super) fn wrong(&self, expected: &'static str) -> DecodeError {
        Problem::Json {
            at: self.at,
            expected,
        }
        .into()
    }

    pub(super) fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.rest().first() {
            self.at += 1;
        }
    }

    pub(super) fn scalar(&mut self, out: &mut Vec<u8>) -> Result<(), DecodeError> {
        match self.peek()? {
            b'"' => self.text(out),
            b'-' | b'0'..=b'9' => self.number(out).map(|_| ()),
            b'n' => self.word(b"null", 0xc0, out),
            b't' => self.word(b"true", 0xc3, out),
            b'f' => self.word(b"false", 0xc2, out),
            _ => Err(self.wrong("expected a value")),
        }
    }

    fn word(&mut self, word: &[u8], byte: u8, out: &mut Vec<u8>) -> Result<(), DecodeError> {
        if !self.rest().starts_with(word) {
            return Err(self.wrong("expected `null`, `true` or `false`"));
        }
        self.at += word.len();
        out.push(byte);
        Ok(())
    }

    fn digits(&mut self) -> Result<(), DecodeError> {
        let n = self
            .rest()
            .iter()
            .take_while(|b| b.is_ascii_digit())
            .count();
        if n == 0 {
            return Err(self.wrong("expected a digit"));
        }
        self.at += n;
        Ok(())
    }

    /// Writes a number; says whether it is an int of 64 bits.
    pub(super) fn number(&mut self, out: &mut Vec<u8>) -> Result<bool, DecodeError> {
        let begin = self.at;
        if self.peek()? == b'-' {
            self.at += 1;
        }
        let leading_zero = self.peek()? == b'0';
        let first_digit = self.at;
        self.digits()?;
        if leading_zero && self.at > first_digit + 1 {
            return Err(self.wrong("expected no zero before the digits of a number"));
        }
        let mut is_int = true;
        if self.rest().first() == Some(&b'.') {
            is_int = false;
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.rest().first() {
            is_int = false;
            self.at += 1;
            if let Some(b'+' | b'-') = self.rest().first() {
                self.at += 1;
            }
            self.digits()?;
        }
        let text = self
            .json
            .get(begin..self.at)
            .and_then(|number| std::str::from_utf8(number).ok())
            .unwrap_or_default();
        if is_int {
            if let Ok(value) = text.parse() {
                encode::unsigned(value, out);
                return Ok(true);
            }
            if let Ok(value) = text.parse() {
                encode::signed(value, out);
                return Ok(true);
            }
        }
        match text.parse() {
            Ok(value) => encode::float(value, out),
            Err(_) => return Err(self.wrong("expected a number")),
        }
        Ok(false)
    }

    /// Writes a text that begins at its opening quote.
    pub(super) fn text(&mut self, out: &mut Vec<u8>) -> Result<(), DecodeError> {
        self.at += 1;
        let plain = self.plain()?;
        if self.peek()? == b'"' {
            self.at += 1;
            encode::text_bytes(plain, out);
            return Ok(());
        }
        let mut text = plain.to_owned();
        loop {
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    encode::text_bytes(&text, out);
                    return Ok(());
                }
                b'\\' => {
                    self.at += 1;
                    let character = self.escape()?;
                    text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                }
                _ => text.extend_from_slice(self.plain()?),
            }
        }
    }

    /// Walks to the next quote or backslash.
    fn plain(&mut self) -> Result<&'a [u8], DecodeError> {
        let rest = self.rest();
        let length = rest
            .iter()
            .position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20))
            .ok_or(Problem::Truncated)?;
        self.at += length;
        match rest.split_at_checked(length) {
            Some((plain, [b'"' | b'\\', ..])) => Ok(plain),
            _ => Err(self.wrong("expected no control character in a text")),
        }
    }

    fn escape(&mut self) -> Result<char, DecodeError> {
        let character = match self.peek()? {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                self.at += 1;
                return self.escaped_code();
            }
            _ => return Err(self.wrong("expected one of \"\\/bfnrtu after a backslash")),
        };
        self.at += 1;
        Ok(character)
    }

    fn escaped_code(&mut self) -> Result<char, DecodeError> {
        let high = self.hex4()?;
        let code = if (0xd800..0xdc00).contains(&high) {
            if !self.rest().starts_with(b"\\u") {
                return Err(self.wrong("expected the second half of a surrogate pair"));
            }
            self.at += 2;
            let low = self.hex4()?;
            if !(0xdc00..0xe000).contains(&low) {
                return Err(self.wrong("expected the second half of a surrogate pair"));
            }
            0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00)
        } else {
            high
        };
        char::from_u32(code).ok_or_else(|| self.wrong("expected no lone surrogate"))
    }

    fn hex4(&mut self) -> Result<u32, DecodeError> {
        let digits = self.rest().first_chunk::<4>().ok_or(Problem::Truncated)?;
        let mut code = 0;
        for &digit in digits {
            let Some(value) = char::from(digit).to_digit(16) else {
                return Err(self.wrong("expected four hexadecimal digits"));
            };
            code = code << 4 | value;
        }
        self.at += 4;
        Ok(code)
    }
}
