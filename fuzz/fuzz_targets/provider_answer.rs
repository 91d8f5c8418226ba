//! Answers of the issuers of credentials, by HTTP or by a command: the first byte chooses the provider, the second which of
//! its answers it is, the third the status, and the rest is the body. Whatever it is, no secret of it is shown.
#![no_main]

#[path = "../../tests/provider_answers/scene.rs"]
mod scene;

use libfuzzer_sys::fuzz_target;
use scene::{Case, Scene, leaked};

/// Those after which nothing is waited for and tried again.
const STATUSES: [u16; 10] = [200, 201, 204, 301, 307, 400, 401, 403, 404, 500];

thread_local! {
    static SCENE: (Scene, Vec<Case>) = {
        // A program that reads nothing must not end the fuzzer, which lacks what Rust's own start does about that. What is
        // registered once stays.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let guard = runtime.enter();
        drop(tokio::signal::unix::signal(tokio::signal::unix::SignalKind::pipe()).unwrap());
        drop(guard);
        let scene = Scene::new();
        let cases = scene.cases();
        (scene, cases)
    };
}

fuzz_target!(|input: &[u8]| {
    let [which, answer, status, body @ ..] = input else { return };
    SCENE.with(|(scene, cases)| {
        let case = &cases[usize::from(*which) % cases.len()];
        let mut answers = case.answers.clone();
        let changed = &mut answers[usize::from(*answer) % case.open];
        changed.status = STATUSES[usize::from(*status) % STATUSES.len()];
        changed.body = body.to_vec();
        let shown = scene.shown(case, &answers);
        assert!(leaked(&shown).is_none(), "{}: {:?} is in: {shown}", case.name, leaked(&shown));
    });
});
