//! Answers as people read them.
//!
//! What is missing or of another kind is shown as nothing: the controller may be older or newer.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::table::table;

/// Why a controller refused: its `detail`, or whatever else it sent.
pub(super) fn detail(body: &Value) -> String {
    match &body["detail"] {
        detail @ Value::String(_) => text(detail),
        Value::Array(errors) => {
            let one = |error: &Value| format!("{}: {}", place(&error["loc"]), text(&error["msg"]));
            errors.iter().map(one).collect::<Vec<_>>().join("\n")
        }
        _ => text(body),
    }
}

pub(super) fn lookup(body: &Value, n_tokens: usize) -> String {
    let rows: Vec<_> = entries(&body["layout_info"])
        .map(|(instance, found)| {
            let tokens = found[1].as_u64().unwrap_or_default();
            let share = 100.0 * tokens as f64 / n_tokens.max(1) as f64;
            [
                instance.clone(),
                text(&found[0]),
                tokens.to_string(),
                format!("{share:.0} %"),
            ]
        })
        .collect();
    if rows.is_empty() {
        return format!("nobody holds a prefix of these {n_tokens} tokens");
    }
    table(["INSTANCE", "LOCATION", "TOKENS", "SHARE"], rows)
}

/// How long ago a time was; nothing for none.
fn ago(time: &Value) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |now| now.as_secs_f64());
    match time.as_f64() {
        Some(time) => format!("{} ago", span(now - time)),
        None => String::new(),
    }
}

pub(super) fn sync(body: &Value) -> String {
    let rows = items(&body["workers"]).flat_map(|worker| {
        let by_default = worker["sync_wanted"].as_object().map(|wanted| {
            [
                text(&worker["instance_id"]),
                text(&worker["worker_id"]),
                "(default)".to_owned(),
                "wanted".to_owned(),
                wanted.get("reason").map_or_else(String::new, text),
                String::new(),
                String::new(),
                String::new(),
            ]
        });
        let locations = items(&worker["locations"]).map(|known| {
            let limit = known["incomplete"]["limit"].as_str();
            let why = match (known["batches_announced"].as_u64(), limit) {
                (Some(of), _) => format!("{}/{of} batches", text(&known["batches_received"])),
                (None, Some(limit)) => format!("{limit} is reached"),
                (None, None) => text(&known["reason"]),
            };
            let state = match known["state"].as_str() {
                // With keys missing it is not, whatever its numbers say.
                Some("in sync") if limit.is_some() => "incomplete".to_owned(),
                _ => text(&known["state"]),
            };
            [
                text(&worker["instance_id"]),
                text(&worker["worker_id"]),
                text(&known["location"]),
                state,
                why,
                text(&known["key_count"]),
                text(&known["sequence_gaps"]),
                ago(&known["last_proof"]),
            ]
        });
        by_default.into_iter().chain(locations)
    });
    let rows: Vec<_> = rows.collect();
    let kept = &body["persistence"];
    let state = match kept["state"].as_str() {
        Some("failing") => {
            format!(
                "NOT KEPT: {}; {}",
                text(&kept["reason"]),
                text(&kept["remedy"])
            )
        }
        Some("working") => format!("kept in {}", text(&kept["directory"])),
        _ => "not kept (--no-state)".to_owned(),
    };
    let mut remedies: Vec<_> = items(&body["workers"])
        .flat_map(|worker| items(&worker["locations"]))
        .filter_map(|known| known["incomplete"]["remedy"].as_str())
        .collect();
    remedies.sort_unstable();
    remedies.dedup();
    let remedies: String = remedies
        .iter()
        .map(|remedy| format!("what to do: {remedy}\n"))
        .collect();
    let head = format!(
        "{} syncing, {} completed, {} incomplete, {} batches missing; state {state}\n{remedies}",
        text(&body["workers_syncing"]),
        text(&body["workers_completed"]),
        body["workers_incomplete"].as_u64().unwrap_or(0),
        text(&body["missing_batches"]),
    );
    let columns = [
        "INSTANCE", "RANK", "LOCATION", "STATE", "WHY", "KEYS", "GAPS", "PROVED",
    ];
    head + &table(columns, rows)
}

