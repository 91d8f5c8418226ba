//! A mirror's `Packages`: it is signed, and resolving it must end all the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sandbox::image::resolve::Index;

fuzz_target!(|text: &str| {
    let mut index = Index::default();
    if index.add("bookworm", text).is_err() {
        return;
    }
    let names: Vec<String> =
        text.lines().filter_map(|line| line.strip_prefix("Package: ")).take(3).map(str::to_owned).collect();
    let Some((base, wanted)) = names.split_first() else { return };
    if let Ok(chosen) = index.resolve(wanted, std::slice::from_ref(base)) {
        assert!(chosen.iter().all(|candidate| candidate.name != *base), "a package of the base is there twice");
        assert!(chosen.is_sorted_by(|one, next| one.name < next.name));
    }
});
