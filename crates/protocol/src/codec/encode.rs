//! MessagePack items as msgspec writes them: every number and length in its shortest form.

/// Length as a header can carry it. A longer value cannot be built: it would take 4 GiB.
fn length(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

pub(crate) fn nil(out: &mut Vec<u8>) {
    out.push(0xc0);
}

pub(crate) fn boolean(value: bool, out: &mut Vec<u8>) {
    out.push(if value { 0xc3 } else { 0xc2 });
}

#[inline]
pub(crate) fn unsigned(value: u64, out: &mut Vec<u8>) {
    if let Ok(byte) = u8::try_from(value) {
        if byte > 0x7f {
            out.push(0xcc);
        }
        out.push(byte);
    } else if let Ok(value) = u16::try_from(value) {
        out.push(0xcd);
        out.extend(value.to_be_bytes());
    } else if let Ok(value) = u32::try_from(value) {
        out.push(0xce);
        out.extend(value.to_be_bytes());
    } else {
        out.push(0xcf);
        out.extend(value.to_be_bytes());
    }
}

#[inline]
pub(crate) fn signed(value: i64, out: &mut Vec<u8>) {
    if let Ok(value) = u64::try_from(value) {
        unsigned(value, out);
    } else if let Ok(byte) = i8::try_from(value) {
        if byte < -32 {
            out.push(0xd0);
        }
        out.push(byte.cast_unsigned());
    } else if let Ok(value) = i16::try_from(value) {
        out.push(0xd1);
        out.extend(value.to_be_bytes());
    } else if let Ok(value) = i32::try_from(value) {
        out.push(0xd2);
        out.extend(value.to_be_bytes());
    } else {
        out.push(0xd3);
        out.extend(value.to_be_bytes());
    }
}

pub(crate) fn float(value: f64, out: &mut Vec<u8>) {
    out.push(0xcb);
    out.extend(value.to_be_bytes());
}

pub(crate) fn text(value: &str, out: &mut Vec<u8>) {
    text_bytes(value.as_bytes(), out);
}

/// Text that may not be UTF-8; its reader decides whether that matters.
pub(crate) fn text_bytes(value: &[u8], out: &mut Vec<u8>) {
    match length(value.len()) {
        len @ 0..=31 => out.push(0xa0 | low_byte(len)),
        len => header(len, [0xd9, 0xda, 0xdb], out),
    }
    out.extend_from_slice(value);
}

pub(crate) fn bytes(value: &[u8], out: &mut Vec<u8>) {
    header(length(value.len()), [0xc4, 0xc5, 0xc6], out);
    out.extend_from_slice(value);
}

pub(crate) fn extension(kind: i8, value: &[u8], out: &mut Vec<u8>) {
    match value.len() {
        1 => out.push(0xd4),
        2 => out.push(0xd5),
        4 => out.push(0xd6),
        8 => out.push(0xd7),
        16 => out.push(0xd8),
        len => header(length(len), [0xc7, 0xc8, 0xc9], out),
    }
    out.push(kind.cast_unsigned());
    out.extend_from_slice(value);
}

pub(crate) fn array(len: usize, out: &mut Vec<u8>) {
    container(length(len), 0x90, [0xdc, 0xdd], out);
}

pub(crate) fn map(len: usize, out: &mut Vec<u8>) {
    container(length(len), 0x80, [0xde, 0xdf], out);
}

fn low_byte(len: u32) -> u8 {
    len.to_be_bytes()[3]
}

fn container(len: u32, short: u8, [middle, long]: [u8; 2], out: &mut Vec<u8>) {
    if len <= 15 {
        out.push(short | low_byte(len));
    } else if let Ok(len) = u16::try_from(len) {
        out.push(middle);
        out.extend(len.to_be_bytes());
    } else {
        out.push(long);
        out.extend(len.to_be_bytes());
    }
}

fn header(len: u32, [short, middle, long]: [u8; 3], out: &mut Vec<u8>) {
    if let Ok(len) = u8::try_from(len) {
        out.extend([short, len]);
    } else if let Ok(len) = u16::try_from(len) {
        out.push(middle);
        out.extend(len.to_be_bytes());
    } else {
        out.push(long);
        out.extend(len.to_be_bytes());
    }
}