pub(super) fn workers(body: &Value) -> String {
    let rows = items(&body["workers"])
        .map(|worker| {
            [
                text(&worker["instance_id"]),
                text(&worker["worker_id"]),
                format!("{}:{}", text(&worker["ip"]), text(&worker["port"])),
                text(&worker["peer_init_url"]),
                text(&worker["key_count"]),
                ago(&worker["registration_time"]),
                ago(&worker["last_heartbeat_time"]),
            ]
        })
        .collect();
    table(
        [
            "INSTANCE",
            "RANK",
            "ADDRESS",
            "PEER URL",
            "KEYS",
            "REGISTERED",
            "HEARTBEAT",
        ],
        rows,
    )
}

pub(super) fn instances(body: &Value) -> String {
    let rows = items(&body["instances"])
        .map(|row| [&row["instance_id"], &row["worker_count"], &row["key_count"]].map(text))
        .collect();
    table(["INSTANCE", "WORKERS", "KEYS"], rows)
}

pub(super) fn stats(body: &Value) -> String {
    let row = |name: &str, key: &str| [name.to_owned(), text(&body[key])];
    let rows = vec![
        row("instances", "total_instance_count"),
        row("workers", "total_worker_count"),
        row("keys", "total_key_count"),
        row("commands running", "running_count"),
    ];
    table(["WHAT", "COUNT"], rows)
}

/// Health by instance: the answers, each with its instance.
pub(super) fn health(body: &Value) -> String {
    let mut rows = Vec::new();
    for (instance, answer) in entries(body) {
        for (rank, code) in entries(&answer["error_codes"]) {
            let meaning = match code.as_i64() {
                Some(0) => "well",
                Some(-1001) => "worker error",
                Some(-1002) => "unexpected answer",
                Some(-1003) => "undecodable answer",
                _ => "unwell",
            };
            rows.push([
                instance.clone(),
                rank.clone(),
                text(code),
                meaning.to_owned(),
            ]);
        }
        if !answer["detail"].is_null() {
            let none = String::new;
            rows.push([instance.clone(), none(), none(), detail(answer)]);
        }
    }
    table(["INSTANCE", "RANK", "CODE", "MEANING"], rows)
}

pub(super) fn events(body: &Value) -> String {
    let rows = items(&body["events"])
        .map(|event| {
            let target = match &event["target_instance_id"] {
                Value::String(target) => format!("{} -> {target}", text(&event["instance_id"])),
                _ => text(&event["instance_id"]),
            };
            [
                text(&event["event_id"]),
                target,
                text(&event["state"]),
                text(&event["num_tokens"]),
                seconds(&event["duration"]),
                beginning(&event["error"]),
            ]
        })
        .collect();
    table(
        ["EVENT", "INSTANCE", "STATE", "TOKENS", "TOOK", "ERROR"],
        rows,
    )
}

pub(super) fn event(body: &Value) -> String {
    let rows = items(&body["steps"])
        .map(|step| {
            let number = match &step["error_code"] {
                Value::Null => text(&step["num_tokens"]),
                code => format!("code {code}"),
            };
            [
                text(&step["worker"]),
                text(&step["state"]),
                number,
                seconds(&step["duration"]),
                text(&step["error"]),
            ]
        })
        .collect();
    let mut out = format!("{} {}\n", text(&body["event_id"]), text(&body["state"]));
    out.push_str(&table(["WORKER", "STATE", "TOKENS", "TOOK", "ERROR"], rows));
    out
}

pub(super) fn diagnosis(body: &Value) -> String {
    let mut out = format!(
        "{} instances, {} workers, {} keys, {} sequence gaps\n",
        text(&body["instances"]),
        text(&body["workers"]),
        text(&body["keys"]),
        text(&body["sequence_gaps"]),
    );
    for scheme in items(&body["hash_schemes"]["confirmed"]) {
        out.push_str(&format!("keys are made with {}\n", named_scheme(scheme)));
    }
    let rows: Vec<_> = items(&body["tried"])
        .map(|tried| {
            let confirmed = tried["confirmed"] == true;
            [
                named_scheme(tried),
                if confirmed { "yes" } else { "no" }.to_owned(),
                items(&tried["matches"]).count().to_string(),
            ]
        })
        .collect();
    if !rows.is_empty() {
        out.push_str(&table(["SCHEME", "CONFIRMED", "INSTANCES MATCHING"], rows));
    }
    for reason in items(&body["reasons"]) {
        out.push_str(&format!("- {}\n", text(reason)));
    }
    out
}

fn named_scheme(scheme: &Value) -> String {
    format!(
        "{}/{}/{}",
        text(&scheme["algorithm"]),
        text(&scheme["root"]),
        text(&scheme["chunk_size"])
    )
}

