//! The shape every wire type has, and how a struct is read and written.
//!
//! [`Wire`] is a value, [`Fields`] a struct; `fields!` writes the latter from a list of names, in
//! wire order, with the default where upstream has one. A struct is read in one pass over its map,
//! so a repeated field is read (and checked) each time and the last one stays.

use super::reader::Reader;
use super::{DecodeError, encode};

/// A value that goes over the wire.
pub(crate) trait Wire: Sized {
    fn write(&self, out: &mut Vec<u8>);
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError>;
}

/// A struct that goes over the wire as a map, with or without a tag before its fields.
pub(crate) trait Fields: Sized {
    const COUNT: usize;
    fn write_fields(&self, out: &mut Vec<u8>);
    fn read_fields(reader: &mut Reader<'_>, entries: Entries<'_>) -> Result<Self, DecodeError>;
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
                reader: &mut crate::codec::reader::Reader<'_>,
                mut entries: crate::codec::wire::Entries<'_>,
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
                reader: &mut crate::codec::reader::Reader<'_>,
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
    let entries = Entries::begin(reader, Some(Tag { field, value: tag }))?;
    T::read_fields(reader, entries)
}

/// The tag a map must carry, wherever it stands and however often.
pub(crate) struct Tag<'t> {
    field: &'static str,
    value: &'t str,
}

/// The entries of a map that are still to be read.
pub(crate) struct Entries<'t> {
    left: u32,
    tag: Option<Tag<'t>>,
}

impl<'t> Entries<'t> {
    pub(crate) fn begin(
        reader: &mut Reader<'_>,
        tag: Option<Tag<'t>>,
    ) -> Result<Self, DecodeError> {
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
                if found == tag.value {
                    Ok(())
                } else {
                    Err(DecodeError::unknown_tag(tag.field, found))
                }
            }
            _ => Ok(reader.skip()?),
        }
    }
}
