//! Scalars on the wire: text, ints, keys, booleans, floats.
//!
//! A float field takes an int; nothing else is converted.

use super::cursor::Token;
use super::reader::{Reader, utf8};
use super::wire::Wire;
use super::{DecodeError, encode};
use crate::message::WireKey;

impl Wire for String {
    fn write(&self, out: &mut Vec<u8>) {
        encode::text(self, out);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.text().map(str::to_owned)
    }
}

impl Wire for i64 {
    fn write(&self, out: &mut Vec<u8>) {
        encode::signed(*self, out);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        int(reader.cursor.token()?)
    }
}

pub(super) fn int(token: Token<'_>) -> Result<i64, DecodeError> {
    match token {
        Token::Negative(value) => Ok(value),
        Token::Unsigned(value) => i64::try_from(value)
            .map_err(|_| DecodeError::mistyped("int below 2^63", "a greater one")),
        other => Err(DecodeError::mistyped("int", other.kind())),
    }
}

impl Wire for WireKey {
    fn write(&self, out: &mut Vec<u8>) {
        match self.negative() {
            Some(value) => encode::signed(value, out),
            None => encode::unsigned(self.hash().0, out),
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.cursor.token()? {
            Token::Negative(value) => Ok(Self::signed(value)),
            Token::Unsigned(value) => Ok(Self::unsigned(value)),
            Token::Text(text) if reader.text_keys => {
                Self::from_text(utf8(text)?).ok_or_else(|| {
                    DecodeError::mistyped(
                        "int or text ending in `@` and a hexadecimal number",
                        "str",
                    )
                })
            }
            other => Err(DecodeError::mistyped("int", other.kind())),
        }
    }
}

impl Wire for bool {
    fn write(&self, out: &mut Vec<u8>) {
        encode::boolean(*self, out);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.cursor.token()? {
            Token::Bool(value) => Ok(value),
            other => Err(DecodeError::mistyped("bool", other.kind())),
        }
    }
}

impl Wire for f64 {
    fn write(&self, out: &mut Vec<u8>) {
        encode::float(*self, out);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.cursor.token()? {
            Token::Float(value) if reader.json && !value.is_finite() => Err(out_of_range()),
            Token::Float(value) => Ok(value),
            Token::Unsigned(value) => Ok(value as Self),
            Token::Negative(value) => Ok(value as Self),
            other => Err(DecodeError::mistyped("float", other.kind())),
        }
    }
}

pub(super) fn out_of_range() -> DecodeError {
    DecodeError::mistyped("float", "a number out of its range")
}
