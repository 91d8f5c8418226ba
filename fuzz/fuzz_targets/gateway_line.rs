//! Lines between launcher and gateway.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sandbox::gateway::protocol::{Command, Event};

fuzz_target!(|line: &[u8]| {
    if let Ok(event) = serde_json::from_slice::<Event>(line) {
        let again = serde_json::to_vec(&event).expect("an event can be written");
        assert!(!again.contains(&b'\n'), "an event is more than one line");
        serde_json::from_slice::<Event>(&again).expect("an event that was written can be read");
    }
    let _ = serde_json::from_slice::<Command>(line);
});
