//! What is special about BuildKit: how it tells what it does, and the cache that it keeps.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bollard::query_parameters::PruneBuildOptions;
use prost::Message as _;
use serde::Deserialize;

use super::error::EngineError;
use super::{ApiVersion, CALL_LIMIT, Engine, transport};

/// Steps of one build that are told apart.
const STEPS: usize = 2000;
/// Bytes of a line of a step that are kept.
const LINE: usize = 2000;
/// Records of one build that are forgotten.
const RECORDS: usize = 2000;

/// `moby.buildkit.v1.StatusResponse`, as far as it matters here
/// (<https://github.com/moby/buildkit/blob/master/api/services/control/control.proto>).
#[derive(Clone, PartialEq, prost::Message)]
struct Status {
    #[prost(message, repeated, tag = "1")]
    vertexes: Vec<Vertex>,
    #[prost(message, repeated, tag = "3")]
    logs: Vec<Log>,
}

/// A step.
#[derive(Clone, PartialEq, prost::Message)]
struct Vertex {
    #[prost(string, tag = "1")]
    digest: String,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(message, optional, tag = "5")]
    started: Option<Time>,
}

/// Some of what a step said.
#[derive(Clone, PartialEq, prost::Message)]
struct Log {
    #[prost(string, tag = "1")]
    vertex: String,
    #[prost(bytes = "vec", tag = "4")]
    text: Vec<u8>,
}

/// A time, of which it is enough that it is there.
#[derive(Clone, PartialEq, prost::Message)]
struct Time {}

/// A line of a build.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// The name of a step that begins.
    Step(String),
    /// What a step says.
    Said(String),
}

impl Line {
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Step(text) | Self::Said(text) => text,
        }
    }

    pub(super) fn is_step(&self) -> bool {
        matches!(self, Self::Step(_))
    }
}

/// What has been told of a build so far.
#[derive(Debug, Default)]
pub(super) struct Trace {
    begun: BTreeSet<String>,
    /// Lines without an end, by step.
    unended: BTreeMap<String, Vec<u8>>,
}

impl Trace {
    /// Reads one message. What is not understood says nothing: it is for people, and decides nothing.
    pub(super) fn read(&mut self, base64: &str) -> Vec<Line> {
        let Ok(bytes) = BASE64_STANDARD.decode(base64) else { return Vec::new() };
        let Ok(status) = Status::decode(bytes.as_slice()) else { return Vec::new() };
        let mut lines = Vec::new();
        for vertex in status.vertexes {
            // The files that were sent, the base's configuration and the like are no steps of the Dockerfile.
            let own = vertex.name.starts_with('[') && !vertex.name.starts_with("[internal]");
            if own && vertex.started.is_some() && self.begun.len() < STEPS && self.begun.insert(vertex.digest) {
                lines.push(Line::Step(vertex.name));
            }
        }
        for log in status.logs {
            if self.unended.len() >= STEPS && !self.unended.contains_key(&log.vertex) {
                continue;
            }
            let kept = self.unended.entry(log.vertex).or_default();
            for piece in log.text.split_inclusive(|byte| *byte == b'\n') {
                kept.extend(piece.iter().take(LINE.saturating_sub(kept.len())));
                if piece.ends_with(b"\n") {
                    lines.push(Line::Said(String::from_utf8_lossy(&std::mem::take(kept)).trim_end().to_owned()));
                }
            }
        }
        lines
    }
}

/// The records that BuildKit's cache had at some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cache(BTreeSet<String>);

/// `GET /system/df`, as far as it matters here.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Usage {
    build_cache: Option<Vec<Record>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Record {
    #[serde(rename = "ID")]
    id: String,
    #[serde(default)]
    in_use: bool,
    #[serde(default)]
    created_at: String,
}

/// What an engine says while it adds up for somebody else (moby, daemon/disk_usage.go, before 22.06).
const BUSY: &str = "a disk usage operation is already running";
/// After how long it is asked again.
const AGAIN: Duration = Duration::from_millis(200);

impl Engine {
    /// What BuildKit's cache has.
    pub(super) async fn build_cache(&self) -> Result<Cache, EngineError> {
        Ok(Cache(self.cache_records().await?.into_iter().map(|record| record.id).collect()))
    }

