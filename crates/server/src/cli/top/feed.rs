//! Getting what is shown: GET /live as a stream, and what the present view needs every [`ROUND`].
//!
//! Whatever fails ends the round; after a pause all is begun anew. What is read is bounded by
//! `remote.rs`, and an event of the stream by [`MAX_EVENT`].

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use super::TopError;
use super::data::{Fleet, History, Sample, Stats, Sync};
use super::model::{Question, View};
use crate::cli::client::remote::{Events, Remote, encoded};

/// Time between two questions for the same view.
const ROUND: Duration = Duration::from_secs(2);
/// Silence of the stream, which speaks every second, after which the controller counts as gone.
const SILENCE: Duration = Duration::from_secs(10);
/// Time for any other answer.
const ANSWER: Duration = Duration::from_secs(10);
/// Pause before a controller that is gone is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// Largest event of the stream, in bytes: an hour of history is a fraction of it.
const MAX_EVENT: usize = 16 << 20;

/// News for the model.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Update {
    History(History),
    Sample(Box<Sample>),
    Stats(Stats),
    Fleet(Fleet),
    Sync(Sync),
    /// The controller is gone, or refuses.
    Lost(String),
}

impl Update {
    pub(super) fn as_json(&self) -> Option<(&'static str, Value)> {
        Some(match self {
            Self::Sample(sample) => ("sample", json!(sample)),
            Self::Stats(stats) => ("stats", json!(stats)),
            Self::Fleet(fleet) => ("fleet", json!(fleet)),
            Self::Sync(sync) => ("sync", json!(sync)),
            Self::History(_) | Self::Lost(_) => return None,
        })
    }
}

/// Feeds until nobody listens.
pub(super) async fn run(
    remote: Remote,
    mut asked: watch::Receiver<Question>,
    updates: mpsc::Sender<Update>,
) {
    loop {
        if let Err(error) = follow(&remote, &mut asked, &updates).await
            && updates.send(Update::Lost(error.to_string())).await.is_err()
        {
            return;
        }
        if updates.is_closed() {
            return;
        }
        sleep(AGAIN).await;
    }
}

/// All that one frame needs.
pub(super) async fn once(remote: &Remote, question: &Question) -> Result<Vec<Update>, TopError> {
    let mut live = Live::open(remote).await?;
    let mut updates = Vec::new();
    while !matches!(updates.last(), Some(Update::Sample(_))) {
        updates.extend(live.next().await?);
    }
    updates.push(ask(remote, question).await?);
    Ok(updates)
}

async fn follow(
    remote: &Remote,
    asked: &mut watch::Receiver<Question>,
    updates: &mpsc::Sender<Update>,
) -> Result<(), TopError> {
    let mut live = Live::open(remote).await?;
    let mut due = Instant::now();
    loop {
        let update = tokio::select! {
            update = live.next() => update?,
            () = tokio::time::sleep_until(due) => {
                let question = asked.borrow_and_update().clone();
                due = Instant::now() + ROUND;
                Some(ask(remote, &question).await?)
            }
            changed = asked.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                due = Instant::now();
                None
            }
        };
        if let Some(update) = update
            && updates.send(update).await.is_err()
        {
            return Ok(());
        }
    }
}

async fn ask(remote: &Remote, question: &Question) -> Result<Update, TopError> {
    Ok(match question.view {
        View::Overview => Update::Stats(get(remote, "/controller/key-stats").await?),
        View::Fleet => {
            let Question {
                filter,
                sort,
                descending,
                offset,
                limit,
                ..
            } = question;
            let path = format!(
                "/fleet?q={}&sort={}&desc={descending}&offset={offset}&limit={limit}",
                encoded(filter),
                sort.name()
            );
            Update::Fleet(get(remote, &path).await?)
        }
        View::Sync => Update::Sync(get(remote, "/sync").await?),
    })
}

async fn get<T: DeserializeOwned>(remote: &Remote, path: &str) -> Result<T, TopError> {
    let answer = remote.get(path, ANSWER).await?;
    if answer.status != 200 {
        return Err(refused(answer.status, &answer.body));
    }
    serde_json::from_value(answer.body)
        .map_err(|error| TopError::Refused(format!("{path} gave something else: {error}")))
}

fn refused(status: u16, body: &Value) -> TopError {
    let detail = body["detail"].as_str().unwrap_or("no reason given");
    TopError::Refused(format!("the controller refuses ({status}): {detail}"))
}

/// The stream, taken apart into events.
struct Live {
    events: Events,
    text: Vec<u8>,
}

impl Live {
    async fn open(remote: &Remote) -> Result<Self, TopError> {
        let (status, events) = remote.open("/live", ANSWER).await?;
        if status != 200 {
            let body = events.rest(ANSWER).await;
            return Err(refused(status, &body));
        }
        Ok(Self {
            events,
            text: Vec::new(),
        })
    }

    /// The next event that means something, or `None` for one that does not. May be dropped while it
    /// waits.
    async fn next(&mut self) -> Result<Option<Update>, TopError> {
        loop {
            if let Some(event) = cut(&mut self.text) {
                return Ok(read(&event));
            }
            if self.text.len() > MAX_EVENT {
                return Err(TopError::Refused("an event is too large".into()));
            }
            match timeout(SILENCE, self.events.next()).await {
                Ok(Some(piece)) => self.text.extend_from_slice(&piece?),
                Ok(None) => return Err(TopError::Refused("the controller stopped".into())),
                Err(_) => {
                    let text = format!("the controller is silent for {} s", SILENCE.as_secs());
                    return Err(TopError::Refused(text));
                }
            }
        }
    }
}

/// Takes the first whole event off; it ends with an empty line.
fn cut(text: &mut Vec<u8>) -> Option<Vec<u8>> {
    let end = text.windows(2).position(|two| two == b"\n\n")?;
    let rest = text.split_off(end + 2);
    Some(std::mem::replace(text, rest))
}

fn read(event: &[u8]) -> Option<Update> {
    let text = std::str::from_utf8(event).ok()?;
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    let data = field("data:")?;
    match field("event:")?.trim() {
        "history" => serde_json::from_str(data).ok().map(Update::History),
        "sample" => serde_json::from_str(data).ok().map(Update::Sample),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_any_pieces() {
        let stream = "event: sample\ndata: {\"at\":1.5,\"workers\":3}\n\n: alive\n\nevent: history\ndata: {\"bounds\":[0.1]}\n\n";
        let mut text = Vec::new();
        let mut found = Vec::new();
        for byte in stream.bytes() {
            text.push(byte);
            while let Some(event) = cut(&mut text) {
                found.push(read(&event));
            }
        }
        let sample = Sample {
            at: 1.5,
            workers: 3,
            ..Sample::default()
        };
        let history = History {
            bounds: vec![0.1],
            ..History::default()
        };
        let expected = [
            Some(Update::Sample(Box::new(sample))),
            None,
            Some(Update::History(history)),
        ];
        assert_eq!(found, expected);
        assert!(text.is_empty());
    }

    #[test]
    fn nonsense_means_nothing() {
        for event in [
            "event: sample\ndata: {",
            "data: {}",
            "event: x\ndata: {}",
            "",
        ] {
            assert_eq!(read(event.as_bytes()), None, "{event}");
        }
        assert_eq!(read(b"event: sample\ndata: \xff"), None);
    }
}
