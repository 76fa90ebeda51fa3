//! Links against real ZeroMQ peers that behave well, badly and not at all.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::mpsc as std_mpsc;
use std::thread;
use std::time::{Duration, Instant};

use kvatlas_controller::plan::StepError;
use kvatlas_protocol::WorkerKey;
use tokio::sync::mpsc::Receiver;
use zmq::{Context, Socket, SocketType};

use super::links::{Answer, Job, LinkSettings, Links, SubmitError};

/// Long enough for a loaded machine; no test that passes waits for it.
const LONG: Duration = Duration::from_secs(30);

/// A deadline that a test waits for.
const SHORT: Duration = Duration::from_millis(300);

fn bound(context: &Context, kind: SocketType, port: u16) -> (Socket, SocketAddr) {
    let socket = context.socket(kind).unwrap();
    socket.set_linger(0).unwrap();
    socket.set_rcvtimeo(30_000).unwrap();
    let give_up = Instant::now() + LONG;
    let wanted = if port == 0 {
        "*".to_owned()
    } else {
        port.to_string()
    };
    // The port of a closed peer is free again a moment later.
    while let Err(error) = socket.bind(&format!("tcp://127.0.0.1:{wanted}")) {
        assert!(Instant::now() < give_up, "bind {wanted}: {error}");
        thread::yield_now();
    }
    let endpoint = socket.get_last_endpoint().unwrap().unwrap();
    let address = endpoint.strip_prefix("tcp://").unwrap().parse().unwrap();
    (socket, address)
}

fn rep() -> (Socket, SocketAddr) {
    bound(&Context::new(), zmq::REP, 0)
}

fn free_port() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap()
}

fn job(rank: i64, endpoint: SocketAddr, payload: &str) -> Job {
    Job {
        number: usize::try_from(rank).unwrap(),
        worker: WorkerKey::new("i", rank),
        endpoint,
        epoch: 1,
        payload: payload.into(),
    }
}

fn links() -> Links {
    Links::start(LinkSettings::default()).unwrap()
}

fn all(mut answers: Receiver<Answer>) -> BTreeMap<usize, Result<String, StepError>> {
    let mut all = BTreeMap::new();
    while let Some(answer) = answers.blocking_recv() {
        let result = answer.result.map(|bytes| String::from_utf8(bytes).unwrap());
        all.insert(answer.number, result);
    }
    all
}

fn one(links: &Links, job: Job, timeout: Duration) -> Result<String, StepError> {
    let number = job.number;
    all(links.submit(vec![job], timeout).unwrap())
        .remove(&number)
        .unwrap()
}

#[test]
fn what_the_worker_says_comes_back() {
    let (worker, address) = rep();
    let thread = thread::spawn(move || {
        for answer in ["a", "b"] {
            let asked = worker.recv_string(0).unwrap().unwrap();
            worker.send(&format!("{asked}{answer}"), 0).unwrap();
        }
        worker
    });
    let links = links();
    assert_eq!(one(&links, job(0, address, "1"), LONG), Ok("1a".into()));
    assert_eq!(one(&links, job(0, address, "2"), LONG), Ok("2b".into()));
    thread.join().unwrap();
}

#[test]
fn a_late_answer_is_never_the_next_commands() {
    let (worker, address) = rep();
    let (open, gate) = std_mpsc::channel();
    let thread = thread::spawn(move || {
        let first = worker.recv_string(0).unwrap().unwrap();
        gate.recv().unwrap();
        worker.send(&format!("late {first}"), 0).unwrap();
        let second = worker.recv_string(0).unwrap().unwrap();
        worker.send(&format!("in time {second}"), 0).unwrap();
        worker
    });
    let links = links();
    assert_eq!(
        one(&links, job(0, address, "1"), SHORT),
        Err(StepError::NoAnswer { waited: SHORT })
    );
    let second = links.submit(vec![job(0, address, "2")], LONG).unwrap();
    open.send(()).unwrap();
    assert_eq!(all(second)[&0], Ok("in time 2".into()));
    thread.join().unwrap();
}

