//! A free-form value: what a heartbeat command may carry in `args`.

/// Anything MessagePack or JSON can say.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Null.
    Nil,
    /// A boolean.
    Bool(bool),
    /// An int that is not negative.
    Unsigned(u64),
    /// A negative int.
    Negative(i64),
    /// A float.
    Float(f64),
    /// Text.
    Text(String),
    /// Bytes; only MessagePack can say this.
    Bytes(Vec<u8>),
    /// An extension with its type; only MessagePack can say this.
    Extension(i8, Vec<u8>),
    /// Values in order.
    Array(Vec<Value>),
    /// Keys and values in order, keys as they came (scalars; repeated keys are kept).
    Map(Vec<(Value, Value)>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}
