//! Reads what a credential of the provider `openai-project` says: project, life, admin key.

use std::path::Path;
use std::time::Duration;

use super::{github, vault};
use crate::credential::spec::OpenaiProjectSpec;
use crate::project::quantity;
use crate::project::reader::{Fields, Reader};

/// Keys of a credential that this provider has.
pub(super) const KEYS: &[&str] = &["address", "project_id", "ttl", "key_file", "key_command"];
const ADDRESS: &str = "https://api.openai.com";
/// How long a key lives when nothing is said, and what may be said: OpenAI takes up to a year.
const LIFE: Duration = Duration::from_secs(86_400);
const SHORTEST: Duration = Duration::from_secs(15 * 60);
const LONGEST: Duration = Duration::from_secs(30 * 86_400);

/// The specification, or `None` with a problem reported.
pub(super) fn spec(reader: &mut Reader, fields: &Fields<'_>, root: &Path) -> Option<OpenaiProjectSpec> {
    let address = match fields.get("address") {
        None => Some(ADDRESS.to_owned()),
        Some(node) => reader.parsed(node, "`address`", "an address such as https://api.openai.com", vault::address),
    };
    let example = "the project's id, proj_…";
    let project = match fields.get("project_id") {
        None => {
            let message = "the provider `openai-project` needs `project_id`";
            reader.report(fields.place, message, format!("write {example}"));
            None
        }
        Some(node) => reader.parsed(node, "`project_id`", example, project),
    };
    let ttl = match fields.get("ttl") {
        None => Some(LIFE),
        Some(node) => reader.parsed(node, "`ttl`", "a duration from 15m to 30d, such as 12h", |text| {
            quantity::duration(text).filter(|ttl| (SHORTEST..=LONGEST).contains(ttl))
        }),
    };
    let key = github::key(reader, fields, root, "openai-project");
    Some(OpenaiProjectSpec { address: address?, project: project?, ttl: ttl?, key: key? })
}

fn project(text: &str) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    let rest = text.strip_prefix("proj_")?;
    ((1..=64).contains(&rest.len()) && rest.bytes().all(plain)).then(|| text.to_owned())
}
