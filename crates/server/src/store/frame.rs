//! What files look like around what is in them: magic, version, lengths, checksums.
//!
//! ```text
//! snapshot: "KVATLSNP" version:u32 block*         block: kind:u8 length:u32 crc:u32 payload
//! journal:  "KVATLJNL" version:u32 crc:u32 position:u64 group*
//!                                                 group: length:u32 crc:u32 first:u64 payload
//! ```
//! Little-endian. A checksum is CRC-32 (IEEE) of kind and payload, of position, of first and payload.
//! Nothing is believed before its checksum; no length reserves more than the file has.
//! docs/state-format.md tells it byte by byte.

use std::ops::RangeInclusive;

use kvatlas_controller::snapshot;

/// Version of journals. Others are refused, with what was found; snapshots have their own.
pub const VERSION: u32 = 1;
const SNAPSHOT: &[u8; 8] = b"KVATLSNP";
const JOURNAL: &[u8; 8] = b"KVATLJNL";

/// Bytes before a journal's first group.
pub const JOURNAL_HEADER: usize = 24;
/// Bytes before a group's payload.
pub const GROUP_HEADER: usize = 16;

/// Kinds of a snapshot's blocks, in the order in which they come.
pub mod kind {
    /// [`super::Head`].
    pub const HEAD: u8 = 1;
    /// Worker records.
    pub const WORKERS: u8 = 2;
    /// Keys.
    pub const KEYS: u8 = 3;
    /// Number of keys; nothing follows.
    pub const END: u8 = 4;
}

/// Why a file cannot be used, or not beyond some point.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Not a file of this kind.
    #[error("it does not begin as one")]
    Magic,
    /// Written by another version.
    #[error("it has format version {0}, this program reads {first} to {last}", first = .1.start(), last = .1.end())]
    Version(u32, RangeInclusive<u32>),
    /// It ends in the middle.
    #[error("it ends early")]
    Truncated,
    /// A checksum does not match.
    #[error("a checksum does not match")]
    Checksum,
    /// Checksums are right and the content is not.
    #[error("{0}")]
    Content(String),
}

/// What a snapshot begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The journal's position from which to replay.
    pub position: u64,
    /// Seed of the index's hash, so that keys come back in its order. Secret: files are the
    /// owner's alone.
    pub seed: u64,
    /// Microseconds since the epoch.
    pub created: u64,
    /// Written when the process ended in order: nothing happened afterwards.
    pub is_clean: bool,
}

impl Head {
    fn write(&self) -> Vec<u8> {
        let mut payload = Vec::with_capacity(25);
        for number in [self.position, self.seed, self.created] {
            payload.extend_from_slice(&number.to_le_bytes());
        }
        payload.push(u8::from(self.is_clean));
        payload
    }

    fn read(mut payload: &[u8]) -> Result<Self, Damage> {
        let short = || Damage::Content("the first block is too short".into());
        Ok(Self {
            position: take_u64(&mut payload).ok_or_else(short)?,
            seed: take_u64(&mut payload).ok_or_else(short)?,
            created: take_u64(&mut payload).ok_or_else(short)?,
            is_clean: *payload.first().ok_or_else(short)? != 0,
        })
    }
}

/// The first bytes of a snapshot.
pub fn snapshot_start(head: &Head, out: &mut Vec<u8>) {
    out.extend_from_slice(SNAPSHOT);
    out.extend_from_slice(&snapshot::VERSION.to_le_bytes());
    block(kind::HEAD, &head.write(), out);
}

/// One block of a snapshot.
pub fn block(kind: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.push(kind);
    out.extend_from_slice(&length(payload));
    out.extend_from_slice(&crc(&[&[kind], payload]).to_le_bytes());
    out.extend_from_slice(payload);
}

/// Takes a snapshot apart; a damaged one ends with an error.
#[derive(Debug)]
pub struct Blocks<'a> {
    rest: &'a [u8],
    /// Version of what the blocks contain.
    pub version: u32,
    /// The head.
    pub head: Head,
}

impl<'a> Blocks<'a> {
    /// Reads the first bytes.
    pub fn open(file: &'a [u8]) -> Result<Self, Damage> {
        let (version, rest) = versioned(file, SNAPSHOT, snapshot::OLDEST..=snapshot::VERSION)?;
        let mut blocks = Self {
            rest,
            version,
            head: Head {
                position: 0,
                seed: 0,
                created: 0,
                is_clean: false,
            },
        };
        match blocks.block()? {
            (kind::HEAD, payload) => blocks.head = Head::read(payload)?,
            _ => return Err(Damage::Content("the first block is missing".into())),
        }
        Ok(blocks)
    }

