//! JSON rewritten as MessagePack and back, without recursion.
//!
//! The strict reader then serves both encodings. The grammar is msgspec's: RFC 8259, where text
//! that nobody reads need not be UTF-8 and a number too large for an int becomes a float (which an
//! int field then refuses). Containers are written with 32-bit headers whose counts are filled in
//! when they close, so the output is at most a few times as long as the input.

mod scan;
mod write;

use super::error::Problem;
use super::{DecodeError, MAX_SKIP_DEPTH};
use scan::Scan;

pub(crate) use write::from_msgpack;

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
