use super::*;
use crate::commands::report::tests::eventful;

fn report() -> Report {
    let session = eventful();
    Report {
        since: None,
        until: Some("2027-02-01T00:00:00Z".parse().unwrap()),
        project: None,
        made: "2027-02-02T00:00:00Z".parse().unwrap(),
        by: "ada@machine".to_owned(),
        log: Head { sequence: 42, hash: crate::image::reference::Digest::from_bytes([7; 32]) },
        grants: grants(&session),
        sessions: vec![session],
    }
}

#[test]
fn every_form_has_the_grant_its_end_and_a_place_for_the_decision() {
    let report = report();
    insta::assert_snapshot!("table", table(&report));
    insta::assert_snapshot!("markdown", markdown(&report));
    insta::assert_snapshot!("csv", csv(&report));
    let page = page("x", &body(&report));
    for text in [&markdown(&report), &csv(&report), &page] {
        assert!(text.contains("reviewer's decision") && text.contains("01:39Z: revoked"), "{text}");
        assert!(!text.contains(['\u{1b}', '\u{202e}']) && !text.contains("<script>"));
    }
}

#[test]
fn a_cell_is_no_formula_and_no_markup() {
    let csv = csv(&report());
    assert!(csv.contains(",'=f2,") && !csv.contains(",=f2"), "{csv}");
    assert_eq!(cell("a|b `c` <d>"), "a\\|b \\`c\\` \\<d\\>");
}
