//! A JSON document that may hold secrets: its texts are wiped when it goes, and `Debug` shows none of them.

use std::fmt;

use serde_json::Value;
use zeroize::Zeroize as _;

/// A JSON document whose texts are wiped when it goes.
pub(super) struct Wiped(pub(super) Value);

impl Drop for Wiped {
    fn drop(&mut self) {
        fn wipe(value: &mut Value) {
            match value {
                Value::String(text) => text.zeroize(),
                Value::Array(values) => values.iter_mut().for_each(wipe),
                Value::Object(values) => values.values_mut().for_each(wipe),
                _ => {}
            }
        }
        wipe(&mut self.0);
    }
}

impl fmt::Debug for Wiped {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Wiped(…)")
    }
}
