//! Containers on the wire: optional values, arrays, tuples, free maps and free-form values.
//!
//! **Invariant.** Nothing is reserved by an announced length.

use indexmap::IndexMap;

use super::cursor::{Cursor, Token};
use super::error::Problem;
use super::reader::{Reader, utf8};
use super::scalar::{int, out_of_range};
use super::wire::Wire;
use super::{DecodeError, MAX_VALUE_DEPTH, encode};
use crate::message::Value;

impl<T: Wire> Wire for Option<T> {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Some(value) => value.write(out),
            None => encode::nil(out),
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if reader.is_nil() {
            Ok(None)
        } else {
            T::read(reader).map(Some)
        }
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn write(&self, out: &mut Vec<u8>) {
        encode::array(self.len(), out);
        for element in self {
            element.write(out);
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let length = reader.array()?;
        let mut elements = Self::new();
        for _ in 0..length {
            elements.push(reader.element(elements.len())?);
        }
        Ok(elements)
    }
}

impl<A: Wire, B: Wire> Wire for (A, B) {
    fn write(&self, out: &mut Vec<u8>) {
        encode::array(2, out);
        self.0.write(out);
        self.1.write(out);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.array_of(2)?;
        Ok((reader.element(0)?, reader.element(1)?))
    }
}

impl<A: Wire, B: Wire, C: Wire, D: Wire> Wire for (A, B, C, D) {
    fn write(&self, out: &mut Vec<u8>) {
        encode::array(4, out);
        self.0.write(out);
        self.1.write(out);
        self.2.write(out);
        self.3.write(out);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.array_of(4)?;
        Ok((
            reader.element(0)?,
            reader.element(1)?,
            reader.element(2)?,
            reader.element(3)?,
        ))
    }
}

/// The key of a free map, which JSON can only say as text.
trait Key: Wire + std::hash::Hash + Eq {
    fn read_key(reader: &mut Reader<'_>) -> Result<Self, DecodeError>;
}

impl Key for String {
    fn read_key(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Self::read(reader)
    }
}

impl Key for i64 {
    fn read_key(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.cursor.token()? {
            Token::Text(digits) if reader.json => {
                let mut transcoded = Vec::new();
                super::json::int(digits, &mut transcoded)
                    .ok_or_else(|| DecodeError::mistyped("int", "str"))?;
                int(Cursor::new(&transcoded).token()?)
            }
            other => int(other),
        }
    }
}

impl<K: Key, V: Wire> Wire for IndexMap<K, V> {
    fn write(&self, out: &mut Vec<u8>) {
        encode::map(self.len(), out);
        for (key, value) in self {
            key.write(out);
            value.write(out);
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let length = reader.map()?;
        let mut map = Self::new();
        for _ in 0..length {
            let key = K::read_key(reader).map_err(DecodeError::in_key)?;
            let value = V::read(reader).map_err(DecodeError::in_entry)?;
            map.insert(key, value);
        }
        Ok(map)
    }
}

impl Wire for Value {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Nil => encode::nil(out),
            Self::Bool(value) => encode::boolean(*value, out),
            Self::Unsigned(value) => encode::unsigned(*value, out),
            Self::Negative(value) => encode::signed(*value, out),
            Self::Float(value) => encode::float(*value, out),
            Self::Text(value) => encode::text(value, out),
            Self::Bytes(value) => encode::bytes(value, out),
            Self::Extension(kind, value) => encode::extension(*kind, value, out),
            Self::Array(values) => values.write(out),
            Self::Map(entries) => {
                encode::map(entries.len(), out);
                for (key, value) in entries {
                    key.write(out);
                    value.write(out);
                }
            }
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if reader.depth == MAX_VALUE_DEPTH {
            return Err(Problem::TooDeep.into());
        }
        reader.depth += 1;
        let value = free_value(reader);
        reader.depth -= 1;
        value
    }
}

fn free_value(reader: &mut Reader<'_>) -> Result<Value, DecodeError> {
    Ok(match reader.cursor.token()? {
        Token::Nil => Value::Nil,
        Token::Bool(value) => Value::Bool(value),
        Token::Unsigned(value) => Value::Unsigned(value),
        Token::Negative(value) => Value::Negative(value),
        Token::Float(value) if reader.json && !value.is_finite() => return Err(out_of_range()),
        Token::Float(value) => Value::Float(value),
        Token::Text(text) => Value::Text(utf8(text)?.to_owned()),
        Token::Bytes(bytes) => Value::Bytes(bytes.to_owned()),
        Token::Extension(kind, bytes) => Value::Extension(kind, bytes.to_owned()),
        Token::Array(length) => {
            let mut values = Vec::new();
            for _ in 0..length {
                values.push(reader.element(values.len())?);
            }
            Value::Array(values)
        }
        Token::Map(length) => {
            let mut entries = Vec::new();
            for _ in 0..length {
                let key = match Value::read(reader).map_err(DecodeError::in_key)? {
                    Value::Array(_) => Err(DecodeError::mistyped("a scalar", "array").in_key()),
                    Value::Map(_) => Err(DecodeError::mistyped("a scalar", "object").in_key()),
                    key => Ok(key),
                }?;
                let value = Value::read(reader).map_err(DecodeError::in_entry)?;
                entries.push((key, value));
            }
            Value::Map(entries)
        }
    })
}
