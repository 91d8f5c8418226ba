//! A mirror's `Packages`: it is signed, and resolving it must end all the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sandbox::image::definition::Request;
use sandbox::image::resolve::{Index, Priority};

fuzz_target!(|text: &str| {
    let mut index = Index::default();
    // The second half is a source from which only what is asked for is taken.
    let (first, second) = text.split_once("\n\n\n").unwrap_or((text, ""));
    let added = [("bookworm", Priority::Normal, first), ("backports", Priority::OnRequest, second)];
    if added.into_iter().any(|(source, priority, text)| index.add(source, priority, text).is_err()) {
        return;
    }
    let names = text.lines().filter_map(|line| line.strip_prefix("Package: "));
    let requests: Vec<Request> = names.take(3).filter_map(Request::parse).collect();
    let Some((base, wanted)) = requests.split_first() else { return };
    let base: Vec<_> = index.preferred(&base.name).cloned().into_iter().collect();
    if let Ok(chosen) = index.resolve(wanted, &base) {
        let twice =
            chosen.iter().any(|one| base.iter().any(|base| (&one.name, &one.version) == (&base.name, &base.version)));
        assert!(!twice, "a package of the base is there twice");
        assert!(chosen.is_sorted_by(|one, next| one.name < next.name));
        // What was chosen holds together: with it there is nothing to add.
        let all: Vec<_> = base.into_iter().chain(chosen).collect();
        assert!(index.resolve(wanted, &all).is_ok_and(|more| more.is_empty()), "the choice is not whole");
    }
});
