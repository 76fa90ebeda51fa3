//! The agent over real sockets against a controller whose answers the test controls.

#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod fake_controller;
mod sim;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fake_controller::{FakeController, Front, eventually};
use kvatlas_protocol::message::{
    BatchedP2PLookupRetMsg, ClearWorkerMsg, ClearWorkerRetMsg, CommandArgs, ErrorMsg,
    FullSyncStartRetMsg, FullSyncStatusRetMsg, HealthWorkerMsg, HealthWorkerRetMsg,
    HeartbeatCommand, HeartbeatRetMsg, Message, RegisterRetMsg, Value,
};
use kvatlas_protocol::{ChunkHash, Location, OperationKind, TokenCount, WorkerKey};
use kvatlas_worker::{
    Agent, AgentConfig, Compression, Engine, EngineError, Movement, Reporter, Runtime,
};

const CPU: &str = "LocalCPUBackend";
const DISK: &str = "LocalDiskBackend";

/// Two locations with fixed keys; `clear` waits while told to.
#[derive(Default)]
struct TestEngine {
    frozen: AtomicBool,
    freezes: AtomicU64,
    busy: AtomicBool,
    keys: Vec<ChunkHash>,
}

impl Engine for TestEngine {
    fn locations(&self) -> Vec<Location> {
        vec![CPU.into(), DISK.into()]
    }
    fn keys(&self, _: &Location) -> Vec<ChunkHash> {
        self.keys.clone()
    }
    fn freeze(&self, frozen: bool) {
        self.frozen.store(frozen, Ordering::SeqCst);
        self.freezes.fetch_add(u64::from(frozen), Ordering::SeqCst);
    }
    fn clear(&self, _: &Location) -> Result<TokenCount, EngineError> {
        eventually("release of clear", || !self.busy.load(Ordering::SeqCst));
        Ok(TokenCount(512))
    }
    fn pin(&self, _: &Location, _: &[i64]) -> Result<TokenCount, EngineError> {
        Ok(TokenCount(0))
    }
    fn compress(&self, _: &Compression) -> Result<TokenCount, EngineError> {
        Ok(TokenCount(0))
    }
    fn decompress(&self, _: &Compression) -> Result<TokenCount, EngineError> {
        Ok(TokenCount(0))
    }
    fn relocate(&self, _: &Movement) -> Result<TokenCount, EngineError> {
        Ok(TokenCount(0))
    }
    fn health(&self) -> Result<i64, EngineError> {
        Ok(0)
    }
}

fn config(pull: &str, reply: &str) -> AgentConfig {
    let mut config = AgentConfig::new(WorkerKey::new("inst", 1), pull, reply);
    config.command_host = "127.0.0.1".into();
    config.heartbeat.interval = Some(Duration::from_millis(50));
    config.heartbeat.delay = Duration::ZERO;
    config.heartbeat.min_silence = Duration::from_millis(200);
    config.full_sync.startup_delay = Duration::ZERO;
    config.full_sync.retry_delay = Duration::from_millis(20);
    config.full_sync.resend_after = Duration::from_millis(50);
    config.full_sync.status_poll_interval = Duration::from_millis(50);
    config
}

/// Runs `engine` under `config`; both, and a reporter.
fn start(config: AgentConfig, engine: &Arc<TestEngine>) -> (Agent, Reporter) {
    let agent = Agent::start(config, |_| engine.clone()).unwrap();
    let reporter = agent.reporter();
    (agent, reporter)
}

fn registered(heartbeat_url: &str) -> Message {
    RegisterRetMsg {
        extra_config: [("heartbeat_url".to_owned(), heartbeat_url.to_owned())].into(),
    }
    .into()
}

fn alive(commands: Vec<HeartbeatCommand>) -> Message {
    HeartbeatRetMsg { commands }.into()
}

/// A controller that registers (heartbeats on its reply socket), and nothing else.
fn plain(message: &Message) -> Option<Message> {
    match message {
        Message::RegisterMsg(_) => Some(
            RegisterRetMsg {
                extra_config: [].into(),
            }
            .into(),
        ),
        Message::HeartbeatMsg(_) => Some(alive(Vec::new())),
        _ => None,
    }
}