#[test]
fn a_worker_that_is_not_there_is_told_as_soon_as_it_is() {
    let address = free_port();
    let links = links();
    assert_eq!(
        one(&links, job(0, address, "1"), SHORT),
        Err(StepError::NeverConnected {
            address: address.to_string(),
            waited: SHORT
        })
    );
    let answers = links.submit(vec![job(0, address, "2")], LONG).unwrap();
    let (worker, _) = bound(&Context::new(), zmq::REP, address.port());
    // The first command was never sent, so the second is what comes.
    assert_eq!(worker.recv_string(0).unwrap().unwrap(), "2");
    worker.send("here", 0).unwrap();
    assert_eq!(all(answers)[&0], Ok("here".into()));
}

#[test]
fn a_worker_that_dies_is_told_at_once_and_is_back_on_its_port() {
    let context = Context::new();
    let (worker, address) = bound(&context, zmq::REP, 0);
    let links = links();
    let answers = links.submit(vec![job(0, address, "1")], LONG).unwrap();
    assert_eq!(worker.recv_string(0).unwrap().unwrap(), "1");
    drop(worker);
    let begun = Instant::now();
    assert_eq!(all(answers)[&0], Err(StepError::Disconnected));
    assert!(begun.elapsed() < LONG / 2);

    let (worker, _) = bound(&context, zmq::REP, address.port());
    let answers = links.submit(vec![job(0, address, "2")], LONG).unwrap();
    assert_eq!(worker.recv_string(0).unwrap().unwrap(), "2");
    worker.send("back", 0).unwrap();
    assert_eq!(all(answers)[&0], Ok("back".into()));
}

#[test]
fn two_hundred_workers_obey_together() {
    let context = Context::new();
    let fleet: Vec<_> = (0..200).map(|_| bound(&context, zmq::REP, 0)).collect();
    let jobs = fleet
        .iter()
        .zip(0..)
        .map(|((_, address), rank)| job(rank, *address, "go"));
    let links = links();
    let answers = links.submit(jobs.collect(), LONG).unwrap();
    // Nobody answers before everybody has been told.
    for (worker, _) in &fleet {
        assert_eq!(worker.recv_string(0).unwrap().unwrap(), "go");
    }
    for (number, (worker, _)) in fleet.iter().enumerate() {
        worker.send(&number.to_string(), 0).unwrap();
    }
    let answers = all(answers);
    assert_eq!(answers.len(), 200);
    for (number, answer) in answers {
        assert_eq!(answer, Ok(number.to_string()));
    }
}

#[test]
fn a_slow_worker_delays_nobody_else() {
    let (slow, slow_address) = rep();
    let (quick, quick_address) = rep();
    let links = links();
    let slow_answers = links.submit(vec![job(0, slow_address, "1")], LONG).unwrap();
    assert_eq!(slow.recv_string(0).unwrap().unwrap(), "1");
    let quick_answers = links
        .submit(vec![job(1, quick_address, "2")], LONG)
        .unwrap();
    assert_eq!(quick.recv_string(0).unwrap().unwrap(), "2");
    quick.send("quick", 0).unwrap();
    assert_eq!(all(quick_answers)[&1], Ok("quick".into()));
    slow.send("slow", 0).unwrap();
    assert_eq!(all(slow_answers)[&0], Ok("slow".into()));
}

#[test]
fn commands_to_one_worker_go_one_at_a_time_and_in_order() {
    // A ROUTER, unlike a REP, would hand out a second command before the first is answered.
    let (worker, address) = bound(&Context::new(), zmq::ROUTER, 0);
    let links = links();
    let answers: Vec<_> = (0..5)
        .map(|number| {
            let payload = number.to_string();
            links.submit(vec![job(0, address, &payload)], LONG).unwrap()
        })
        .collect();
    for (number, answers) in answers.into_iter().enumerate() {
        let frames = worker.recv_multipart(0).unwrap();
        assert_eq!(frames[1..], [vec![], number.to_string().into_bytes()]);
        assert_eq!(worker.poll(zmq::POLLIN, 50).unwrap(), 0, "two outstanding");
        worker
            .send_multipart([frames[0].as_slice(), &[], b"ok"], 0)
            .unwrap();
        assert_eq!(all(answers)[&0], Ok("ok".into()));
    }
}

