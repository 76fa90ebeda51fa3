//! The least HTTP/1.1 client: one kept-alive connection, requests encoded beforehand.
//!
//! Reads answers with a `Content-Length` only; both controllers send one.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Longest wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Longest body taken.
const MAX_BODY: usize = 64 << 20;

/// A connection.
pub(crate) struct Http {
    stream: BufReader<TcpStream>,
    body: Vec<u8>,
}

impl Http {
    /// Connects to a port of this host.
    pub(crate) fn connect(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(Self {
            stream: BufReader::with_capacity(64 << 10, stream),
            body: Vec::new(),
        })
    }

    /// Sends a request and returns the body of its answer, which must be 200.
    pub(crate) fn ask(&mut self, request: &[u8]) -> io::Result<&[u8]> {
        self.stream.get_mut().write_all(request)?;
        let mut line = String::new();
        self.line(&mut line)?;
        let status = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut length = None;
        loop {
            self.line(&mut line)?;
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse::<usize>().ok();
            }
        }
        let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
        let length = length.filter(|&length| length <= MAX_BODY);
        let length = length.ok_or_else(|| invalid("answer without a usable length".to_owned()))?;
        self.body.resize(length, 0);
        self.stream.read_exact(&mut self.body)?;
        if status == "200" {
            Ok(&self.body)
        } else {
            let body = String::from_utf8_lossy(&self.body);
            Err(invalid(format!("status {status}: {body}")))
        }
    }

    /// Asks for JSON.
    pub(crate) fn json(&mut self, request: &[u8]) -> io::Result<serde_json::Value> {
        Ok(serde_json::from_slice(self.ask(request)?)?)
    }

    /// Reads a header line without its end.
    fn line(&mut self, line: &mut String) -> io::Result<()> {
        line.clear();
        let limited = &mut (&mut self.stream).take(64 << 10);
        if limited.read_line(line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        line.truncate(line.trim_end().len());
        Ok(())
    }
}

/// A GET request.
pub(crate) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: */*\r\n\r\n").into_bytes()
}

/// A POST request with a JSON body.
pub(crate) fn post(path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: */*\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Answers each request on one connection with the next of `answers`.
    fn serve(answers: &'static [&'static str]) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            for answer in answers {
                let mut request = [0; 1024];
                assert!(stream.read(&mut request).unwrap() > 0);
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        port
    }

    #[test]
    fn one_connection_carries_several_requests() {
        let port = serve(&[
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nx: y\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\ncontent-length:3\r\n\r\n[1]",
        ]);
        let mut http = Http::connect(port).unwrap();
        assert_eq!(http.ask(&get("/")).unwrap(), b"{}");
        assert_eq!(http.json(&post("/", "{}")).unwrap(), serde_json::json!([1]));
    }

    #[test]
    fn errors_and_endless_bodies_are_refused() {
        let port = serve(&[
            "HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\ngone",
            "HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n",
        ]);
        let mut http = Http::connect(port).unwrap();
        let error = http.ask(&get("/")).unwrap_err().to_string();
        assert!(error.contains("404") && error.contains("gone"), "{error}");
        assert!(http.ask(&get("/")).is_err());
    }
}
