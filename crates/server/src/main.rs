//! The `kvatlas` command, told in order: arguments, configuration, logging, bind, addresses, run
//! until a signal, drain.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use kvatlas_server::app::{App, StartError};
use kvatlas_server::cli::{self, Request};
use kvatlas_server::config::ENV_FILE;
use kvatlas_server::config::load::{self, Layers, Loaded, Source};
use kvatlas_server::config::value::ClientAuth;
use kvatlas_server::logging;
use kvatlas_server::shutdown::Signals;
use kvatlas_server::store::dir::default_path;
use kvatlas_server::traces::Traces;
use kvatlas_server::zmq::reply::is_wildcard;

/// Exit code of a refused command line or configuration.
const REFUSED: u8 = 2;

fn main() -> ExitCode {
    let request = match cli::parse(std::env::args_os()) {
        Ok(request) => request,
        Err(error) => error.exit(),
    };
    match request {
        Request::Serve {
            config_file,
            overrides,
        } => serve(config_file, overrides),
        Request::Bench(args) => cli::bench::run(&args),
        Request::Client(command) => cli::client::run(*command),
        Request::Top(args) => cli::top::run(*args),
        Request::Worker(args) => cli::worker::run(*args),
        Request::Demo(args) => cli::demo::run(*args),
        Request::Print(text) => print(&text),
    }
}

/// Whoever reads may stop reading early.
fn print(text: &[u8]) -> ExitCode {
    match std::io::stdout().write_all(text) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            eprintln!("kvatlas: {error}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

fn serve(config_file: Option<String>, overrides: Vec<(String, String)>) -> ExitCode {
    let mut loaded = match configuration(config_file, overrides) {
        Ok(loaded) => loaded,
        Err(reason) => {
            eprintln!("kvatlas: {reason}");
            return ExitCode::from(REFUSED);
        }
    };
    let config = &mut loaded.config;
    if config.state_dir.is_none() && !config.no_state {
        let path = default_path(|name| std::env::var(name).ok());
        config.state_dir = Some(path.to_string_lossy().into_owned());
    }
    let (levels, flush) = logging::start(config.log_level.0, config.log_format);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    // Connections are files; the usual soft limit of 1,024 is less than a fleet.
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.http_threads.0)
        .max_blocking_threads(8)
        .thread_name("kvatlas-http")
        .enable_all()
        .build();
    let outcome = match runtime {
        Ok(runtime) => {
            let endpoint = loaded.config.otlp_endpoint.as_deref();
            let start = |endpoint| Traces::start(endpoint, runtime.handle().clone());
            let traces = match endpoint.map(start).transpose() {
                Ok(traces) => traces,
                Err(error) => {
                    eprintln!("kvatlas: {error}");
                    return ExitCode::from(REFUSED);
                }
            };
            let outcome = runtime.block_on(run(loaded, levels));
            if let Some(traces) = traces {
                traces.stop();
            }
            // What still blocks was given its time already.
            runtime.shutdown_background();
            outcome
        }
        Err(error) => Err(error.into()),
    };
    if let Err(error) = &outcome {
        tracing::error!(%error, "cannot run");
    }
    drop(flush);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kvatlas: {error}");
            match error.downcast_ref::<StartError>() {
                Some(error) if error.is_refused_setting() => ExitCode::from(REFUSED),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn configuration(
    config_file: Option<String>,
    overrides: Vec<(String, String)>,
) -> Result<Loaded, String> {
    let path = config_file.or_else(|| std::env::var(ENV_FILE).ok().filter(|path| !path.is_empty()));
    let file = path
        .map(|path| {
            std::fs::read_to_string(&path)
                .map_err(|error| format!("cannot read configuration file {path}: {error}"))
        })
        .transpose()?;
    let utf8 = |(name, value): (OsString, OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    let layers = Layers {
        file,
        env: std::env::vars_os().filter_map(utf8).collect(),
        command_line: overrides,
    };
    load::load(&layers).map_err(|error| error.to_string())
}

async fn run(loaded: Loaded, levels: logging::Levels) -> Result<(), Box<dyn std::error::Error>> {
    let signals = Signals::of_server()?;
    let settings: Vec<String> = loaded
        .config
        .shown()
        .into_iter()
        .map(|(key, value)| match loaded.source(key) {
            Source::Default => format!("  {key}: {value}"),
            source => format!("  {key}: {value}  ({source})"),
        })
        .collect();
    let open = is_wildcard(&loaded.config.controller_host);
    let app = App::bind(loaded.config, levels)?;
    let (guarded, no_admin, certified) = {
        let shared = app.shared();
        let access = &shared.access;
        let certified = shared.config.tls_client_ca.is_some()
            && shared.config.tls_client_auth != ClientAuth::Optional;
        (access.guards_commands(), access.lacks_admin(), certified)
    };
    let tls = app.shared().tls.as_ref();
    let clear_tokens = open && guarded && tls.is_none();
    let expired = tls.and_then(|tls| tls.expired_for(app.shared().clock.now()));
    // Nobody may be reading; that is no reason not to run.
    let _ = writeln!(
        std::io::stdout(),
        "kvatlas {}\nconfiguration:\n{}\n{}",
        env!("CARGO_PKG_VERSION"),
        settings.join("\n"),
        app.addresses()
    );
    if open && !guarded && !certified {
        tracing::warn!(
            "every interface is open and nothing asks for a password: keep these ports inside a trusted network, set controller_host, or set admin_token_file or tls_client_ca (docs/security.md)"
        );
    }
    if no_admin {
        tracing::warn!("only a read token is set: commands are refused to everybody");
    }
    if clear_tokens {
        tracing::warn!(
            "tokens travel in clear text over every interface: set tls_cert and tls_key, or keep HTTP behind something that ends TLS (docs/security.md)"
        );
    }
    if let Some(seconds) = expired {
        tracing::warn!(seconds, "the certificate in tls_cert has expired");
    }
    app.run(signals.stop()).await?;
    tracing::info!("stopped");
    Ok(())
}
