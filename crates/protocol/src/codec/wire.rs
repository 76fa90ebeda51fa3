//! The strict reader and the shape every wire type has.
//!
//! [`Wire`] is a value, [`Fields`] a struct; `fields!` writes the latter from a list of names, in
//! wire order, with the default where upstream has one. A struct is read in one pass over its map,
//! so a repeated field is read (and checked) each time and the last one stays.

use indexmap::IndexMap;

use super::cursor::{Cursor, Token};
use super::error::Problem;
use super::{DecodeError, MAX_VALUE_DEPTH, encode};
use crate::message::{Value, WireKey};

/// A value that goes over the wire.
pub(crate) trait Wire: Sized {
    fn write(&self, out: &mut Vec<u8>);
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError>;
}

/// A struct that goes over the wire as a map, with or without a tag before its fields.
pub(crate) trait Fields: Sized {
    const COUNT: usize;
    fn write_fields(&self, out: &mut Vec<u8>);
    fn read_fields(reader: &mut Reader<'_>, entries: Entries) -> Result<Self, DecodeError>;
}

/// Implements [`Fields`] and [`Wire`] for a struct from its field names.
macro_rules! fields {
    ($name:ident { $($field:ident $(= $default:expr)?),* $(,)? }) => {
        impl crate::codec::wire::Fields for $name {
            const COUNT: usize = [$(stringify!($field)),*].len();

            fn write_fields(&self, out: &mut Vec<u8>) {
                let Self { $($field),* } = self;
                $(
                    crate::codec::encode::text(stringify!($field), out);
                    crate::codec::wire::Wire::write($field, out);
                )*
            }

            fn read_fields(
                reader: &mut crate::codec::wire::Reader<'_>,
                mut entries: crate::codec::wire::Entries,
            ) -> Result<Self, crate::codec::DecodeError> {
                $(let mut $field = None;)*
                while let Some(key) = entries.next_key(reader)? {
                    $(if key == stringify!($field).as_bytes() {
                        $field = Some(reader.field(stringify!($field))?);
                        continue;
                    })*
                    entries.other(reader, key)?;
                }
                Ok(Self {
                    $($field: match $field {
                        Some(value) => value,
                        None => fields!(@absent $field $($default)?),
                    },)*
                })
            }
        }

        impl crate::codec::wire::Wire for $name {
            fn write(&self, out: &mut Vec<u8>) {
                use crate::codec::wire::Fields as _;
                crate::codec::encode::map(Self::COUNT, out);
                self.write_fields(out);
            }

            fn read(
                reader: &mut crate::codec::wire::Reader<'_>,
            ) -> Result<Self, crate::codec::DecodeError> {
                let entries = crate::codec::wire::Entries::begin(reader, None)?;
                crate::codec::wire::Fields::read_fields(reader, entries)
            }
        }
    };
    (@absent $field:ident) => {
        return Err(crate::codec::DecodeError::missing(stringify!($field)))
    };
    (@absent $field:ident $default:expr) => { $default };
}
pub(crate) use fields;

/// Writes a struct with its tag first.
pub(crate) fn write_tagged<T: Fields>(field: &str, tag: &str, fields: &T, out: &mut Vec<u8>) {
    encode::map(T::COUNT + 1, out);
    encode::text(field, out);
    encode::text(tag, out);
    fields.write_fields(out);
}

/// Reads a struct whose tag is known from [`Reader::peek_tag`].
pub(crate) fn read_tagged<T: Fields>(
    reader: &mut Reader<'_>,
    field: &'static str,
    tag: &str,
) -> Result<T, DecodeError> {
    // JSON keys of these two may be text: see `WireKey::from_text`.
    reader.text_keys = reader.json && matches!(tag, "KVAdmitMsg" | "KVEvictMsg");
    let tag = Tag {
        field,
        value: tag.into(),
    };
    let entries = Entries::begin(reader, Some(tag))?;
    T::read_fields(reader, entries)
}

/// The tag a map must carry, wherever it stands and however often.
pub(crate) struct Tag {
    field: &'static str,
    value: Box<str>,
}

/// The entries of a map that are still to be read.
pub(crate) struct Entries {
    left: u32,
    tag: Option<Tag>,
}

impl Entries {
    pub(crate) fn begin(reader: &mut Reader<'_>, tag: Option<Tag>) -> Result<Self, DecodeError> {
        let left = reader.map()?;
        Ok(Self { left, tag })
    }

    /// The next field's name, which need not be UTF-8.
    pub(crate) fn next_key<'a>(
        &mut self,
        reader: &mut Reader<'a>,
    ) -> Result<Option<&'a [u8]>, DecodeError> {
        match self.left.checked_sub(1) {
            None => Ok(None),
            Some(left) => {
                self.left = left;
                reader.key().map(Some)
            }
        }
    }

    /// Reads a field the struct does not have: its tag, or something unknown.
    pub(crate) fn other(&self, reader: &mut Reader<'_>, key: &[u8]) -> Result<(), DecodeError> {
        match &self.tag {
            Some(tag) if tag.field.as_bytes() == key => {
                let found = reader.text().map_err(|error| error.in_field(tag.field))?;
                if found == &*tag.value {
                    Ok(())
                } else {
                    Err(DecodeError::unknown_tag(tag.field, found))
                }
            }
            _ => Ok(reader.cursor.skip()?),
        }
    }
}

/// Reads values strictly from MessagePack, or from JSON rewritten as MessagePack.
pub(crate) struct Reader<'a> {
    cursor: Cursor<'a>,
    /// The source was JSON: int keys of a map are text, floats must be finite.
    json: bool,
    text_keys: bool,
    /// Free-form values around the one being read.
    depth: u32,
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

    fn map(&mut self) -> Result<u32, DecodeError> {
        match self.cursor.token()? {
            Token::Map(length) => Ok(length),
            other => Err(DecodeError::mistyped("object", other.kind())),
        }
    }

    fn array(&mut self) -> Result<u32, DecodeError> {
        match self.cursor.token()? {
            Token::Array(length) => Ok(length),
            other => Err(DecodeError::mistyped("array", other.kind())),
        }
    }

    fn array_of(&mut self, expected: u32) -> Result<(), DecodeError> {
        match self.array()? {
            found if found == expected => Ok(()),
            found => Err(Problem::WrongLength { expected, found }.into()),
        }
    }

    fn element<T: Wire>(&mut self, index: usize) -> Result<T, DecodeError> {
        T::read(self).map_err(|error| error.in_element(index))
    }

    fn key(&mut self) -> Result<&'a [u8], DecodeError> {
        match self.cursor.token()? {
            Token::Text(key) => Ok(key),
            other => Err(DecodeError::mistyped("str", other.kind()).in_key()),
        }
    }

    fn is_nil(&mut self) -> bool {
        let mut ahead = self.cursor;
        let nil = ahead.token() == Ok(Token::Nil);
        if nil {
            self.cursor = ahead;
        }
        nil
    }
}

fn utf8(text: &[u8]) -> Result<&str, DecodeError> {
    std::str::from_utf8(text).map_err(|_| Problem::NotUtf8.into())
}

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

fn int(token: Token<'_>) -> Result<i64, DecodeError> {
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

fn out_of_range() -> DecodeError {
    DecodeError::mistyped("float", "a number out of its range")
}

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