    async fn cache_records(&self) -> Result<Vec<Record>, EngineError> {
        // Older engines tell all or nothing (https://docs.docker.com/reference/api/engine/version-history/, v1.42).
        let only = if self.inner.api < ApiVersion(1, 42) { "" } else { "?type=build-cache" };
        let path = self.path(&format!("/system/df{only}"));
        let begun = tokio::time::Instant::now();
        let usage: Usage = loop {
            match transport::get_json(&self.inner.address, "look into the build cache", &path).await {
                // Older engines add up one at a time, and refuse whoever else asks meanwhile.
                Err(EngineError::Api { source, .. })
                    if source.as_str().contains(BUSY) && begun.elapsed() < CALL_LIMIT =>
                {
                    tokio::time::sleep(AGAIN).await;
                }
                answer => break answer?,
            }
        };
        // 20.10 says `null` when there is nothing.
        Ok(usage.build_cache.unwrap_or_default())
    }

    /// Removes what the cache did not have before and nobody uses. It holds the files that were sent, and since builds here
    /// take nothing from it, it is of no use to them. Another build that ended meanwhile loses its records too, and with
    /// them nothing but time.
    pub(super) async fn forget_since(&self, before: &Cache) -> Result<(), EngineError> {
        let mut records = self.cache_records().await?;
        records.retain(|record| !before.0.contains(&record.id) && !record.in_use);
        // A record stays while there is a later one that was made of it.
        records.sort_by(|one, other| other.created_at.cmp(&one.created_at));
        records.truncate(RECORDS);
        let mut count = usize::MAX;
        while !records.is_empty() && records.len() < count {
            count = records.len();
            let mut left = Vec::new();
            for record in records {
                let filters = HashMap::from([("id".to_owned(), vec![record.id.clone()])]);
                let options =
                    PruneBuildOptions { all: Some(true), filters: Some(filters), ..PruneBuildOptions::default() };
                let pruned = self.client().prune_build(Some(options));
                let pruned = self.call("empty the build cache", CALL_LIMIT, pruned).await?;
                if pruned.caches_deleted.is_none_or(|deleted| deleted.is_empty()) {
                    left.push(record);
                }
            }
            records = left;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vertex(digest: &str, name: &str, started: bool) -> Vertex {
        let started = started.then_some(Time {});
        Vertex { digest: digest.into(), name: name.into(), started }
    }

    fn read(trace: &mut Trace, vertexes: Vec<Vertex>, logs: &[(&str, &str)]) -> Vec<Line> {
        let logs = logs.iter().map(|(vertex, text)| Log { vertex: (*vertex).into(), text: text.as_bytes().into() });
        let status = Status { vertexes, logs: logs.collect() };
        trace.read(&BASE64_STANDARD.encode(status.encode_to_vec()))
    }

    #[test]
    fn a_step_is_told_once_when_it_begins_and_its_lines_when_they_end() {
        let mut trace = Trace::default();
        let said = |text: &str| Line::Said(text.into());
        let steps = vec![vertex("a", "[internal] load", true), vertex("b", "[2/2] RUN x", false)];
        assert_eq!(read(&mut trace, steps, &[]), []);
        let begun = read(&mut trace, vec![vertex("b", "[2/2] RUN x", true)], &[("b", "one\ntw"), ("c", "other\r\n")]);
        assert_eq!(begun, [Line::Step("[2/2] RUN x".into()), said("one"), said("other")]);
        assert_eq!(read(&mut trace, vec![vertex("b", "[2/2] RUN x", true)], &[("b", "o\n")]), [said("two")]);
    }

    #[test]
    fn what_is_no_message_says_nothing_and_a_line_has_an_end() {
        let mut trace = Trace::default();
        assert_eq!(trace.read("%"), []);
        assert_eq!(trace.read("/////w=="), []);
        let long = "x".repeat(100_000);
        assert_eq!(read(&mut trace, Vec::new(), &[("a", &long), ("a", &long), ("a", "\n")])[0].text().len(), LINE);
    }

    #[test]
    fn reads_what_an_engine_of_20_10_sent() {
        // One step and what it wrote, as taken from its answer.
        let bytes = include_str!("buildkit/trace-20.10.txt");
        let mut trace = Trace::default();
        let lines: Vec<Line> = bytes.lines().flat_map(|line| trace.read(line)).collect();
        let texts: Vec<&str> = lines.iter().map(Line::text).collect();
        assert!(texts.contains(&"[stage-1 3/5] COPY --from=one /one /two"), "{texts:?}");
        assert!(texts.contains(&"out") && texts.contains(&"err"), "{texts:?}");
    }
}
