//! How chunks go from one simulated worker to another: a TCP protocol of our own, one exchange a
//! connection. Real engines move tensors by NIXL or RDMA; here a chunk is its hash and length.
//!
//! ```text
//! request  "KVSIM/1\n"  u16 length, location  u32 n  n x (u64 hash, u32 tokens)     big-endian
//!          "KVGET/1\n"  the same: copies are asked for instead of given
//! reply    0  n bytes, 1 for each chunk held                1  u16 length, text of an error
//! ```
//! A worker serves one connection at a time, with a deadline on every read, so a mute peer costs
//! others at most that. Nothing is allocated by an announced number.

use std::io::{self, BufReader, BufWriter, Error, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use kvatlas_protocol::{ChunkHash, Location};

use super::tiers::Chunk;

const GIVE: &[u8; 8] = b"KVSIM/1\n";
const GET: &[u8; 8] = b"KVGET/1\n";
const MAX_NAME: usize = 1024;
/// Chunks of one exchange: more than any simulated storage holds.
const MAX_CHUNKS: usize = 4 << 20;
const PATIENCE: Duration = Duration::from_secs(5);

/// What a peer wants to do with chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Hand them over.
    Give,
    /// Get copies.
    Get,
}

/// Fulfills a wish about chunks of a location; which of them are held here, or why none is.
pub type Fulfill = dyn Fn(Wish, &Location, &[Chunk]) -> Result<Vec<Chunk>, String> + Send + Sync;

