//! What happens to containers, as it happens.

use std::collections::{BTreeMap, HashMap};

use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptions;
use futures_util::{Stream, StreamExt};

use super::error::EngineError;
use super::{Engine, label_filter};

/// Something that happened to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineEvent {
    /// The container's name.
    pub container: String,
    /// The container's id.
    pub id: String,
    /// What happened: `start`, `die`, `oom`, `destroy`, `exec_die` and so on.
    pub action: String,
    /// The exit code, where something ended.
    pub exit_code: Option<i64>,
    /// The container's labels, and what else the engine tells.
    pub attributes: BTreeMap<String, String>,
    /// When, in nanoseconds since 1970 by the clock of the engine.
    pub time: i64,
}

impl Engine {
    /// The events of containers with these labels (`key=value` or `key`) from now on. Ends when the engine does.
    pub fn events(&self, labels: &[String]) -> impl Stream<Item = Result<EngineEvent, EngineError>> + Send + use<> {
        let mut filters: HashMap<String, Vec<String>> = label_filter(labels).unwrap_or_default();
        filters.insert("type".into(), vec!["container".into()]);
        let options = EventsOptions { filters: Some(filters), ..EventsOptions::default() };
        self.client().events(Some(options)).filter_map(async |message| match message {
            Ok(message) => EngineEvent::from_api(message).map(Ok),
            Err(error) => Some(Err(EngineError::from_client("watch the containers", error))),
        })
    }
}

impl EngineEvent {
    fn from_api(message: EventMessage) -> Option<Self> {
        let actor = message.actor?;
        let attributes: BTreeMap<String, String> = actor.attributes.unwrap_or_default().into_iter().collect();
        // `exec_start: sh -c …` carries the command line, which is the container's and of no use here.
        let action = message.action?.split(':').next()?.trim().to_owned();
        Some(Self {
            container: attributes.get("name").cloned().unwrap_or_default(),
            id: actor.id?,
            exit_code: attributes.get("exitCode").and_then(|code| code.parse().ok()),
            action,
            attributes,
            time: message.time_nano.unwrap_or_default(),
        })
    }
}