    /// Kind and payload of the next block. A whole snapshot ends with [`kind::END`].
    pub fn block(&mut self) -> Result<(u8, &'a [u8]), Damage> {
        let kind = *self.rest.first().ok_or(Damage::Truncated)?;
        self.rest = &self.rest[1..];
        let len = take_u32(&mut self.rest).ok_or(Damage::Truncated)?;
        let expected = take_u32(&mut self.rest).ok_or(Damage::Truncated)?;
        let (payload, rest) = split(self.rest, len)?;
        if crc(&[&[kind], payload]) != expected {
            return Err(Damage::Checksum);
        }
        self.rest = rest;
        Ok((kind, payload))
    }
}

/// The first bytes of a journal whose first record has `position`.
pub fn journal_start(position: u64) -> [u8; JOURNAL_HEADER] {
    let mut header = [0; JOURNAL_HEADER];
    let position = position.to_le_bytes();
    header[..8].copy_from_slice(JOURNAL);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..16].copy_from_slice(&crc(&[&position]).to_le_bytes());
    header[16..].copy_from_slice(&position);
    header
}

/// What stands before a group's payload.
pub fn group_start(first: u64, payload: &[u8]) -> [u8; GROUP_HEADER] {
    let mut header = [0; GROUP_HEADER];
    let first = first.to_le_bytes();
    header[..4].copy_from_slice(&length(payload));
    header[4..8].copy_from_slice(&crc(&[&first, payload]).to_le_bytes());
    header[8..].copy_from_slice(&first);
    header
}

/// Takes a journal apart.
#[derive(Debug)]
pub struct Groups<'a> {
    file: &'a [u8],
    rest: &'a [u8],
    /// Position of its first record.
    pub position: u64,
}

impl<'a> Groups<'a> {
    /// Reads the first bytes.
    pub fn open(file: &'a [u8]) -> Result<Self, Damage> {
        let (_, mut rest) = versioned(file, JOURNAL, VERSION..=VERSION)?;
        let expected = take_u32(&mut rest).ok_or(Damage::Truncated)?;
        let position = take_u64(&mut rest).ok_or(Damage::Truncated)?;
        if crc(&[&position.to_le_bytes()]) != expected {
            return Err(Damage::Checksum);
        }
        Ok(Self {
            file,
            rest,
            position,
        })
    }

    /// Position of the first record and payload of the next group; `None` at the end.
    pub fn group(&mut self) -> Result<Option<(u64, &'a [u8])>, Damage> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let mut rest = self.rest;
        let len = take_u32(&mut rest).ok_or(Damage::Truncated)?;
        let expected = take_u32(&mut rest).ok_or(Damage::Truncated)?;
        let first = take_u64(&mut rest).ok_or(Damage::Truncated)?;
        let (payload, rest) = split(rest, len)?;
        if crc(&[&first.to_le_bytes(), payload]) != expected {
            return Err(Damage::Checksum);
        }
        self.rest = rest;
        Ok(Some((first, payload)))
    }

    /// Bytes read so far: where a damaged file is cut.
    pub fn offset(&self) -> usize {
        self.file.len() - self.rest.len()
    }
}

fn versioned<'a>(
    file: &'a [u8],
    magic: &[u8; 8],
    read: RangeInclusive<u32>,
) -> Result<(u32, &'a [u8]), Damage> {
    let mut rest = file.strip_prefix(magic).ok_or(Damage::Magic)?;
    let version = take_u32(&mut rest).ok_or(Damage::Truncated)?;
    match read.contains(&version) {
        true => Ok((version, rest)),
        false => Err(Damage::Version(version, read)),
    }
}

fn split(bytes: &[u8], len: u32) -> Result<(&[u8], &[u8]), Damage> {
    let len = usize::try_from(len).map_err(|_| Damage::Truncated)?;
    bytes.split_at_checked(len).ok_or(Damage::Truncated)
}

fn length(payload: &[u8]) -> [u8; 4] {
    // Blocks and groups are closed long before 4 GiB.
    u32::try_from(payload.len())
        .unwrap_or(u32::MAX)
        .to_le_bytes()
}

fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u32::from_le_bytes(*number))
}

fn take_u64(bytes: &mut &[u8]) -> Option<u64> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u64::from_le_bytes(*number))
}

fn crc(parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize()
}
