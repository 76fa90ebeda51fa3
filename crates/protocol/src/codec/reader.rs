//! The strict reader: values from MessagePack, or from JSON rewritten as MessagePack.

use super::DecodeError;
use super::cursor::{Cursor, Token};
use super::error::Problem;
use super::wire::Wire;

/// Reads values strictly from MessagePack, or from JSON rewritten as MessagePack.
pub(crate) struct Reader<'a> {
    pub(super) cursor: Cursor<'a>,
    /// The source was JSON: int keys of a map are text, floats must be finite.
    pub(super) json: bool,
    pub(super) text_keys: bool,
    /// Free-form values around the one being read.
    pub(super) depth: u32,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(payload: &'a [u8]) -> Self {
        Self {
            cursor: Cursor::new(payload),
            json: false,
            text_keys: false,
            depth: 0,
        }
    }

    pub(crate) fn for_json(transcoded: &'a [u8]) -> Self {
        Self {
            json: true,
            ..Self::new(transcoded)
        }
    }

    /// Reads one value that fills the payload.
    pub(crate) fn whole<T>(
        mut self,
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        let value = read(&mut self)?;
        if self.cursor.rest().is_empty() {
            Ok(value)
        } else {
            Err(Problem::Trailing(self.cursor.position()).into())
        }
    }

    /// The tag of the map that comes next, wherever in it the tag stands.
    pub(crate) fn peek_tag(&self, field: &'static str) -> Result<&'a str, DecodeError> {
        let mut ahead = Reader { ..*self };
        let length = ahead.map()?;
        for _ in 0..length {
            if ahead.key()? == field.as_bytes() {
                return ahead.text().map_err(|error| error.in_field(field));
            }
            ahead.cursor.skip()?;
        }
        Err(DecodeError::missing(field))
    }

    /// Reads the value of a struct's field.
    pub(crate) fn field<T: Wire>(&mut self, name: &'static str) -> Result<T, DecodeError> {
        T::read(self).map_err(|error| error.in_field(name))
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, DecodeError> {
        match self.cursor.token()? {
            Token::Text(text) => utf8(text),
            other => Err(DecodeError::mistyped("str", other.kind())),
        }
    }

    pub(super) fn skip(&mut self) -> Result<(), DecodeError> {
        Ok(self.cursor.skip()?)
    }

    pub(super) fn map(&mut self) -> Result<u32, DecodeError> {
        match self.cursor.token()? {
            Token::Map(length) => Ok(length),
            other => Err(DecodeError::mistyped("object", other.kind())),
        }
    }

    pub(super) fn array(&mut self) -> Result<u32, DecodeError> {
        match self.cursor.token()? {
            Token::Array(length) => Ok(length),
            other => Err(DecodeError::mistyped("array", other.kind())),
        }
    }

    pub(super) fn array_of(&mut self, expected: u32) -> Result<(), DecodeError> {
        match self.array()? {
            found if found == expected => Ok(()),
            found => Err(Problem::WrongLength { expected, found }.into()),
        }
    }

    pub(super) fn element<T: Wire>(&mut self, index: usize) -> Result<T, DecodeError> {
        T::read(self).map_err(|error| error.in_element(index))
    }

    pub(super) fn key(&mut self) -> Result<&'a [u8], DecodeError> {
        match self.cursor.token()? {
            Token::Text(key) => Ok(key),
            other => Err(DecodeError::mistyped("str", other.kind()).in_key()),
        }
    }

    pub(super) fn is_nil(&mut self) -> bool {
        let mut ahead = self.cursor;
        let nil = ahead.token() == Ok(Token::Nil);
        if nil {
            self.cursor = ahead;
        }
        nil
    }
}

pub(super) fn utf8(text: &[u8]) -> Result<&str, DecodeError> {
    std::str::from_utf8(text).map_err(|_| Problem::NotUtf8.into())
}
