//! MessagePack rewritten as JSON, as msgspec would write it.

use crate::codec::cursor::{Cursor, Token};

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