#[test]
fn a_command_behind_a_mute_one_says_so() {
    let (worker, address) = rep();
    let links = links();
    let first = links.submit(vec![job(0, address, "1")], LONG).unwrap();
    assert_eq!(worker.recv_string(0).unwrap().unwrap(), "1");
    assert_eq!(
        one(&links, job(0, address, "2"), SHORT),
        Err(StepError::Busy { waited: SHORT })
    );
    worker.send("done", 0).unwrap();
    assert_eq!(all(first)[&0], Ok("done".into()));
}

#[test]
fn a_full_line_refuses_the_whole_command() {
    let (mute, address) = rep();
    let (other, other_address) = rep();
    let links = Links::start(LinkSettings {
        max_per_worker: 2,
        ..LinkSettings::default()
    })
    .unwrap();
    let _held: Vec<_> = (0..2)
        .map(|_| links.submit(vec![job(0, address, "x")], LONG).unwrap())
        .collect();
    let both = vec![job(1, other_address, "x"), job(0, address, "x")];
    assert_eq!(
        links.submit(both, LONG).unwrap_err(),
        SubmitError::LineFull {
            worker: WorkerKey::new("i", 0),
            limit: 2
        }
    );
    // The other worker hears of the next command only.
    let answers = links
        .submit(vec![job(1, other_address, "next")], LONG)
        .unwrap();
    assert_eq!(other.recv_string(0).unwrap().unwrap(), "next");
    other.send("ok", 0).unwrap();
    assert_eq!(all(answers)[&1], Ok("ok".into()));
    drop(mute);
}

#[test]
fn pending_bytes_are_bounded_and_come_free() {
    let (worker, address) = rep();
    let links = Links::start(LinkSettings {
        max_pending_bytes: 10,
        ..LinkSettings::default()
    })
    .unwrap();
    let first = links
        .submit(vec![job(0, address, "12345678")], LONG)
        .unwrap();
    assert_eq!(
        links
            .submit(vec![job(1, address, "12345")], LONG)
            .unwrap_err(),
        SubmitError::TooMuch {
            pending: 13,
            limit: 10
        }
    );
    worker.recv_string(0).unwrap().unwrap();
    worker.send("ok", 0).unwrap();
    assert_eq!(all(first)[&0], Ok("ok".into()));
    assert!(links.submit(vec![job(1, address, "12345")], LONG).is_ok());
}

#[test]
fn a_new_registration_gets_a_new_connection() {
    let (worker, address) = bound(&Context::new(), zmq::ROUTER, 0);
    let links = links();
    let mut identities = Vec::new();
    for epoch in [1, 1, 2] {
        let job = Job {
            epoch,
            ..job(0, address, "x")
        };
        let answers = links.submit(vec![job], LONG).unwrap();
        let mut frames = worker.recv_multipart(0).unwrap();
        worker
            .send_multipart([frames[0].as_slice(), &[], b"ok"], 0)
            .unwrap();
        assert_eq!(all(answers)[&0], Ok("ok".into()));
        identities.push(frames.remove(0));
    }
    assert_eq!(identities[0], identities[1]);
    assert_ne!(identities[1], identities[2]);
}

