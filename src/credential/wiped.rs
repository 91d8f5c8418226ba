//! A JSON document that may hold secrets: its texts are wiped when it goes, and `Debug` shows none of them.

use std::fmt;

use serde_json::Value;
use zeroize::{Zeroize as _, Zeroizing};

/// A JSON document whose texts are wiped when it goes.
pub(super) struct Wiped(pub(super) Value);

/// Room for a document of the largest value with every character escaped.
const ROOM: usize = 512 << 10;

/// The JSON text of a value, in a buffer that is wiped and never grows: growing would leave copies behind.
pub(super) fn text(value: &Value) -> Result<Zeroizing<Vec<u8>>, serde_json::Error> {
    let mut room = Zeroizing::new(vec![0; ROOM]);
    let mut rest: &mut [u8] = &mut room;
    serde_json::to_writer(&mut rest, value)?;
    let written = ROOM - rest.len();
    room.truncate(written);
    Ok(room)
}

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
