//! JSON rewritten as MessagePack and back, without recursion.
//!
//! The strict reader then serves both encodings. The grammar is msgspec's: RFC 8259, where text
//! that nobody reads need not be UTF-8 and a number too large for an int becomes a float (which an
//! int field then refuses). Containers are written with 32-bit headers whose counts are filled in
//! when they close, so the output is at most a few times as long as the input.

use super::cursor::{Cursor, Token};
use super::error::Problem;
use super::{DecodeError, MAX_SKIP_DEPTH, encode};

const MAP: u8 = 0xdf;
const ARRAY: u8 = 0xdd;

/// An open container of the output.
struct Open {
    /// Where its 4-byte count stands.
    count_at: usize,
    /// Elements, or entries of a map.
    count: u32,
    is_map: bool,
}

/// Rewrites one JSON value, which may be followed by white space only.
pub(crate) fn to_msgpack(json: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let mut scan = Scan { json, at: 0 };
    let mut out = Vec::with_capacity(json.len());
    let mut open: Vec<Open> = Vec::new();
    loop {
        // A value begins here.
        scan.space();
        let begun = match scan.peek()? {
            b'{' => Some((true, MAP)),
            b'[' => Some((false, ARRAY)),
            _ => None,
        };
        if let Some((is_map, header)) = begun {
            scan.at += 1;
            if open.len() == MAX_SKIP_DEPTH {
                return Err(Problem::TooDeep.into());
            }
            out.push(header);
            open.push(Open {
                count_at: out.len(),
                count: 0,
                is_map,
            });
            out.extend([0; 4]);
        } else {
            scan.scalar(&mut out)?;
        }
        // A container has just begun, or a value has just ended.
        let mut first = begun.is_some();
        loop {
            let Some(inner) = open.last_mut() else {
                scan.space();
                return if scan.at == json.len() {
                    Ok(out)
                } else {
                    Err(Problem::Trailing(scan.at).into())
                };
            };
            scan.space();
            let end = if inner.is_map { b'}' } else { b']' };
            let next = scan.peek()?;
            if next == end {
                scan.at += 1;
                let count = inner.count.to_be_bytes();
                let at = inner.count_at;
                if let Some(place) = out.get_mut(at..at + count.len()) {
                    place.copy_from_slice(&count);
                }
                open.pop();
                first = false;
                continue;
            }
            if !first {
                if next != b',' {
                    return Err(scan.wrong("expected `,` or the end of the container"));
                }
                scan.at += 1;
                scan.space();
            }
            inner.count = inner
                .count
                .checked_add(1)
                .ok_or_else(|| scan.wrong("expected fewer than 2^32 elements"))?;
            if inner.is_map {
                if scan.peek()? != b'"' {
                    return Err(scan.wrong("expected a key in quotes"));
                }
                scan.text(&mut out)?;
                scan.space();
                if scan.peek()? != b':' {
                    return Err(scan.wrong("expected `:`"));
                }
                scan.at += 1;
            }
            break;
        }
    }
}

/// Rewrites a whole JSON int, as it may stand in a map's key; `None` if it is anything else.
pub(crate) fn int(digits: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let mut scan = Scan {
        json: digits,
        at: 0,
    };
    let is_int = scan.number(out).ok()?;
    (is_int && scan.at == digits.len()).then_some(())
}

struct Scan<'a> {
    json: &'a [u8],
    at: usize,
}

impl<'a> Scan<'a> {
    fn rest(&self) -> &'a [u8] {
        self.json.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Result<u8, DecodeError> {
        self.rest()
            .first()
            .copied()
            .ok_or_else(|| Problem::Truncated.into())
    }

    fn wrong(&self, expected: &'static str) -> DecodeError {
        Problem::Json {
            at: self.at,
            expected,
        }
        .into()
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.rest().first() {
            self.at += 1;
        }
    }

    fn scalar(&mut self, out: &mut Vec<u8>) -> Result<(), DecodeError> {
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
    fn number(&mut self, out: &mut Vec<u8>) -> Result<bool, DecodeError> {
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
    fn text(&mut self, out: &mut Vec<u8>) -> Result<(), DecodeError> {
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

/// Rewrites MessagePack that this crate has written.
pub(crate) fn from_msgpack(payload: &[u8]) -> String {
    let mut cursor = Cursor::new(payload);
    let mut out = String::new();
    // Items still to come in each open container; of a map, keys count too.
    let mut open: Vec<(u64, bool)> = Vec::new();
    while let Ok(token) = cursor.token() {
        // A map's key is reached with an even number of items left.
        let is_key = matches!(open.last(), Some((left, true)) if left % 2 == 0);
        if let Some((left, _)) = open.last_mut() {
            *left -= 1;
        }
        match token {
            Token::Array(length) => {
                out.push('[');
                open.push((length.into(), false));
            }
            Token::Map(length) => {
                out.push('{');
                open.push((2 * u64::from(length), true));
            }
            scalar => write_scalar(scalar, is_key, &mut out),
        }
        if is_key {
            out.push(':');
            continue;
        }
        let begun = matches!(token, Token::Array(_) | Token::Map(_));
        loop {
            match open.last() {
                None => return out,
                Some((0, is_map)) => {
                    out.push(if *is_map { '}' } else { ']' });
                    open.pop();
                    continue;
                }
                Some(_) if begun && !out.ends_with(['}', ']']) => {}
                Some(_) => out.push(','),
            }
            break;
        }
    }
    out
}

fn write_scalar(token: Token<'_>, is_key: bool, out: &mut String) {
    let text = match token {
        Token::Text(text) => {
            quote(&String::from_utf8_lossy(text), out);
            return;
        }
        Token::Bytes(bytes) | Token::Extension(_, bytes) => {
            quote(&base64(bytes), out);
            return;
        }
        Token::Bool(value) => value.to_string(),
        Token::Unsigned(value) => value.to_string(),
        Token::Negative(value) => value.to_string(),
        // `{:?}` keeps the point of a whole number, as upstream does.
        Token::Float(value) if value.is_finite() => format!("{value:?}"),
        Token::Float(_) | Token::Nil | Token::Array(_) | Token::Map(_) => "null".to_owned(),
    };
    if is_key {
        quote(&text, out);
    } else {
        out.push_str(&text);
    }
}

fn quote(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\0'..' ' => out.push_str(&format!("\\u{:04x}", u32::from(character))),
            _ => out.push(character),
        }
    }
    out.push('"');
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for group in bytes.chunks(3) {
        let word = group
            .iter()
            .chain([&0; 3])
            .take(3)
            .fold(0_usize, |word, &byte| word << 8 | usize::from(byte));
        for place in 0..4 {
            if place <= group.len() {
                out.push(ALPHABET[word >> (18 - 6 * place) & 63].into());
            } else {
                out.push('=');
            }
        }
    }
    out
}
