//! The frame of a SARIF 2.1.0 log (OASIS standard, 2020): one run of this program.

use serde_json::{Value, json};

/// A log with one run. `notifications` say what the results leave out (section 3.58).
pub(super) fn log(rules: &[Value], results: &[Value], notifications: &[Value]) -> Value {
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "sandbox",
                "version": env!("CARGO_PKG_VERSION"),
                "informationUri": env!("CARGO_PKG_REPOSITORY"),
                "rules": rules,
            }},
            "columnKind": "unicodeCodePoints",
            "invocations": [{"executionSuccessful": true, "toolExecutionNotifications": notifications}],
            "results": results,
        }],
    })
}