#[test]
fn an_unused_connection_is_closed() {
    let (worker, address) = bound(&Context::new(), zmq::ROUTER, 0);
    worker.set_router_mandatory(true).unwrap();
    let links = Links::start(LinkSettings {
        idle_close: Duration::from_millis(1),
        ..LinkSettings::default()
    })
    .unwrap();
    let answers = links.submit(vec![job(0, address, "x")], LONG).unwrap();
    let identity = worker.recv_multipart(0).unwrap().remove(0);
    let send = |text: &[u8]| worker.send_multipart([identity.as_slice(), &[], text], 0);
    send(b"ok").unwrap();
    assert_eq!(all(answers)[&0], Ok("ok".into()));
    let give_up = Instant::now() + LONG;
    while send(b"anybody there?").is_ok() {
        assert!(Instant::now() < give_up, "the link is still open");
        thread::yield_now();
    }
}

#[test]
fn more_workers_than_connections_take_turns() {
    let context = Context::new();
    let links = Links::start(LinkSettings {
        max_links: 3,
        ..LinkSettings::default()
    })
    .unwrap();
    let fleet: Vec<_> = (0..12).map(|_| bound(&context, zmq::REP, 0)).collect();
    let jobs = fleet
        .iter()
        .zip(0..)
        .map(|((_, address), rank)| job(rank, *address, "x"));
    let answers = links.submit(jobs.collect(), LONG).unwrap();
    let mut left: Vec<_> = fleet.iter().map(|(worker, _)| worker).collect();
    let give_up = Instant::now() + LONG;
    while !left.is_empty() {
        assert!(Instant::now() < give_up, "{} were never told", left.len());
        left.retain(|worker| match worker.recv_string(zmq::DONTWAIT) {
            Ok(_) => worker.send("ok", 0).is_err(),
            Err(_) => true,
        });
        thread::yield_now();
    }
    assert!(
        all(answers)
            .values()
            .all(|answer| *answer == Ok("ok".into()))
    );
}

#[test]
fn a_peer_that_is_no_worker_costs_only_its_own_step() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Whoever connects may be gone already.
            let mut stream = stream;
            drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
        }
    });
    let (worker, good) = rep();
    let links = links();
    let jobs = vec![job(0, address, "x"), job(1, good, "x")];
    let answers = links.submit(jobs, Duration::from_secs(2)).unwrap();
    worker.recv_string(0).unwrap().unwrap();
    worker.send("ok", 0).unwrap();
    let answers = all(answers);
    assert_eq!(answers[&1], Ok("ok".into()));
    assert!(
        answers[&0].as_ref().is_err_and(StepError::is_silence),
        "{answers:?}"
    );
}

#[test]
fn answers_of_any_shape_are_survived() {
    let (worker, address) = bound(&Context::new(), zmq::ROUTER, 0);
    let links = links();
    let ask = |frames: Vec<Vec<u8>>| {
        let answers = links.submit(vec![job(0, address, "x")], LONG).unwrap();
        let identity = worker.recv_multipart(0).unwrap().remove(0);
        let message = std::iter::once(identity).chain(frames);
        worker.send_multipart(message, 0).unwrap();
        all(answers).remove(&0).unwrap()
    };
    assert_eq!(
        ask(vec![b"no delimiter".to_vec()]),
        Ok("no delimiter".into())
    );
    assert_eq!(ask(vec![vec![], vec![]]), Ok(String::new()));
    assert!(matches!(
        ask(vec![vec![]; 1_000]),
        Err(StepError::Undecodable(_))
    ));
    assert_eq!(
        ask(vec![vec![], vec![0; 2 << 20]]),
        Err(StepError::Disconnected)
    );
    assert_eq!(ask(vec![vec![], b"well".to_vec()]), Ok("well".into()));
}

#[test]
fn stopping_fails_what_runs_and_refuses_what_comes() {
    let (_mute, address) = rep();
    let links = links();
    let running = links.submit(vec![job(0, address, "1")], LONG).unwrap();
    let waiting = links.submit(vec![job(0, address, "2")], LONG).unwrap();
    links.stop();
    assert_eq!(all(running)[&0], Err(StepError::Stopping));
    assert_eq!(all(waiting)[&0], Err(StepError::Stopping));
    assert_eq!(
        links.submit(vec![job(0, address, "3")], LONG).unwrap_err(),
        SubmitError::Stopping
    );
}
