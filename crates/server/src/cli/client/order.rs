//! Client commands that workers carry out.
//!
//! With a terminal to show progress on, the command is started without waiting and its event
//! followed; without one, the controller's answer is awaited.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::ask::exit_of;
use super::progress::Progress;
use super::remote::{Answer, Remote, encoded};
use super::tokens::{Prompt, TokensError};
use super::{ASK_TIMEOUT, Exit, Failure, To, show};

/// How often a followed event is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Deadline of the controller when none is asked for, at most (`command_timeout_s` may be less).
const LONGEST: Duration = Duration::from_secs(3_600);

/// What all of these commands take.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct Order<A: Args> {
    #[command(flatten)]
    what: A,
    /// Seconds each worker may take; the controller's command_timeout_s if absent
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<f64>,
    /// Print the event id and do not wait for the end
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    to: To,
}

/// The body of a request.
pub trait ToBody: Args {
    /// As the controller takes it.
    fn to_body(&self) -> Result<Value, TokensError>;
}

/// `kvatlas clear`
#[derive(Debug, Clone, PartialEq, Args)]
pub struct Clear {
    /// Whose
    instance: String,
    #[command(flatten)]
    place: Place,
}

/// `kvatlas pin`
#[derive(Debug, Clone, PartialEq, Args)]
pub struct Pin {
    /// Whose
    instance: String,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    prompt: Prompt,
}

/// `kvatlas compress` and `kvatlas decompress`
#[derive(Debug, Clone, PartialEq, Args)]
pub struct Compress {
    /// Whose
    instance: String,
    #[command(flatten)]
    place: Place,
    /// With what
    #[arg(long, value_name = "METHOD", default_value = "cachegen")]
    method: String,
    #[command(flatten)]
    prompt: Prompt,
}

/// `kvatlas move`
#[derive(Debug, Clone, PartialEq, Args)]
pub struct Move {
    /// Instance to move from
    from: String,
    /// Instance to move to
    to_instance: String,
    #[command(flatten)]
    place: Place,
    /// Storage backend to move to; that moved from if absent
    #[arg(long, value_name = "LOCATION")]
    to_location: Option<String>,
    /// Leave the source its copy
    #[arg(long)]
    copy: bool,
    #[command(flatten)]
    prompt: Prompt,
}

/// Where.
#[derive(Debug, Clone, PartialEq, Args)]
struct Place {
    /// Storage backend
    #[arg(long, value_name = "LOCATION", default_value = "LocalCPUBackend")]
    location: String,
}

impl<A: ToBody> Order<A> {
    pub(super) async fn run(self, path: &str) -> Result<Exit, Failure> {
        let body = self.what.to_body()?;
        let remote = self.to.remote()?;
        let progress = (!self.no_wait && !self.to.json)
            .then(Progress::new)
            .flatten();
        let mut query = Vec::new();
        if let Some(seconds) = self.timeout {
            query.push(format!("timeout_s={seconds}"));
        }
        if self.no_wait || progress.is_some() {
            query.push("wait=false".to_owned());
        }
        let path = format!("{path}?{}", query.join("&"));
        let patience = LONGEST + ASK_TIMEOUT;
        let answer = remote.post(&path, &body, patience).await?;
        match progress {
            Some(progress) if answer.status == 202 => {
                let id = answer.body["event_id"].as_str().unwrap_or_default();
                self.follow(&remote, id, &progress).await
            }
            _ => self.report(answer),
        }
    }

    /// Watches an event until it ends.
    async fn follow(
        &self,
        remote: &Remote,
        id: &str,
        progress: &Progress,
    ) -> Result<Exit, Failure> {
        let path = format!("/events/{}", encoded(id));
        loop {
            let event = remote.get(&path, ASK_TIMEOUT).await?.success()?;
            let exit = exit_of(&event["state"]);
            if exit != Exit::Running {
                progress.clear();
                self.to.print(&event, show::event);
                return Ok(exit);
            }
            progress.show(&event);
            tokio::time::sleep(LOOK).await;
        }
    }

    fn report(&self, answer: Answer) -> Result<Exit, Failure> {
        if self.to.json && answer.status >= 500 {
            // A script wants the failure as JSON too: event id, and who did obey.
            self.to.print(&answer.body, show::detail);
            return Ok(Failure::Answer(answer).exit());
        }
        let body = answer.success()?;
        self.to.print(&body, |body| match &body["num_tokens"] {
            Value::Null => body["event_id"].as_str().unwrap_or_default().to_owned(),
            number => format!("{number} tokens"),
        });
        Ok(Exit::Done)
    }
}

impl ToBody for Clear {
    fn to_body(&self) -> Result<Value, TokensError> {
        let Self { instance, place } = self;
        Ok(json!({ "instance_id": instance, "location": place.location }))
    }
}

impl ToBody for Pin {
    fn to_body(&self) -> Result<Value, TokensError> {
        let Self {
            instance,
            place,
            prompt,
        } = self;
        let tokens = prompt.required()?;
        Ok(json!({ "instance_id": instance, "location": place.location, "tokens": tokens }))
    }
}

impl ToBody for Compress {
    fn to_body(&self) -> Result<Value, TokensError> {
        let Self {
            instance,
            place,
            method,
            prompt,
        } = self;
        let tokens = prompt.optional()?;
        Ok(json!({
            "instance_id": instance, "location": place.location,
            "method": method, "tokens": tokens,
        }))
    }
}

impl ToBody for Move {
    fn to_body(&self) -> Result<Value, TokensError> {
        let Self {
            from,
            to_instance,
            place,
            to_location,
            copy,
            prompt,
        } = self;
        let target = to_location.as_ref().unwrap_or(&place.location);
        let tokens = prompt.optional()?;
        Ok(json!({
            "old_position": [from, place.location], "new_position": [to_instance, target],
            "should_copy": copy, "tokens": tokens,
        }))
    }
}
