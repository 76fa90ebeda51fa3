//! HTTPS with real certificates: who is let in, what a change of files does, and what a client that
//! never shakes hands costs.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

#[allow(dead_code, reason = "shared with the tests of the fronts")]
#[path = "fronts/support.rs"]
mod support;

use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use kvatlas_server::app::{App, StartError};
use kvatlas_server::config::Config;
use kvatlas_server::logging::Levels;
use kvatlas_server::tls::TlsError;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::support::{Controller, eventually};

/// A directory with certificates; removed when dropped.
struct Files(PathBuf);

impl Files {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("kvatlas-tls-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_string_lossy().into_owned()
    }

    /// As careful people do it: no reader sees half a file.
    fn write(&self, name: &str, text: &str) -> String {
        let (new, path) = (self.path("new"), self.path(name));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, &path).unwrap();
        path
    }

    fn issue(&self, by: &Authority, name: &str, host: &str, not_after: (i32, u8, u8)) {
        let mut params = CertificateParams::new(vec![host.into(), "127.0.0.1".into()]).unwrap();
        params.not_after = rcgen::date_time_ymd(not_after.0, not_after.1, not_after.2);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, by).unwrap();
        self.write(&format!("{name}.key"), &key.serialize_pem());
        self.write(&format!("{name}.pem"), &certificate.pem());
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

const FAR: (i32, u8, u8) = (2101, 2, 3);
/// FAR in seconds since 1970.
const FAR_SECONDS: f64 = 4_136_832_000.0;
const PAST: (i32, u8, u8) = (2020, 1, 1);

fn set(config: &mut Config, key: &str, value: &str) {
    config.set(key, value).unwrap().unwrap();
}

/// With the certificate `front`, signed by an authority in ca.pem.
fn https(files: &Files, change: impl FnOnce(&mut Config)) -> (Controller, Authority) {
    let authority = authority();
    files.write("ca.pem", &authority.pem());
    files.issue(&authority, "front", "localhost", FAR);
    let controller = Controller::with(|config| {
        set(config, "tls_cert", &files.path("front.pem"));
        set(config, "tls_key", &files.path("front.key"));
        change(config);
    });
    (controller, authority)
}

/// How a client of the tests shakes hands.
struct Client<'a> {
    files: &'a Files,
    ca: &'a str,
    /// Name of its certificate.
    own: Option<&'a str>,
    alpn: Option<&'a [u8]>,
    version: &'static rustls::SupportedProtocolVersion,
}

impl<'a> Client<'a> {
    fn trusting(files: &'a Files, ca: &'a str) -> Self {
        Self {
            files,
            ca,
            own: None,
            alpn: None,
            version: &rustls::version::TLS13,
        }
    }

    fn config(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_file(self.files.path(self.ca)).unwrap();
        roots.add(ca).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[self.version])
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match self.own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let file = |end: &str| self.files.path(&format!("{own}.{end}"));
                let chain = vec![CertificateDer::from_pem_file(file("pem")).unwrap()];
                let key = PrivateKeyDer::from_pem_file(file("key")).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols = self.alpn.map(<[u8]>::to_vec).into_iter().collect();
        config
    }

    /// Connected; the handshake happens at the first byte.
    fn connect(&self, controller: &Controller) -> StreamOwned<ClientConnection, TcpStream> {
        let stream = TcpStream::connect(controller.addresses.http).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let name = "localhost".try_into().unwrap();
        let connection = ClientConnection::new(Arc::new(self.config()), name).unwrap();
        StreamOwned::new(connection, stream)
    }

    /// Head and body of an answer; why there is none.
    fn get(&self, controller: &Controller, path: &str) -> std::io::Result<(u16, String)> {
        self.request(controller, "GET", path, "")
    }

    fn request(
        &self,
        controller: &Controller,
        method: &str,
        path: &str,
        headers: &str,
    ) -> std::io::Result<(u16, String)> {
        let mut stream = self.connect(controller);
        let text = format!(
            "{method} {path} HTTP/1.1\r\nhost: kv\r\nconnection: close\r\ncontent-length: 0\r\n{headers}\r\n"
        );
        stream.write_all(text.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        Ok((status, answer))
    }

    /// A value of the metrics page.
    fn metric(&self, controller: &Controller, sample: &str) -> f64 {
        let (status, page) = self.get(controller, "/metrics").unwrap();
        assert_eq!(status, 200, "{page}");
        let value = page
            .lines()
            .find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        value
            .unwrap_or_else(|| panic!("no {sample} in {page}"))
            .parse()
            .unwrap()
    }

    /// The certificate that a new connection is shown.
    fn shown(&self, controller: &Controller) -> Vec<u8> {
        let mut stream = self.connect(controller);
        stream.conn.complete_io(&mut stream.sock).unwrap();
        stream.conn.peer_certificates().unwrap()[0].to_vec()
    }
}

