//! A repository's `sandbox.yaml`, which the agent can propose changes to.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use sandbox::project::manifest;

fuzz_target!(|text: &str| {
    let path = Path::new("/project/sandbox.yaml");
    match manifest::parse(text, path) {
        Ok(manifest) => {
            assert_eq!(manifest.root, Path::new("/project"));
            assert!(manifest.workspace.source.is_relative(), "the source is a path of the host's");
            let climbs = manifest.workspace.source.components().any(|part| part == std::path::Component::ParentDir);
            assert!(!climbs, "the source leaves the project");
        }
        // A refusal is shown with the line that it is about, whatever is in that line.
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
