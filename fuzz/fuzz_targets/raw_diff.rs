//! What git says about commits of the agent's, and the judgement of their paths.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sandbox::workspace::hazard;
use sandbox::workspace::review::parse_raw;

fuzz_target!(|output: &[u8]| {
    let Ok(changes) = parse_raw(output) else { return };
    for change in changes {
        assert!(!change.path.is_empty() && !change.path.contains(&0));
        assert!("AMDT".contains(change.status));
        let path = String::from_utf8_lossy(&change.path);
        // Spelling a path in capitals must not get it past what holds it back: some file systems do not tell them apart.
        assert_eq!(hazard::held_back(&path).is_some(), hazard::held_back(&path.to_ascii_uppercase()).is_some());
        let _ = (hazard::shown_first(&path), hazard::deceptive(&path), hazard::through_git(&path));
        let _ = hazard::link_hazard(&path, &change.new_id);
    }
});
