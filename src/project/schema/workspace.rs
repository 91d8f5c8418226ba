//! The schema of `workspace`.

use serde_json::{Value, json};

use super::{SIZE, object, text, whole};
use crate::project::manifest::resolve::WORKSPACE_PATHS;

pub(super) fn workspace() -> Value {
    object(
        "What the agent works on: a clone, never the folder itself.",
        &[],
        vec![
            (
                "source",
                json!({ "type": "string", "minLength": 1, "default": ".", "description": "The repository's folder, inside the project." }),
            ),
            (
                "branch",
                json!({ "type": "string", "minLength": 1, "maxLength": 200, "description": "The branch to clone; the current one when left out." }),
            ),
            ("depth", whole("Commits of history to take along; all when left out.", 1, 1_000_000)),
            (
                "include_uncommitted",
                json!({ "type": "boolean", "default": false, "description": "Whether uncommitted changes of tracked files go along." }),
            ),
            (
                "sparse",
                paths(
                    "Folders that the agent's working tree has, besides the files at its top; the history is whole. Everything when left out.",
                ),
            ),
            (
                "submodules",
                paths(
                    "Submodules that go along, from your own working tree: nothing is fetched, and nothing of theirs runs.",
                ),
            ),
            ("lfs", paths("Files of git-lfs, or folders with some, that go along from your own store.")),
            (
                "sign",
                json!({ "type": "boolean", "default": false, "description": "Whether commits are signed with a key of the session, by which `pull` tells them from others." }),
            ),
            (
                "home",
                json!({
                    "description": "Whether `down` keeps the agent's home for this sandbox's next session, and how large it may become.",
                    "default": "remove",
                    "anyOf": [
                        { "type": "string", "enum": ["keep", "remove"] },
                        object("Both.", &[], vec![
                            ("keep", json!({ "type": "boolean", "default": false, "description": "Whether `down` keeps it." })),
                            ("limit", text("The most that it may take, such as 5GiB; a session that goes over it ends. `resources.disk` counts it too.", SIZE)),
                        ]),
                    ]
                }),
            ),
        ],
    )
}

fn paths(description: &str) -> Value {
    json!({
        "type": "array",
        "maxItems": WORKSPACE_PATHS,
        "description": format!("{description} Paths from the top of the repository."),
        "items": { "type": "string", "minLength": 1, "maxLength": 1024 },
        "examples": [["services/api", "docs"]]
    })
}