/// Takes and hands out chunks. Ends when dropped.
pub struct PeerServer {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl PeerServer {
    /// Serves `listener` on a thread.
    pub fn start(listener: TcpListener, fulfill: Arc<Fulfill>) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new()
            .name("kvatlas-peer".into())
            .spawn({
                let stop = stop.clone();
                move || {
                    for connection in listener.incoming() {
                        if stop.load(Ordering::Acquire) {
                            return;
                        }
                        if let Err(error) = connection.and_then(|c| serve(&c, fulfill.as_ref())) {
                            tracing::debug!(%error, "peer");
                        }
                    }
                }
            })?;
        Ok(Self {
            address,
            stop,
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for PeerServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let mut own = self.address;
        if own.ip().is_unspecified() {
            own.set_ip(match own {
                SocketAddr::V4(_) => [127, 0, 0, 1].into(),
                SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
            });
        }
        // Ends the wait in `incoming`; if it cannot be reached the thread is left to the process.
        if TcpStream::connect_timeout(&own, Duration::from_secs(1)).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

/// Hands `chunks` to the worker at `url`; those it holds now.
pub fn send(url: &str, location: &Location, chunks: &[Chunk]) -> io::Result<Vec<Chunk>> {
    exchange(GIVE, url, location, chunks)
}

/// Copies of `chunks` from the worker at `url`; those it holds in `location`.
pub fn fetch(url: &str, location: &Location, chunks: &[Chunk]) -> io::Result<Vec<Chunk>> {
    exchange(GET, url, location, chunks)
}

fn exchange(
    wish: &[u8; 8],
    url: &str,
    location: &Location,
    chunks: &[Chunk],
) -> io::Result<Vec<Chunk>> {
    let address = url
        .to_socket_addrs()?
        .next()
        .ok_or_else(|| Error::new(ErrorKind::NotFound, "the name has no address"))?;
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut writer = BufWriter::new(&stream);
    writer.write_all(wish)?;
    write_text(&mut writer, location.as_str())?;
    let n = u32::try_from(chunks.len()).map_err(|_| refused("too many chunks"))?;
    writer.write_all(&n.to_be_bytes())?;
    for chunk in chunks {
        writer.write_all(&chunk.hash.0.to_be_bytes())?;
        writer.write_all(&chunk.tokens.to_be_bytes())?;
    }
    writer.flush()?;
    let mut reader = BufReader::new(&stream);
    if read_array::<1>(&mut reader)? != [0] {
        return Err(Error::other(read_text(&mut reader)?));
    }
    let mut taken = Vec::new();
    for &chunk in chunks {
        if read_array::<1>(&mut reader)? == [1] {
            taken.push(chunk);
        }
    }
    Ok(taken)
}

fn serve(stream: &TcpStream, fulfill: &Fulfill) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream);
    let wish = match &read_array(&mut reader)? {
        GIVE => Wish::Give,
        GET => Wish::Get,
        _ => return Err(refused("not a simulated worker")),
    };
    let location = Location::from(read_text(&mut reader)?);
    let n = u32::from_be_bytes(read_array(&mut reader)?) as usize;
    if n > MAX_CHUNKS {
        return Err(refused("too many chunks"));
    }
    let mut chunks = Vec::new();
    for _ in 0..n {
        chunks.push(Chunk {
            hash: ChunkHash(u64::from_be_bytes(read_array(&mut reader)?)),
            tokens: u32::from_be_bytes(read_array(&mut reader)?),
        });
    }
    let mut writer = BufWriter::new(stream);
    match fulfill(wish, &location, &chunks) {
        Ok(taken) => {
            let taken: std::collections::HashSet<ChunkHash> =
                taken.into_iter().map(|chunk| chunk.hash).collect();
            writer.write_all(&[0])?;
            for chunk in &chunks {
                writer.write_all(&[u8::from(taken.contains(&chunk.hash))])?;
            }
        }
        Err(refusal) => {
            writer.write_all(&[1])?;
            let end = refusal.floor_char_boundary(MAX_NAME);
            write_text(&mut writer, &refusal[..end])?;
        }
    }
    writer.flush()
}

fn write_text(writer: &mut impl Write, text: &str) -> io::Result<()> {
    let length = u16::try_from(text.len())
        .ok()
        .filter(|&length| usize::from(length) <= MAX_NAME)
        .ok_or_else(|| refused("name too long"))?;
    writer.write_all(&length.to_be_bytes())?;
    writer.write_all(text.as_bytes())
}

fn read_text(reader: &mut impl Read) -> io::Result<String> {
    let length = usize::from(u16::from_be_bytes(read_array(reader)?));
    if length > MAX_NAME {
        return Err(refused("name too long"));
    }
    let mut bytes = vec![0; length];
    reader.read_exact(&mut bytes)?;
    String::from_utf8(bytes).map_err(|_| refused("name is not UTF-8"))
}

fn read_array<const N: usize>(reader: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn refused(why: &'static str) -> Error {
    Error::new(ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(n: u64) -> Vec<Chunk> {
        (0..n)
            .map(|hash| Chunk {
                hash: ChunkHash(hash),
                tokens: 256,
            })
            .collect()
    }

    fn server() -> PeerServer {
        let fulfill = |wish, location: &Location, chunks: &[Chunk]| match location.as_str() {
            "cpu" if wish == Wish::Get => Ok(chunks[..chunks.len().min(1)].to_vec()),
            "cpu" => Ok(chunks
                .iter()
                .filter(|c| c.hash.0 % 2 == 0)
                .copied()
                .collect()),
            other => Err(format!("no {other}")),
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        PeerServer::start(listener, Arc::new(fulfill)).unwrap()
    }

    #[test]
    fn chunks_arrive_and_the_sender_learns_which_were_taken() {
        let server = server();
        let url = server.address().to_string();
        assert_eq!(send(&url, &"cpu".into(), &chunks(5)).unwrap().len(), 3);
        assert!(send(&url, &"cpu".into(), &[]).unwrap().is_empty());
        assert_eq!(fetch(&url, &"cpu".into(), &chunks(5)).unwrap(), chunks(1));
        assert!(fetch(&url, &"tape".into(), &chunks(5)).is_err());
        let refusal = send(&url, &"tape".into(), &chunks(2)).unwrap_err();
        assert_eq!(refusal.to_string(), "no tape");
    }

    #[test]
    fn strangers_cost_one_connection() {
        let server = server();
        let url = server.address().to_string();
        for junk in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            b"KVSIM/1\n\xff\xff",
            b"KVSIM/1\n\0\x03cpu\xff\xff\xff\xff",
        ] {
            let mut stream = TcpStream::connect(&url).unwrap();
            stream.write_all(junk).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            // A reset is as good as an end.
            let _ = stream.read_to_end(&mut Vec::new());
        }
        assert_eq!(send(&url, &"cpu".into(), &chunks(1)).unwrap().len(), 1);
    }

    #[test]
    fn nobody_there_is_an_error() {
        let url = server().address().to_string();
        assert!(send(&url, &"cpu".into(), &chunks(1)).is_err());
        assert!(send("no-port", &"cpu".into(), &chunks(1)).is_err());
    }
}
