//! Simulated fleets under a real controller in this process: whatever happens, what the controller
//! shows in the end is what the engines hold.
//!
//! Commands to simulated workers are shown from outside, by `tests/interop/test_kvatlas_worker.py`.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kvatlas_protocol::{HashScheme, WorkerKey};
use kvatlas_server::app::{Addresses, App, AppState};
use kvatlas_server::config::Config;
use kvatlas_server::logging::Levels;
use kvatlas_worker::sim::{
    Capacity, Fleet, FleetConfig, PromptSettings, Prompts, SimInstance, Traffic, TrafficSettings,
};
use kvatlas_worker::{AgentConfig, Engine, Runtime, full_sync, heartbeat};
use tokio::sync::oneshot;

/// A controller in this process; stopped when dropped.
struct Controller {
    state: AppState,
    addresses: Addresses,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Controller {
    /// On these ports: pull, reply, heartbeat; 0 takes a free one.
    fn start(ports: [u16; 3]) -> Self {
        let [pull, reply, heartbeat] = ports;
        let ports = serde_json::json!({"pull": pull, "reply": reply, "heartbeat": heartbeat});
        let mut config = Config::default();
        for (key, value) in [
            ("controller_host", "127.0.0.1"),
            ("controller_port", "0"),
            ("controller_monitor_ports", &ports.to_string()),
            ("full_sync_jitter_s", "0"),
            ("gap_sync_interval_s", "1"),
            ("shutdown_timeout_s", "2"),
        ] {
            config.set(key, value).unwrap().unwrap();
        }
        let app = eventually("the ports are free", || {
            App::bind(config.clone(), Levels::detached(tracing::Level::INFO)).ok()
        });
        let (state, addresses) = (Arc::clone(app.shared()), app.addresses().clone());
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap();
            runtime
                .block_on(app.run(async move { drop(stopped.await) }))
                .unwrap();
        });
        Self {
            state,
            addresses,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    fn ports(&self) -> [u16; 3] {
        let ports = self.addresses.ports;
        [ports.pull, ports.reply.unwrap(), ports.heartbeat.unwrap()]
    }

    fn pull_url(&self) -> String {
        format!("127.0.0.1:{}", self.ports()[0])
    }

    fn reply_url(&self) -> String {
        format!("127.0.0.1:{}", self.ports()[1])
    }

    fn gaps(&self) -> u64 {
        self.state.controller.totals().gaps
    }

    /// Whether every worker of `instance` is shown with exactly the keys its engine holds.
    fn shows(&self, instance: &SimInstance, name: &str) -> bool {
        let controller = &self.state.controller;
        let ranks = instance.instance().ranks();
        ranks.iter().enumerate().all(|(rank, engine)| {
            let Some(info) = controller.worker(&WorkerKey::new(name, rank as i64)) else {
                return false;
            };
            engine.locations().iter().all(|location| {
                let keys = engine.keys(location);
                let shown = info.locations.iter().find(|l| l.location == *location);
                shown.map_or(0, |l| l.key_count) == keys.len() as u64
                    && keys.iter().all(|&key| {
                        let holders = controller.instances_holding(key);
                        holders.iter().any(|holder| holder.as_str() == name)
                    })
            })
        })
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && !std::thread::panicking()
        {
            thread.join().unwrap();
        }
    }
}

/// Asks until the answer is there; half a minute is for a machine under load.
#[track_caller]
fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn quick_heartbeat() -> heartbeat::Settings {
    heartbeat::Settings {
        interval: Some(Duration::from_millis(200)),
        delay: Duration::ZERO,
        min_silence: Duration::from_secs(2),
    }
}

fn quick_sync() -> full_sync::Settings {
    full_sync::Settings {
        batch_size: 10,
        startup_delay: Duration::ZERO,
        status_poll_interval: Duration::from_millis(200),
        retry_delay: Duration::from_millis(100),
        ..full_sync::Settings::default()
    }
}

fn fleet(controller: &Controller, requests_per_second: f64) -> Fleet {
    Fleet::start(&FleetConfig {
        pull_url: controller.pull_url(),
        reply_url: controller.reply_url(),
        instances: 3,
        ranks: 2,
        prefix: "sim".into(),
        host: "127.0.0.1".into(),
        capacity: Capacity { cpu: 40, disk: 90 },
        scheme: HashScheme::default(),
        p2p: false,
        heartbeat: quick_heartbeat(),
        full_sync: quick_sync(),
        traffic: TrafficSettings {
            requests_per_second,
            warm_up: 50,
            ..TrafficSettings::default()
        },
    })
    .unwrap()
}

/// All of the fleet is shown as it is.
fn settled(controller: &Controller, fleet: &Fleet) -> bool {
    fleet
        .instances()
        .iter()
        .enumerate()
        .all(|(at, instance)| controller.shows(instance, &format!("sim-{}", at + 1)))
}

#[test]
fn a_fleet_under_traffic_is_shown_as_it_is() {
    let controller = Controller::start([0; 3]);
    let mut fleet = fleet(&controller, 100.0);
    let chain: Vec<_> = HashScheme::default()
        .chain(&fleet.popular_prompt())
        .collect();
    eventually("everybody holds the popular prompt", || {
        let matches = controller.state.controller.lookup(chain.iter().copied());
        let whole = matches.iter().filter(|found| found.chunks == chain.len());
        (whole.count() == 3).then_some(())
    });
    let before = fleet.served();
    eventually("traffic", || (fleet.served() > before + 300).then_some(()));
    fleet.stop_traffic();
    eventually("what is held is shown", || {
        settled(&controller, &fleet).then_some(())
    });
    assert_eq!(controller.gaps(), 0);
    fleet.close(Duration::from_secs(10));
    eventually("everybody left", || {
        (controller.state.controller.totals().workers == 0).then_some(())
    });
    assert_eq!(controller.state.controller.totals().keys, 0);
}

#[test]
fn a_controller_that_restarts_is_told_everything_again() {
    let first = Controller::start([0; 3]);
    let fleet = fleet(&first, 20.0);
    eventually("a start", || {
        (first.state.controller.totals().workers == 6).then_some(())
    });
    let ports = first.ports();
    drop(first);
    let second = Controller::start(ports);
    let mut fleet = fleet;
    eventually("everybody is back", || {
        let totals = second.state.controller.totals();
        (totals.workers == 6 && totals.workers_completed == 6).then_some(())
    });
    fleet.stop_traffic();
    eventually("what is held is shown", || {
        settled(&second, &fleet).then_some(())
    });
}

#[test]
fn a_controller_that_moved_its_heartbeat_socket_is_found() {
    let first = Controller::start([0; 3]);
    let mut fleet = fleet(&first, 20.0);
    eventually("a start", || {
        (first.state.controller.totals().workers == 6).then_some(())
    });
    let [pull, reply, heartbeat] = first.ports();
    drop(first);
    // Whoever has the old port now says nothing.
    let _mute = std::net::TcpListener::bind(("127.0.0.1", heartbeat)).unwrap();
    let second = Controller::start([pull, reply, 0]);
    assert_ne!(second.ports()[2], heartbeat);
    eventually("everybody is back", || {
        let totals = second.state.controller.totals();
        (totals.workers == 6 && totals.workers_completed == 6).then_some(())
    });
    fleet.stop_traffic();
    eventually("what is held is shown", || {
        settled(&second, &fleet).then_some(())
    });
}

/// An instance of two ranks, with peers or without.
fn instance(controller: &Controller, runtime: &Runtime, name: &str, p2p: bool) -> SimInstance {
    let agents = (0..2)
        .map(|rank| AgentConfig {
            command_host: "127.0.0.1".into(),
            peer_url: p2p.then(|| "127.0.0.1:0".into()),
            heartbeat: quick_heartbeat(),
            full_sync: quick_sync(),
            ..AgentConfig::new(
                WorkerKey::new(name, rank),
                controller.pull_url(),
                controller.reply_url(),
            )
        })
        .collect();
    let room = Capacity { cpu: 40, disk: 90 };
    let started = SimInstance::start(runtime, agents, room, &HashScheme::default()).unwrap();
    eventually("registration", || {
        let registered = |agent: &kvatlas_worker::Agent| agent.status().registered;
        started.agents().iter().all(registered).then_some(())
    });
    started
}

#[test]
fn a_miss_is_fetched_from_the_peer_that_holds_it_and_changes_no_cache() {
    let controller = Controller::start([0; 3]);
    let runtime = Runtime::start().unwrap();
    let holder = instance(&controller, &runtime, "holder", true);
    let asker = instance(&controller, &runtime, "asker", true);
    let alone = instance(&controller, &runtime, "alone", false);
    let mut prompts = Prompts::new(PromptSettings::default(), 5, 5);
    let prompts: Vec<_> = (0..60).map(|_| prompts.next_prompt()).collect();
    // What the holder has in the end: the last prompts.
    for prompt in &prompts {
        holder.instance().serve(prompt).unwrap();
    }
    eventually("what is held is shown", || {
        controller.shows(&holder, "holder").then_some(())
    });
    let last = &prompts[59];
    let chunks = (last.len() / 256) as u64;
    assert!(holder.instance().holds(last));
    assert_eq!(asker.instance().serve(last), Some(0));
    let traffic = asker.instance().peer_traffic();
    assert_eq!(
        (traffic.lookups, traffic.chunks),
        (2, 2 * chunks),
        "both ranks"
    );
    // Held now: nobody is asked.
    assert_eq!(asker.instance().serve(last), Some((chunks * 256) as usize));
    assert_eq!(asker.instance().peer_traffic(), traffic);
    assert_eq!(
        holder.instance().peer_traffic().chunks,
        0,
        "nobody else holds anything"
    );

    // An instance without peers that served the same has the same.
    alone.instance().serve(last).unwrap();
    alone.instance().serve(last).unwrap();
    for prompt in &prompts {
        asker.instance().serve(prompt).unwrap();
        alone.instance().serve(prompt).unwrap();
    }
    let cached = |of: &SimInstance| -> Vec<_> {
        let ranks = of.instance().ranks().iter();
        ranks
            .flat_map(|rank| rank.locations().into_iter().map(|l| rank.keys(&l)))
            .collect()
    };
    assert_eq!(cached(&asker), cached(&alone));
    assert_eq!(alone.instance().peer_traffic().lookups, 0);
    eventually("what is held is shown", || {
        controller.shows(&asker, "asker").then_some(())
    });
    assert_eq!(controller.gaps(), 0);

    // A peer that is gone, and a controller that is: requests are served all the same.
    holder.close(Duration::from_secs(10));
    drop(controller);
    let unheard: Vec<u32> = (0..600).collect();
    assert_eq!(asker.instance().serve(&unheard), Some(0));
    assert!(asker.instance().holds(&unheard));
}

#[test]
fn a_queue_that_overflows_is_mended_by_a_sync() {
    let controller = Controller::start([0; 3]);
    let runtime = Runtime::start().unwrap();
    let mut config = AgentConfig {
        command_host: "127.0.0.1".into(),
        heartbeat: quick_heartbeat(),
        full_sync: quick_sync(),
        // Only the controller may find out.
        repair_after: Duration::from_secs(3600),
        ..AgentConfig::new(
            WorkerKey::new("small", 0),
            controller.pull_url(),
            controller.reply_url(),
        )
    };
    config.batching.queue_limit = 8;
    let room = Capacity { cpu: 500, disk: 0 };
    let started = SimInstance::start(&runtime, vec![config], room, &HashScheme::default()).unwrap();
    let agent = &started.agents()[0];
    eventually("registration", || agent.status().registered.then_some(()));
    // The base of the stream, then prompts of more chunks than the queue takes at once.
    let short: Vec<u32> = (0..600).collect();
    eventually("the base", || {
        started.instance().serve(&short)?;
        (agent.status().operations_sent > 0).then_some(())
    });
    let mut prompts = Prompts::new(PromptSettings::default(), 4, 4);
    eventually("operations dropped", || {
        started.instance().serve(&prompts.next_prompt())?;
        (agent.status().operations_dropped > 0).then_some(())
    });
    eventually("the sync", || {
        (agent.status().syncs_completed > 0).then_some(())
    });
    eventually("what is held is shown", || {
        controller.shows(&started, "small").then_some(())
    });
    assert!(controller.gaps() > 0);
}

/// How long the soak lasts: `make soak` asks for ten minutes.
fn soak_time() -> Duration {
    let seconds = std::env::var("KVATLAS_SOAK_SECONDS").ok();
    Duration::from_secs(seconds.map_or(20, |text| text.parse().unwrap()))
}

/// Tokens of `prompt` that all ranks of `instance` hold from the start.
fn held(instance: &SimInstance, prompt: &[u32]) -> u64 {
    let chunk_size = HashScheme::default().chunk_size().get();
    let chunks = prompt.len() / chunk_size;
    let run = (1..=chunks).take_while(|n| instance.instance().holds(&prompt[..n * chunk_size]));
    (run.count() * chunk_size) as u64
}

/// What `kvatlas lookup` says of `prompt`: tokens by instance.
fn asked(controller: &Controller, prompt: &[u32]) -> BTreeMap<String, u64> {
    let mut client = Command::new(env!("CARGO_BIN_EXE_kvatlas"))
        .args(["lookup", "--json", "--url"])
        .arg(format!("http://{}", controller.addresses.http))
        .args(["--file", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let tokens = serde_json::to_vec(prompt).unwrap();
    client.stdin.take().unwrap().write_all(&tokens).unwrap();
    let output = client.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let layout = answer["layout_info"].as_object().unwrap();
    let tokens = |found: &serde_json::Value| found[1].as_u64().unwrap();
    layout
        .iter()
        .map(|(name, found)| (name.clone(), tokens(found)))
        .collect()
}

#[test]
fn soak_lookups_equal_what_the_engines_hold_while_chunks_come_and_go() {
    let controller = Controller::start([0; 3]);
    let fleet = fleet(&controller, 0.0);
    let until = Instant::now() + soak_time();
    let (mut rounds, mut compared, mut hits, mut evicted) = (0_u64, 0, 0, 0);
    while rounds < 3 || Instant::now() < until {
        // New prompts every round: the storages are small, so most of them push others out.
        let settings = TrafficSettings {
            requests_per_second: 60.0,
            warm_up: 0,
            seed: 7,
            ..TrafficSettings::default()
        };
        let streams = (rounds * 3..).take(3);
        let running: Vec<_> = fleet
            .instances()
            .iter()
            .zip(streams.clone())
            .map(|(started, stream)| (started.instance().clone(), stream))
            .collect();
        let mut traffic = Traffic::start(running, &settings).unwrap();
        eventually("traffic", || (traffic.served() > 120).then_some(()));
        traffic.stop();
        eventually("what is held is shown", || {
            settled(&controller, &fleet).then_some(())
        });
        for stream in streams {
            let mut prompts = Prompts::new(settings.prompts.clone(), settings.seed, stream);
            // The first ones of the round have had the most time to be evicted again.
            for at in 0..30 {
                let prompt = prompts.next_prompt();
                if at % 10 != 0 {
                    continue;
                }
                let full = (prompt.len() / 256 * 256) as u64;
                let expected: BTreeMap<String, u64> = fleet
                    .instances()
                    .iter()
                    .enumerate()
                    .map(|(at, instance)| (format!("sim-{}", at + 1), held(instance, &prompt)))
                    .filter(|(_, tokens)| *tokens > 0)
                    .collect();
                assert_eq!(asked(&controller, &prompt), expected, "round {rounds}");
                compared += 1;
                hits += expected.len();
                evicted += usize::from(expected.values().all(|tokens| *tokens < full));
            }
        }
        assert_eq!(controller.gaps(), 0, "round {rounds}");
        rounds += 1;
    }
    let room = 3 * 2 * (40 + 90);
    let sent: u64 = fleet
        .instances()
        .iter()
        .flat_map(SimInstance::agents)
        .map(|agent| agent.status().operations_sent)
        .sum();
    assert!(hits > 0 && evicted > 0, "{hits} hits, {evicted} evicted");
    assert!(sent > 3 * room, "{sent} operations: storages were full");
    println!("{rounds} rounds, {compared} lookups, {hits} hits, {sent} operations");
}
