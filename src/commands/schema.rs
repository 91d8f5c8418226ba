//! `sandbox schema`: prints the JSON Schema of sandbox.yaml, for editors.

use super::{Context, Failure};
use crate::project::schema;

/// Runs the verb. The schema is a JSON document in either format.
pub fn run(context: &Context) -> Result<u8, Failure> {
    context.printer.line(&format!("{:#}", schema::manifest()));
    Ok(0)
}
