//! Pickle protocol 5 of the two values that are hashed: `(previous, tokens, ())` and a string, byte
//! for byte as CPython's C pickler writes them.
//!
//! ```text
//! PROTO 5, FRAME n, previous, tokens' tuple, EMPTY_TUPLE, TUPLE3, MEMOIZE, STOP
//! tuple of 1 to 3:  members, TUPLE1|2|3, MEMOIZE      longer:  MARK, members, TUPLE, MEMOIZE
//! ```
//! A frame is closed before the first value that finds 64 KiB or more in it, and another follows.
//! (CPython omits the header of frames below 4 bytes; the shortest here has 4.)
//! Chunks are never empty, so neither is the inner tuple. Writing only; nothing here reads pickles.
//! Upstream: CPython's `Modules/_pickle.c` (3.8 and later), with `HIGHEST_PROTOCOL`.

const PROTO: [u8; 2] = [0x80, 5];
const FRAME: u8 = 0x95;
const MARK: u8 = b'(';
const STOP: u8 = b'.';
const MEMOIZE: u8 = 0x94;
const EMPTY_TUPLE: u8 = b')';
const TUPLE1: u8 = 0x85;
const TUPLE2: u8 = 0x86;
const TUPLE3: u8 = 0x87;
const TUPLE: u8 = b't';
/// One unsigned byte.
const BININT1: u8 = b'K';
/// Two bytes, unsigned, little-endian.
const BININT2: u8 = b'M';
/// Four bytes, signed, little-endian.
const BININT: u8 = b'J';
/// A length byte, then that many bytes, signed, little-endian, as few as keep the sign.
const LONG1: u8 = 0x8a;
/// A length byte, then that much UTF-8.
const SHORT_BINUNICODE: u8 = 0x8c;

/// Bytes in a frame from which on the pickler closes it.
const FRAME_SIZE_TARGET: usize = 64 * 1024;

/// Bytes of a frame's header: opcode and u64 length.
const FRAME_HEADER: usize = 9;

pub(super) fn write_link<T: Copy + Into<i64>>(previous: u64, tokens: &[T], out: &mut Vec<u8>) {
    // Five bytes hold an i32; larger tokens are rare and may grow the buffer.
    out.reserve(tokens.len() * 5 + 64);
    let mut pickle = Pickle::begin(out);
    match i64::try_from(previous) {
        Ok(previous) => pickle.write_int(previous),
        Err(_) => {
            // The ninth byte is the sign.
            pickle.out.extend_from_slice(&[LONG1, 9]);
            pickle.out.extend_from_slice(&previous.to_le_bytes());
            pickle.out.push(0);
        }
    }
    if tokens.len() > 3 {
        pickle.out.push(MARK);
    }
    for &token in tokens {
        pickle.before_value();
        pickle.write_int(token.into());
    }
    let tuple = match tokens.len() {
        1 => TUPLE1,
        2 => TUPLE2,
        3 => TUPLE3,
        _ => TUPLE,
    };
    pickle.out.extend_from_slice(&[tuple, MEMOIZE]);
    pickle.before_value();
    pickle
        .out
        .extend_from_slice(&[EMPTY_TUPLE, TUPLE3, MEMOIZE]);
    pickle.end();
}

/// `text` is a `PYTHONHASHSEED` or a constant: far below the 256 bytes that need another opcode.
pub(super) fn write_str(text: &str, out: &mut Vec<u8>) {
    debug_assert!(text.len() < 256, "a longer text needs BINUNICODE");
    let pickle = Pickle::begin(out);
    pickle
        .out
        .extend_from_slice(&[SHORT_BINUNICODE, text.len().to_le_bytes()[0]]);
    pickle.out.extend_from_slice(text.as_bytes());
    pickle.out.push(MEMOIZE);
    pickle.end();
}

/// A pickle being written: everything up to `frame` is final, the rest is the open frame.
struct Pickle<'a> {
    out: &'a mut Vec<u8>,
    /// Where the open frame's header starts.
    frame: usize,
}

impl<'a> Pickle<'a> {
    fn begin(out: &'a mut Vec<u8>) -> Self {
        out.extend_from_slice(&PROTO);
        let mut pickle = Self { out, frame: 0 };
        pickle.open_frame();
        pickle
    }

    /// To be called before every value: the only places where a frame may end.
    #[inline]
    fn before_value(&mut self) {
        if self.out.len() - self.frame >= FRAME_HEADER + FRAME_SIZE_TARGET {
            self.close_frame();
            self.open_frame();
        }
    }

    #[inline]
    fn write_int(&mut self, value: i64) {
        let [b0, b1, b2, b3, ..] = value.to_le_bytes();
        match value {
            0..0x100 => self.out.extend_from_slice(&[BININT1, b0]),
            0x100..0x1_0000 => self.out.extend_from_slice(&[BININT2, b0, b1]),
            -0x8000_0000..0x8000_0000 => {
                self.out.extend_from_slice(&[BININT, b0, b1, b2, b3]);
            }
            _ => self.write_long(value),
        }
    }

    fn write_long(&mut self, value: i64) {
        let magnitude = if value < 0 { !value } else { value };
        // Bits that differ from the sign, one for the sign, rounded up to bytes: 5 to 8.
        let n_bits = 65 - magnitude.leading_zeros();
        let n_bytes = n_bits.div_ceil(8) as usize;
        self.out.extend_from_slice(&[LONG1, n_bytes as u8]);
        self.out
            .extend(value.to_le_bytes().into_iter().take(n_bytes));
    }

    fn end(mut self) {
        self.out.push(STOP);
        self.close_frame();
    }

    fn open_frame(&mut self) {
        self.frame = self.out.len();
        self.out.extend_from_slice(&[FRAME, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    fn close_frame(&mut self) {
        let length = (self.out.len() - self.frame - FRAME_HEADER) as u64;
        let header = self.frame + 1..self.frame + FRAME_HEADER;
        self.out[header].copy_from_slice(&length.to_le_bytes());
    }
}
