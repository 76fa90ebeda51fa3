//! Client commands that change nothing.

use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::task::JoinSet;

use super::remote::{Answer, CallError, Remote, encoded};
use super::{ASK_TIMEOUT, Exit, Failure, To, show};

pub(super) async fn lookup(to: &To, tokens: Vec<i64>) -> Result<Exit, Failure> {
    let n_tokens = tokens.len();
    let body = json!({ "tokens": tokens });
    let body = post(to, "/lookup", &body).await?;
    to.print(&body, |body| show::lookup(body, n_tokens));
    Ok(Exit::Done)
}

pub(super) async fn workers(to: &To, instance: Option<&str>) -> Result<Exit, Failure> {
    let path = match instance {
        Some(instance) => format!("/controller/workers?instance_id={}", encoded(instance)),
        None => "/controller/workers".to_owned(),
    };
    to.print(&get(to, &path).await?, show::workers);
    Ok(Exit::Done)
}

pub(super) async fn sync(to: &To, instance: Option<&str>) -> Result<Exit, Failure> {
    let path = match instance {
        Some(instance) => format!("/sync?instance_id={}", encoded(instance)),
        None => "/sync".to_owned(),
    };
    to.print(&get(to, &path).await?, show::sync);
    Ok(Exit::Done)
}

pub(super) async fn instances(to: &To) -> Result<Exit, Failure> {
    to.print(&get(to, "/controller/key-stats").await?, show::instances);
    Ok(Exit::Done)
}

pub(super) async fn stats(to: &To) -> Result<Exit, Failure> {
    let mut body = get(to, "/controller/key-stats").await?;
    let mut events = get(to, "/events?limit=1").await?;
    if let Some(totals) = body.as_object_mut() {
        totals.remove("instances");
        totals.insert("running_count".into(), events["running_count"].take());
    }
    to.print(&body, show::stats);
    Ok(Exit::Done)
}

/// Asks all instances at once; one that is silent costs only its own line.
pub(super) async fn health(
    to: &To,
    instance: Option<String>,
    timeout: Option<f64>,
) -> Result<Exit, Failure> {
    let remote = to.remote()?;
    let instances = match instance {
        Some(instance) => {
            // Health of an unknown instance is an empty answer; this client says what is meant.
            workers_exist(&remote, &instance).await?;
            vec![instance]
        }
        None => instance_names(&get(to, "/controller/key-stats").await?),
    };
    let path = match timeout {
        Some(seconds) => format!("/health?timeout_s={seconds}"),
        None => "/health".to_owned(),
    };
    let patience =
        ASK_TIMEOUT + Duration::try_from_secs_f64(timeout.unwrap_or(0.0)).unwrap_or_default();
    let mut asking: JoinSet<(String, Result<Answer, CallError>)> = JoinSet::new();
    let mut answers = Map::new();
    let mut exit = Exit::Done;
    let mut instances = instances.into_iter();
    loop {
        // As many connections as a server takes without thinking.
        while asking.len() < 64
            && let Some(instance) = instances.next()
        {
            let (remote, path) = (remote.clone(), path.clone());
            asking.spawn(async move {
                let body = json!({ "instance_id": instance });
                let answer = remote.post(&path, &body, patience).await;
                (instance, answer)
            });
        }
        let Some(Ok((instance, answer))) = asking.join_next().await else {
            break;
        };
        let answer = answer?;
        let codes = answer.body["error_codes"].as_object();
        let well = codes.is_some_and(|codes| codes.values().all(|code| *code == 0));
        if answer.status != 200 || !well {
            exit = Exit::Failed;
        }
        if (400..500).contains(&answer.status) {
            return Err(Failure::Answer(answer));
        }
        answers.insert(instance, answer.body);
    }
    answers.sort_keys();
    to.print(&answers.into(), show::health);
    Ok(exit)
}

pub(super) async fn check(to: &To, id: &str) -> Result<Exit, Failure> {
    let body = post(to, "/check_finish", &json!({ "event_id": id })).await?;
    to.print(&body, |body| {
        body["status"].as_str().unwrap_or_default().to_owned()
    });
    Ok(exit_of(&body["status"]))
}

pub(super) async fn event(to: &To, id: &str) -> Result<Exit, Failure> {
    to.print(
        &get(to, &format!("/events/{}", encoded(id))).await?,
        show::event,
    );
    Ok(Exit::Done)
}

pub(super) async fn events(
    to: &To,
    state: Option<String>,
    instance: Option<String>,
    limit: Option<usize>,
) -> Result<Exit, Failure> {
    let pairs = [
        ("state", state),
        ("instance_id", instance),
        ("limit", limit.map(|limit| limit.to_string())),
    ];
    let query: Vec<_> = pairs
        .iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", encoded(value.as_deref()?))))
        .collect();
    let body = get(to, &format!("/events?{}", query.join("&"))).await?;
    to.print(&body, show::events);
    Ok(Exit::Done)
}

pub(super) async fn diagnose(to: &To, tokens: Option<Vec<i64>>) -> Result<Exit, Failure> {
    let body = match tokens {
        Some(tokens) => post(to, "/diagnose", &json!({ "tokens": tokens })).await?,
        None => get(to, "/diagnose").await?,
    };
    to.print(&body, show::diagnosis);
    Ok(Exit::Done)
}

/// How a client ends that saw an event in this state.
pub(super) fn exit_of(state: &Value) -> Exit {
    match state.as_str() {
        Some("finished") => Exit::Done,
        Some("running") => Exit::Running,
        _ => Exit::Failed,
    }
}

async fn get(to: &To, path: &str) -> Result<Value, Failure> {
    to.remote()?.get(path, ASK_TIMEOUT).await?.success()
}

async fn post(to: &To, path: &str, body: &Value) -> Result<Value, Failure> {
    let answer = to.remote()?.post(path, body, ASK_TIMEOUT).await?;
    answer.success()
}

async fn workers_exist(remote: &Remote, instance: &str) -> Result<(), Failure> {
    let path = format!("/controller/workers?instance_id={}", encoded(instance));
    remote.get(&path, ASK_TIMEOUT).await?.success()?;
    Ok(())
}

fn instance_names(body: &Value) -> Vec<String> {
    let rows = body["instances"].as_array().into_iter().flatten();
    rows.filter_map(|row| row["instance_id"].as_str().map(str::to_owned))
        .collect()
}