const PATIENCE: Duration = Duration::from_secs(20);
const FAILED: &str = "kvatlas_tls_handshakes_failed_total";

fn der(files: &Files, name: &str) -> Vec<u8> {
    CertificateDer::from_pem_file(files.path(name))
        .unwrap()
        .to_vec()
}

fn kvatlas(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvatlas"));
    for (name, _) in std::env::vars() {
        if name.starts_with("LMCACHE_CONTROLLER_") || name.starts_with("KVATLAS_") {
            command.env_remove(name);
        }
    }
    command.args(args);
    command
}

/// The command, with front.pem.
struct Process {
    child: Child,
    url: String,
    log: Lines<BufReader<ChildStderr>>,
}

impl Process {
    fn start(files: &Files) -> Self {
        let mut child = kvatlas(&[
            "--host=127.0.0.1",
            "--port=0",
            r#"--monitor-ports={"pull": 0, "reply": 0, "heartbeat": 0}"#,
            "--no-state",
            "--tls-cert",
            &files.path("front.pem"),
            "--tls-key",
            &files.path("front.key"),
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let url = lines.find_map(|line| {
            let line = line.unwrap();
            let mut words = line.strip_prefix("listening ")?.split(' ');
            words.find_map(|word| word.strip_prefix("http=").map(str::to_owned))
        });
        Self {
            log: BufReader::new(child.stderr.take().unwrap()).lines(),
            url: url.unwrap(),
            child,
        }
    }

    /// Reads on; the test's own limit of time is the limit.
    fn wait_for_log(&mut self, text: &str) {
        let mut lines = self.log.by_ref().map(Result::unwrap);
        assert!(lines.any(|line| line.contains(text)), "{text}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_right_authority_is_trusted_and_another_is_not() {
    let files = Files::new("right");
    let (controller, _) = https(&files, |_| {});
    assert!(
        controller
            .addresses
            .to_string()
            .starts_with("listening http=https://127.0.0.1:")
    );
    let client = Client::trusting(&files, "ca.pem");
    assert_eq!(client.get(&controller, "/readyz").unwrap().0, 200);
    let old = Client {
        version: &rustls::version::TLS12,
        alpn: Some(b"http/1.1"),
        ..Client::trusting(&files, "ca.pem")
    };
    assert_eq!(old.get(&controller, "/readyz").unwrap().0, 200);
    let expiry = "kvatlas_tls_certificate_expiry_timestamp_seconds";
    assert_eq!(client.metric(&controller, expiry), FAR_SECONDS);

    files.write("other.pem", &authority().pem());
    let wrong = Client::trusting(&files, "other.pem").get(&controller, "/readyz");
    let why = wrong.unwrap_err().to_string();
    assert!(why.contains("invalid peer certificate"), "{why}");
    let newer = Client {
        alpn: Some(b"h2"),
        ..Client::trusting(&files, "ca.pem")
    };
    newer.get(&controller, "/readyz").unwrap_err();
    eventually("both are counted", || {
        (client.metric(&controller, FAILED) == 2.0).then_some(())
    });
}

#[test]
fn client_commands_speak_https() {
    let files = Files::new("commands");
    let (controller, _) = https(&files, |config| set(config, "read_token", "reading"));
    let url = format!("https://localhost:{}", controller.addresses.http.port());
    let ca = files.path("ca.pem");
    let run = |args: &[&str]| {
        let done = kvatlas(args).output().unwrap();
        let text = [done.stdout, done.stderr].concat();
        (done.status.code(), String::from_utf8(text).unwrap())
    };
    let lookup = ["lookup", "--token", "reading", "--url", &url, "1,2,3"];
    let (code, text) = run(&[&lookup[..], &["--ca-cert", &ca]].concat());
    assert_eq!(code, Some(0), "{text}");
    // The system does not know our authority.
    let (code, text) = run(&lookup);
    assert_eq!(code, Some(3), "{text}");
    let (code, text) = run(&[&lookup[..], &["--ca-cert", "/nonexistent"]].concat());
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("/nonexistent"), "{text}");
    let plain = url.replace("https", "http");
    let (code, text) = run(&["lookup", "--url", &plain, "1,2,3"]);
    assert_eq!(code, Some(5), "{text}");
    assert!(text.contains("this port speaks HTTPS only"), "{text}");
}

#[test]
fn plain_http_is_told_and_closed() {
    let files = Files::new("plain");
    let (controller, _) = https(&files, |_| {});
    let reply = controller.get("/readyz");
    assert_eq!(reply.status, 400);
    assert_eq!(reply.json()["detail"], "this port speaks HTTPS only");
    assert!(reply.head.contains("connection: close"));
}

#[test]
fn an_expired_certificate_is_served_with_a_warning_and_not_trusted() {
    let files = Files::new("expired");
    let authority = authority();
    files.write("ca.pem", &authority.pem());
    files.issue(&authority, "front", "localhost", PAST);
    let mut process = Process::start(&files);
    process.wait_for_log("tls_cert has expired");
    let done = kvatlas(&[
        "workers",
        "--url",
        &process.url,
        "--ca-cert",
        &files.path("ca.pem"),
    ])
    .output()
    .unwrap();
    assert_eq!(done.status.code(), Some(3));
    let text = String::from_utf8(done.stderr).unwrap();
    assert!(text.contains("expired"), "{text}");
}

#[test]
fn new_files_serve_new_connections_and_leave_the_old_alone() {
    let files = Files::new("reload");
    let (controller, authority) = https(&files, |_| {});
    let client = Client::trusting(&files, "ca.pem");
    let reloads = |result: &str| {
        let sample = format!("kvatlas_tls_reloads_total{{result=\"{result}\"}}");
        client.metric(&controller, &sample)
    };
    let first = der(&files, "front.pem");
    assert_eq!(client.shown(&controller), first);

    let mut kept = client.connect(&controller);
    let mut ask = || {
        kept.write_all(b"GET /healthz HTTP/1.1\r\nhost: kv\r\n\r\n")
            .unwrap();
        // Nothing more comes after the body.
        let mut answer = Vec::new();
        while !answer.ends_with(b"ok\n") {
            let mut byte = [0];
            kept.read_exact(&mut byte).unwrap();
            answer.push(byte[0]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 200"));
    };
    ask();

    files.issue(&authority, "next", "localhost", FAR);
    std::fs::rename(files.path("next.key"), files.path("front.key")).unwrap();
    std::fs::rename(files.path("next.pem"), files.path("front.pem")).unwrap();
    let second = der(&files, "front.pem");
    eventually("the new certificate", || {
        (client.shown(&controller) == second).then_some(())
    });
    assert!(reloads("applied") >= 1.0);
    ask();

    // What is broken, does not fit, or is past its time is refused; the second one goes on.
    files.issue(&authority, "next", "localhost", FAR);
    let strangers = std::fs::read_to_string(files.path("next.pem")).unwrap();
    files.issue(&authority, "past", "localhost", PAST);
    let refused = |what: &str, change: &dyn Fn()| {
        let before = reloads("refused");
        change();
        eventually(what, || (reloads("refused") > before).then_some(()));
        assert_eq!(client.shown(&controller), second, "{what}");
    };
    refused("garbage", &|| {
        files.write("front.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n");
    });
    refused("a key that does not fit", &|| {
        files.write("front.pem", &strangers);
    });
    refused("no file", &|| {
        std::fs::remove_file(files.path("front.pem")).unwrap();
    });
    let key = std::fs::read_to_string(files.path("past.key")).unwrap();
    files.write("front.key", &key);
    let past = std::fs::read_to_string(files.path("past.pem")).unwrap();
    refused("an expired one", &|| {
        files.write("front.pem", &past);
    });
    ask();
}

#[test]
fn a_hangup_makes_it_look_and_not_end() {
    let files = Files::new("hangup");
    let authority = authority();
    files.write("ca.pem", &authority.pem());
    files.issue(&authority, "front", "localhost", FAR);
    let mut process = Process::start(&files);
    // Answers: the signal is caught from here on.
    eventually("an answer", || {
        let ca = files.path("ca.pem");
        let asked = kvatlas(&["workers", "--url", &process.url, "--ca-cert", &ca]).output();
        asked.unwrap().status.success().then_some(())
    });
    files.issue(&authority, "front", "localhost", FAR);
    let hangup = Command::new("kill")
        .args(["-HUP", &process.child.id().to_string()])
        .status();
    assert!(hangup.unwrap().success());
    process.wait_for_log("new TLS certificate in use");
    assert_eq!(process.child.try_wait().unwrap(), None);
}

/// A controller that knows clients by ca.pem, and certificates of one it knows and one it does not.
fn with_client_auth(files: &Files, auth: &str) -> Controller {
    let (controller, authority) = https(files, |config| {
        set(config, "tls_client_ca", &files.path("ca.pem"));
        set(config, "tls_client_auth", auth);
        set(config, "metrics_open", "true");
    });
    files.issue(&authority, "known", "client", FAR);
    files.issue(&authority, "past", "client", PAST);
    files.issue(&self::authority(), "unknown", "client", FAR);
    controller
}

fn as_whom<'a>(files: &'a Files, own: Option<&'a str>) -> Client<'a> {
    Client {
        own,
        ..Client::trusting(files, "ca.pem")
    }
}

#[test]
fn clients_without_the_right_certificate_are_not_served() {
    let files = Files::new("required");
    let controller = with_client_auth(&files, "required");
    let get = |own| as_whom(&files, own).get(&controller, "/fleet");
    assert_eq!(get(Some("known")).unwrap().0, 200);
    for own in [None, Some("unknown"), Some("past")] {
        assert!(get(own).is_err(), "{own:?}");
    }
    assert!(as_whom(&files, None).get(&controller, "/healthz").is_err());

    let url = format!("https://127.0.0.1:{}", controller.addresses.http.port());
    let file = |name: &str| files.path(name);
    let code = |more: &[&str]| {
        let mut command = kvatlas(&["workers", "--url", &url, "--ca-cert", &file("ca.pem")]);
        command.args(more).output().unwrap().status.code()
    };
    let (known, key) = (file("known.pem"), file("known.key"));
    assert_eq!(
        code(&["--client-cert", &known, "--client-key", &key]),
        Some(0)
    );
    assert_eq!(code(&[]), Some(3));
    assert_eq!(code(&["--client-cert", &known]), Some(2));
}

#[test]
fn probes_need_no_certificate_where_the_open_is_excepted() {
    let files = Files::new("except");
    let controller = with_client_auth(&files, "except-open");
    let status = |own, path| as_whom(&files, own).get(&controller, path).unwrap().0;
    for path in ["/healthz", "/readyz", "/metrics", "/"] {
        assert_eq!(status(None, path), 200, "{path}");
    }
    for path in ["/fleet", "/live", "/nope"] {
        assert_eq!(status(None, path), 403, "{path}");
    }
    assert_eq!(status(Some("known"), "/fleet"), 200);
    let refused = as_whom(&files, None).request(&controller, "POST", "/clear", "");
    assert_eq!(refused.unwrap().0, 403);
    // One that is wrong is worse than none.
    assert!(
        as_whom(&files, Some("unknown"))
            .get(&controller, "/healthz")
            .is_err()
    );
}

#[test]
fn optional_certificates_are_checked_if_shown() {
    let files = Files::new("optional");
    let controller = with_client_auth(&files, "optional");
    for own in [None, Some("known")] {
        let status = as_whom(&files, own).get(&controller, "/fleet").unwrap().0;
        assert_eq!(status, 200, "{own:?}");
    }
    assert!(
        as_whom(&files, Some("unknown"))
            .get(&controller, "/fleet")
            .is_err()
    );
}

#[test]
fn handshakes_that_never_end_are_ended() {
    let files = Files::new("slow");
    let (controller, _) = https(&files, |config| set(config, "header_timeout_s", "1.5"));
    // Silence, and half a hello.
    for text in [&b""[..], b"\x16\x03\x01\x02\x00\x01\x00"] {
        let mut stream = TcpStream::connect(controller.addresses.http).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(text).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.len() < 16, "{answer:?}");
    }
    let client = Client::trusting(&files, "ca.pem");
    assert_eq!(client.metric(&controller, FAILED), 2.0);
}

#[test]
fn unfinished_handshakes_keep_nobody_out() {
    let files = Files::new("crowd");
    let (controller, _) = https(&files, |config| {
        set(config, "max_http_connections", "20");
        // None of them ends by itself while the test runs.
        set(config, "header_timeout_s", "600");
    });
    let client = Client::trusting(&files, "ca.pem");
    let mut idle = Vec::new();
    for n in 0..200 {
        let mut stream = TcpStream::connect(controller.addresses.http).unwrap();
        if n % 2 == 0 {
            let _ = stream.write_all(b"\x16\x03\x01\x02\x00\x01\x00");
        }
        idle.push(stream);
        if n % 50 == 49 {
            assert_eq!(client.get(&controller, "/healthz").unwrap().0, 200);
        }
    }
    assert!(client.metric(&controller, "kvatlas_http_connections") <= 20.0);
    assert!(client.metric(&controller, "kvatlas_http_evicted_total") >= 180.0);
    // Stopping does not wait for them.
    let start = std::time::Instant::now();
    controller.stop();
    assert!(start.elapsed() < Duration::from_secs(8));
    drop(idle);
}

#[test]
fn the_sessions_cookie_never_leaves_tls() {
    let files = Files::new("cookie");
    let (controller, _) = https(&files, |config| set(config, "read_token", "reading"));
    let client = Client::trusting(&files, "ca.pem");
    let bearer = "authorization: Bearer reading\r\n";
    let (status, head) = client
        .request(&controller, "POST", "/session", bearer)
        .unwrap();
    assert_eq!(status, 200);
    let cookie = head.lines().find(|line| line.starts_with("set-cookie"));
    assert!(
        cookie.unwrap().ends_with("SameSite=Strict; Secure"),
        "{head}"
    );
}

#[test]
fn browsers_are_told_to_come_back_by_https_and_only_over_https() {
    let header = |head: &str| {
        let mut lines = head.lines().map(str::to_lowercase);
        lines.find_map(|line| Some(line.strip_prefix("strict-transport-security: ")?.to_owned()))
    };
    let files = Files::new("hsts");
    for (seconds, expected) in [("86400", Some("max-age=86400".to_owned())), ("0", None)] {
        let (controller, _) = https(&files, |config| set(config, "hsts_max_age_s", seconds));
        let client = Client::trusting(&files, "ca.pem");
        for path in ["/", "/healthz", "/nope"] {
            let (_, head) = client.get(&controller, path).unwrap();
            assert_eq!(header(&head), expected, "{path}: {head}");
        }
    }
    let plain = Controller::with(|_| {});
    assert_eq!(header(&plain.get("/").head), None);
}

#[test]
fn files_that_cannot_be_used_end_the_start() {
    let files = Files::new("refused");
    let by = authority();
    files.issue(&by, "a", "localhost", FAR);
    files.issue(&by, "b", "localhost", FAR);
    files.write("garbage", "-----BEGIN CERTIFICATE-----\nAAAA\n");
    let start = |settings: &[(&str, &str)]| {
        let mut config = Config::default();
        set(&mut config, "controller_host", "127.0.0.1");
        set(&mut config, "controller_port", "0");
        set(&mut config, "no_state", "true");
        for (key, name) in settings {
            let path = Path::new(&files.0).join(name);
            set(&mut config, key, &path.to_string_lossy());
        }
        match App::bind(config, Levels::detached(tracing::Level::INFO)) {
            Err(StartError::Tls(error)) => error,
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("started with {settings:?}"),
        }
    };
    let (cert, key) = (("tls_cert", "a.pem"), ("tls_key", "a.key"));
    assert!(matches!(
        start(&[cert]),
        TlsError::Incomplete {
            missing: "tls_key",
            ..
        }
    ));
    assert!(matches!(
        start(&[key]),
        TlsError::Incomplete {
            missing: "tls_cert",
            ..
        }
    ));
    assert!(matches!(
        start(&[("tls_client_ca", "a.pem")]),
        TlsError::Incomplete { .. }
    ));
    assert!(matches!(
        start(&[cert, ("tls_key", "b.key")]),
        TlsError::Unusable { .. }
    ));
    assert!(matches!(
        start(&[cert, ("tls_key", "none")]),
        TlsError::Unreadable { .. }
    ));
    assert!(matches!(
        start(&[cert, ("tls_key", "a.pem")]),
        TlsError::NotPem { .. }
    ));
    assert!(matches!(
        start(&[("tls_cert", "garbage"), key]),
        TlsError::NotPem { .. }
    ));
    assert!(matches!(
        start(&[cert, key, ("tls_client_ca", "a.key")]),
        TlsError::NotPem { .. }
    ));
}
