//! A page that stands alone: no script, no style or font from elsewhere, and a policy that lets none in.
//!
//! Every value goes through the template's escaping, and control and invisible characters are shown as what they are, so
//! that nothing of an agent's can become markup or hide.

use base64::Engine as _;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest as _, Sha256};

use crate::commands::printer::sanitise;

const STYLE: &str = include_str!("page.css");

/// Text from outside, with what cannot be seen made visible.
pub fn shown(text: &str) -> String {
    sanitise(text)
}

/// The whole page.
pub fn page(title: &str, body: &Markup) -> String {
    let hash = base64::engine::general_purpose::STANDARD.encode(Sha256::digest(STYLE.as_bytes()));
    // Content Security Policy Level 3, section 2.3.1: a hash lets this one style in, and nothing else.
    let policy = format!("default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'");
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(policy);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="referrer" content="no-referrer";
                title { (shown(title)) }
                style { (PreEscaped(STYLE)) }
            }
            body { (body) }
        }
    };
    page.into_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_text_becomes_markup(text in "[<>&\"'a-z/=!\\-\u{202e}\u{0}\u{1b}\n ]{0,60}") {
            let page = page(&text, &html! { p title=(shown(&text)) { (shown(&text)) } });
            let without = page.replace(STYLE, "");
            let tags: Vec<&str> = without.split('<').skip(1).map(|rest| rest.split([' ', '>']).next().unwrap_or_default()).collect();
            let known = ["!DOCTYPE", "html", "head", "meta", "title", "/title", "style", "/style", "/head", "body", "p", "/p", "/body", "/html"];
            prop_assert!(tags.iter().all(|tag| known.contains(tag)), "{tags:?}");
            let hidden = page.contains(['\u{202e}', '\u{0}', '\u{1b}']);
            prop_assert!(!hidden);
        }
    }

    #[test]
    fn the_policy_lets_in_the_style_of_the_page_alone() {
        let page = page("x", &html! {});
        let style = page.split("<style>").nth(1).unwrap().split("</style>").next().unwrap();
        let hash = base64::engine::general_purpose::STANDARD.encode(Sha256::digest(style.as_bytes()));
        assert!(page.contains(&format!("style-src 'sha256-{hash}'")), "{}", &page[..600]);
        assert!(page.contains("default-src 'none'") && !style.contains("url(") && !style.contains("@import"));
    }
}