/// A value without quotes; nothing for null. Control characters, which an answer from anywhere may
/// carry, do not reach the terminal.
fn text(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    text.replace(|c: char| c.is_control(), " ")
}

/// As much of an error as a line of a list has room for; `events ID` shows all of it.
fn beginning(error: &Value) -> String {
    let error = text(error);
    match error.char_indices().nth(100) {
        Some((end, _)) => format!("{}...", &error[..end]),
        None => error,
    }
}

fn place(loc: &Value) -> String {
    items(loc).map(text).collect::<Vec<_>>().join(".")
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn entries(value: &Value) -> impl Iterator<Item = (String, &Value)> {
    let map = value.as_object().into_iter().flatten();
    map.map(|(name, value)| (name.replace(|c: char| c.is_control(), " "), value))
}

fn seconds(value: &Value) -> String {
    match value.as_f64() {
        Some(seconds) if seconds < 1.0 => format!("{:.0} ms", seconds * 1e3),
        Some(seconds) => format!("{seconds:.1} s"),
        None => String::new(),
    }
}

/// A time in its largest unit.
fn span(seconds: f64) -> String {
    let seconds = seconds.max(0.0);
    for (unit, length) in [("d", 86_400.0), ("h", 3_600.0), ("m", 60.0)] {
        if seconds >= 2.0 * length {
            return format!("{:.0} {unit}", seconds / length);
        }
    }
    format!("{seconds:.0} s")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_lookup_shows_shares() {
        let body = json!({ "layout_info": { "b": ["LocalCPUBackend", 512] } });
        assert_eq!(
            lookup(&body, 1024),
            "INSTANCE  LOCATION         TOKENS  SHARE\n\
             b         LocalCPUBackend     512   50 %\n"
        );
        assert!(lookup(&json!({ "layout_info": {} }), 3).contains("nobody"));
    }

    #[test]
    fn what_a_limit_keeps_out_is_not_in_sync() {
        let location = |name: &str, incomplete| {
            json!({ "location": name, "state": "in sync", "key_count": 3, "sequence_gaps": 0,
                    "last_proof": null, "incomplete": incomplete })
        };
        let full = json!({ "limit": "max_keys_per_worker", "since": 1.0, "remedy": "raise it" });
        let worker = json!({ "instance_id": "i", "worker_id": 0, "sync_wanted": null,
            "locations": [location("CPU", full.clone()), location("Disk", json!(null)), location("Far", full)] });
        let text = sync(
            &json!({ "workers_syncing": 0, "workers_completed": 0, "workers_incomplete": 1,
            "missing_batches": 0, "persistence": { "state": "off" }, "workers": [worker] }),
        );
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].contains(", 1 incomplete, "), "{text}");
        assert_eq!(lines[1], "what to do: raise it");
        assert!(
            lines[3].contains("incomplete  max_keys_per_worker is reached"),
            "{text}"
        );
        assert!(lines[4].contains("in sync"), "{text}");
        assert_eq!(text.matches("what to do").count(), 1);
    }

    #[test]
    fn details_of_both_shapes() {
        assert_eq!(detail(&json!({ "detail": "no" })), "no");
        let errors = json!({ "detail": [{ "loc": ["body", "tokens", 3], "msg": "not an int" }] });
        assert_eq!(detail(&errors), "body.tokens.3: not an int");
        assert_eq!(detail(&json!("<html>")), "<html>");
    }

    #[test]
    fn answers_of_any_shape_are_shown() {
        let nothing = [
            json!(null),
            json!([]),
            json!({}),
            json!({ "workers": 3, "events": "x" }),
        ];
        for body in nothing {
            for shown in [
                workers(&body),
                instances(&body),
                stats(&body),
                health(&body),
                events(&body),
                event(&body),
                diagnosis(&body),
                lookup(&body, 0),
            ] {
                assert!(!shown.is_empty());
            }
        }
        let hostile = json!({ "instances": [{ "instance_id": "a\u{1b}[2J\n" }] });
        assert!(!instances(&hostile).contains('\u{1b}'));
        assert!(!detail(&json!({ "detail": "\u{1b}[2J" })).contains('\u{1b}'));
        let long = json!({ "events": [{ "error": "ü".repeat(500) }] });
        assert!(events(&long).lines().all(|line| line.chars().count() < 200));
    }

    #[test]
    fn times_in_their_largest_unit() {
        assert_eq!(span(119.0), "119 s");
        assert_eq!(span(121.0), "2 m");
        assert_eq!(span(-4.0), "0 s");
        assert_eq!(span(400_000.0), "5 d");
    }
}