/// `(location, kind, key, seq)` of everything reported.
fn operations(controller: &FakeController) -> Vec<(String, OperationKind, u64, i64)> {
    controller.seen(|seen| {
        seen.pushed
            .iter()
            .filter_map(|message| match message {
                Message::BatchedKVOperationMsg(batch) => Some(batch),
                _ => None,
            })
            .flat_map(|batch| {
                batch.operations.iter().map(|operation| {
                    let key = operation.key.hash().0;
                    (
                        batch.location.clone(),
                        operation.op_type,
                        key,
                        operation.seq_num,
                    )
                })
            })
            .collect()
    })
}

fn pushed(controller: &FakeController, tag: &str) -> usize {
    controller.seen(|seen| seen.pushed.iter().filter(|m| m.tag() == tag).count())
}

#[test]
fn registers_reports_in_order_and_says_goodbye() {
    let controller = FakeController::start(|_, message| plain(message));
    let (agent, reporter) = start(config(&controller.pull, &controller.reply), &Arc::default());
    for n in 0..500 {
        reporter.admit(&CPU.into(), ChunkHash(n));
        reporter.evict(&DISK.into(), ChunkHash(n));
    }
    let port = i64::from(agent.command_port());
    eventually("registration", || agent.status().registered);
    agent.close(Duration::from_secs(10));
    eventually("goodbye", || pushed(&controller, "DeRegisterMsg") == 1);
    let operations = operations(&controller);
    for (location, kind) in [(CPU, OperationKind::Admit), (DISK, OperationKind::Evict)] {
        let of_location: Vec<_> = operations.iter().filter(|op| op.0 == location).collect();
        let expected: Vec<_> = (0..500)
            .map(|n| (location.to_owned(), kind, n, n as i64))
            .collect();
        assert_eq!(of_location, expected.iter().collect::<Vec<_>>());
    }
    controller.seen(|seen| {
        assert_eq!(seen.pushed.last().unwrap().tag(), "DeRegisterMsg");
        match &seen.asked[0] {
            (Front::Reply, Message::RegisterMsg(register)) => {
                assert_eq!(register.instance_id, "inst");
                assert_eq!(register.worker_id, 1);
                assert_eq!(register.ip, "127.0.0.1");
                assert_eq!(register.port, port);
            }
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn waits_for_a_controller_that_starts_later_and_loses_nothing() {
    let addresses = FakeController::start(|_, _| None).stop();
    let (agent, reporter) = start(config(&addresses[0], &addresses[1]), &Arc::default());
    reporter.admit(&CPU.into(), ChunkHash(7));
    assert!(!agent.status().registered);
    let controller = FakeController::at(addresses, |_, message| plain(message));
    eventually("registration", || agent.status().registered);
    eventually("the report", || !operations(&controller).is_empty());
    assert_eq!(
        operations(&controller),
        [(CPU.to_owned(), OperationKind::Admit, 7, 0)]
    );
    eventually("a heartbeat", || agent.status().heartbeats > 0);
}

#[test]
fn a_refused_registration_is_repeated() {
    let mut attempts = 0;
    let controller = FakeController::start(move |_, message| match message {
        Message::RegisterMsg(_) => {
            attempts += 1;
            if attempts < 3 {
                let error = "not now".to_owned();
                return Some(ErrorMsg { error }.into());
            }
            plain(message)
        }
        _ => plain(message),
    });
    let (agent, _) = start(config(&controller.pull, &controller.reply), &Arc::default());
    eventually("registration", || agent.status().registered);
    assert_eq!(controller.count(Front::Reply, "RegisterMsg"), 3);
}

#[test]
fn beats_on_the_named_socket_and_on_reply_when_that_is_mute() {
    let heartbeat = Arc::new(std::sync::Mutex::new(String::new()));
    let mute = Arc::new(AtomicBool::new(false));
    let controller = FakeController::start({
        let (heartbeat, mute) = (heartbeat.clone(), mute.clone());
        move |front, message| match message {
            Message::RegisterMsg(_) => Some(registered(&heartbeat.lock().unwrap())),
            Message::HeartbeatMsg(_)
                if front == Front::Heartbeat && mute.load(Ordering::SeqCst) =>
            {
                None
            }
            _ => plain(message),
        }
    });
    let config = config(&controller.pull, &controller.reply);
    // Before the agent asks: the answer to registration needs the port.
    *heartbeat.lock().unwrap() = controller.heartbeat.clone();
    let (agent, _) = start(config, &Arc::default());
    eventually("beats on the named socket", || {
        controller.count(Front::Heartbeat, "HeartbeatMsg") >= 2
    });
    assert_eq!(controller.count(Front::Reply, "HeartbeatMsg"), 0);
    mute.store(true, Ordering::SeqCst);
    eventually("beats on the reply socket", || {
        controller.count(Front::Reply, "HeartbeatMsg") >= 1
    });
    eventually("misses counted", || agent.status().heartbeats_missed >= 2);
    assert_eq!(controller.count(Front::Reply, "RegisterMsg"), 1);
}

/// Plays the controller's side of full sync; drops batch 1 of the first session once.
#[derive(Default)]
struct SyncSide {
    wanted: Option<Option<&'static str>>,
    started: Vec<(String, i64)>,
}

impl SyncSide {
    fn answer(&mut self, message: &Message) -> Option<Message> {
        match message {
            Message::HeartbeatMsg(_) => {
                let command = self.wanted.map(|location| {
                    HeartbeatCommand::FullSync(CommandArgs {
                        reason: Some("controller_restart".into()),
                        args: location
                            .map(|name| [("location".to_owned(), Value::from(name))].into()),
                    })
                });
                Some(alive(command.into_iter().collect()))
            }
            Message::FullSyncStartMsg(start) => {
                self.wanted = None;
                self.started
                    .push((start.location.clone(), start.batch_count));
                Some(
                    FullSyncStartRetMsg {
                        sync_id: start.sync_id.clone(),
                        accepted: true,
                        error_msg: None,
                    }
                    .into(),
                )
            }
            _ => plain(message),
        }
    }
}

/// A status that knows the session as complete, and the fleet as ready.
fn complete(sync_id: &str) -> Message {
    FullSyncStatusRetMsg {
        sync_id: sync_id.to_owned(),
        is_complete: true,
        global_progress: 1.0,
        can_exit_freeze: true,
        missing_batches: Vec::new(),
    }
    .into()
}

/// Starts an engine with 25 keys under a controller that wants a sync of `location`.
fn synced(location: Option<&'static str>, locations: usize) -> Vec<(String, i64)> {
    let engine = Arc::new(TestEngine {
        keys: (0..25).map(ChunkHash).collect(),
        ..TestEngine::default()
    });
    let side = Arc::new(std::sync::Mutex::new(SyncSide::default()));
    let received: Arc<std::sync::Mutex<BTreeSet<(String, i64)>>> = Arc::default();
    let controller = FakeController::start({
        let (side, received, engine) = (side.clone(), received.clone(), engine.clone());
        move |_, message| match message {
            Message::FullSyncStatusMsg(status) => {
                assert!(engine.frozen.load(Ordering::SeqCst));
                let received = received.lock().unwrap();
                let missing: Vec<i64> = (0..3)
                    .filter(|&batch| !received.contains(&(status.sync_id.clone(), batch)))
                    .collect();
                Some(
                    FullSyncStatusRetMsg {
                        sync_id: status.sync_id.clone(),
                        is_complete: missing.is_empty(),
                        global_progress: 1.0,
                        can_exit_freeze: true,
                        missing_batches: missing,
                    }
                    .into(),
                )
            }
            _ => side.lock().unwrap().answer(message),
        }
    });
    let mut config = config(&controller.pull, &controller.reply);
    config.full_sync.batch_size = 10;
    // It held keys before it registered: that alone makes it sync everything once.
    let (agent, _) = start(config, &engine);
    let take = |lost: bool| {
        // Batches as they arrive; with `lost`, batch 1 counts only from its second arrival.
        controller.seen(|seen| {
            let mut arrivals = std::collections::BTreeMap::<(String, i64), u32>::new();
            for message in &seen.pushed {
                if let Message::FullSyncBatchMsg(batch) = message {
                    *arrivals
                        .entry((batch.sync_id.clone(), batch.batch_id))
                        .or_default() += 1;
                }
            }
            let mut received = received.lock().unwrap();
            received.extend(
                arrivals
                    .into_iter()
                    .filter(|((_, batch), times)| !lost || *batch != 1 || *times > 1)
                    .map(|(key, _)| key),
            );
        });
    };
    eventually("the sync of what was held before", || {
        take(false);
        agent.status().syncs_completed == 2
    });
    side.lock().unwrap().started.clear();
    side.lock().unwrap().wanted = Some(location);
    eventually("the sync asked for", || {
        take(true);
        agent.status().syncs_completed == 2 + locations as u64
    });
    eventually("the thaw", || !engine.frozen.load(Ordering::SeqCst));
    assert_eq!(engine.freezes.load(Ordering::SeqCst), 2);
    std::mem::take(&mut side.lock().unwrap().started)
}

#[test]
fn a_full_sync_covers_every_location_and_resends_what_was_lost() {
    assert_eq!(synced(None, 2), [(CPU.to_owned(), 3), (DISK.to_owned(), 3)]);
}

#[test]
fn a_full_sync_of_one_location_leaves_the_other_alone() {
    assert_eq!(synced(Some(DISK), 1), [(DISK.to_owned(), 3)]);
}

/// Asks as the controller does.
fn ask(socket: &zmq::Socket, message: impl Into<Message>) {
    socket.send(message.into().encode_msgpack(), 0).unwrap();
}

fn answered(socket: &zmq::Socket) -> Message {
    socket.set_rcvtimeo(20_000).unwrap();
    Message::decode(&socket.recv_bytes(0).unwrap()).unwrap()
}

#[test]
fn obeys_commands_and_goes_on_beating_while_one_runs() {
    let controller = FakeController::start(|_, message| plain(message));
    let engine = Arc::new(TestEngine::default());
    let (agent, _) = start(config(&controller.pull, &controller.reply), &engine);
    let context = zmq::Context::new();
    let socket = context.socket(zmq::REQ).unwrap();
    socket
        .connect(&format!("tcp://127.0.0.1:{}", agent.command_port()))
        .unwrap();
    engine.busy.store(true, Ordering::SeqCst);
    ask(
        &socket,
        ClearWorkerMsg {
            worker_event_id: "e".into(),
            location: CPU.into(),
        },
    );
    eventually("registration", || agent.status().registered);
    let before = agent.status().heartbeats;
    eventually("beats during the command", || {
        agent.status().heartbeats >= before + 3
    });
    assert_eq!(agent.status().commands, 0);
    engine.busy.store(false, Ordering::SeqCst);
    assert_eq!(
        answered(&socket),
        ClearWorkerRetMsg { num_tokens: 512 }.into()
    );
    ask(
        &socket,
        HealthWorkerMsg {
            worker_event_id: "e".into(),
        },
    );
    assert_eq!(
        answered(&socket),
        HealthWorkerRetMsg { error_code: 0 }.into()
    );
    socket.send("nonsense", 0).unwrap();
    assert_eq!(answered(&socket).tag(), "ErrorMsg");
}

#[test]
fn peer_lookups_are_answered_and_a_miss_is_empty() {
    let controller = FakeController::start(|_, message| match message {
        Message::BatchedP2PLookupMsg(lookup) => {
            assert_eq!(lookup.worker_id, 1);
            let hit = lookup.hashes[0].hash() == ChunkHash(u64::MAX);
            let layout_info = if hit {
                vec![("other".to_owned(), CPU.to_owned(), 1, "h:1".to_owned())]
            } else {
                vec![(String::new(), String::new(), 0, String::new())]
            };
            Some(BatchedP2PLookupRetMsg { layout_info }.into())
        }
        _ => plain(message),
    });
    let (agent, _) = start(config(&controller.pull, &controller.reply), &Arc::default());
    let patience = Duration::from_secs(20);
    let hits = agent
        .lookup_peers(vec![ChunkHash(u64::MAX)], patience)
        .unwrap();
    assert_eq!((hits[0].instance.as_str(), hits[0].chunks), ("other", 1));
    assert!(
        agent
            .lookup_peers(vec![ChunkHash(5)], patience)
            .unwrap()
            .is_empty()
    );
}

#[test]
fn an_overflow_shows_as_a_gap_and_is_mended_unasked() {
    let addresses = FakeController::start(|_, _| None).stop();
    let mut config = config(&addresses[0], &addresses[1]);
    config.batching.queue_limit = 10;
    config.repair_after = Duration::from_millis(50);
    let (agent, reporter) = start(config, &Arc::default());
    for n in 0..100 {
        reporter.admit(&CPU.into(), ChunkHash(n));
    }
    assert_eq!(agent.status().operations_dropped, 89);
    let side = Arc::new(std::sync::Mutex::new(SyncSide::default()));
    let controller = FakeController::at(addresses, {
        let side = side.clone();
        move |_, message| match message {
            Message::FullSyncStatusMsg(status) => Some(complete(&status.sync_id)),
            _ => side.lock().unwrap().answer(message),
        }
    });
    eventually("the reports", || operations(&controller).len() == 11);
    let sequence: Vec<i64> = operations(&controller).iter().map(|op| op.3).collect();
    assert_eq!(sequence, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 99]);
    eventually("a sync nobody asked for", || {
        agent.status().syncs_completed == 1
    });
    assert_eq!(side.lock().unwrap().started, [(CPU.to_owned(), 1)]);
}

#[test]
fn operations_between_listing_and_start_of_an_engine_that_heeds_no_freeze_mean_one_more_sync() {
    let accepts = Arc::new(AtomicBool::new(false));
    let side = Arc::new(std::sync::Mutex::new(SyncSide::default()));
    let controller = FakeController::start({
        let (accepts, side) = (accepts.clone(), side.clone());
        move |_, message| match message {
            Message::FullSyncStartMsg(_) if !accepts.load(Ordering::SeqCst) => None,
            Message::FullSyncStatusMsg(status) => Some(complete(&status.sync_id)),
            _ => side.lock().unwrap().answer(message),
        }
    });
    let mut config = config(&controller.pull, &controller.reply);
    config.batching.queue_limit = 10;
    config.repair_after = Duration::from_millis(50);
    config.request_timeout = Duration::from_millis(100);
    config.full_sync.max_start_attempts = 1000;
    let (agent, reporter) = start(config, &Arc::default());
    eventually("registration", || agent.status().registered);
    side.lock().unwrap().wanted = Some(Some(CPU));
    eventually("Start", || {
        controller.count(Front::Reply, "FullSyncStartMsg") > 0
    });
    for n in 0..8 {
        reporter.admit(&CPU.into(), ChunkHash(n));
    }
    eventually("more than half the queue is sent", || {
        operations(&controller).len() == 8
    });
    accepts.store(true, Ordering::SeqCst);
    eventually("one more sync", || agent.status().syncs_completed == 2);
    let started = side.lock().unwrap().started.clone();
    assert!(started.iter().all(|(location, _)| location == CPU));
}

#[test]
fn many_agents_share_one_thread_and_one_that_is_abandoned_says_nothing() {
    let controller = FakeController::start(|_, message| plain(message));
    let runtime = Runtime::start().unwrap();
    let mut agents: Vec<Agent> = (0..40)
        .map(|rank| {
            let mut config = config(&controller.pull, &controller.reply);
            config.worker = WorkerKey::new("fleet", rank);
            let engine: Arc<TestEngine> = Arc::default();
            runtime.agent(config, |_| engine).unwrap()
        })
        .collect();
    for (n, agent) in agents.iter().enumerate() {
        agent.reporter().admit(&CPU.into(), ChunkHash(n as u64));
    }
    eventually("all registered", || {
        agents.iter().all(|agent| agent.status().registered)
    });
    eventually("all reported", || operations(&controller).len() == 40);
    agents.pop().unwrap().abandon();
    for agent in agents {
        agent.close(Duration::from_secs(10));
    }
    eventually("goodbyes", || pushed(&controller, "DeRegisterMsg") >= 39);
    assert_eq!(pushed(&controller, "DeRegisterMsg"), 39);
}

#[test]
fn what_cannot_start_says_why() {
    let engine = |_: Reporter| -> Arc<dyn Engine> { Arc::new(TestEngine::default()) };
    let said = |config: AgentConfig| Agent::start(config, engine).err().unwrap().to_string();
    assert!(said(config("nonsense", "127.0.0.1:1")).contains("\"nonsense\" is not host:port"));
    let controller = FakeController::start(|_, message| plain(message));
    let (agent, _) = start(config(&controller.pull, &controller.reply), &Arc::default());
    let mut taken = config(&controller.pull, &controller.reply);
    taken.command_port = agent.command_port();
    assert!(said(taken).starts_with("command socket tcp://127.0.0.1:"));
}
