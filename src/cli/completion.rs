//! Completions for shells. A shell's script asks this program itself, by a variable of the environment and before
//! anything else is started, which words could come next.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Arg, Command};
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use clap_complete::env::Shells;
use clap_complete::{CompleteEnv, Shell};

use crate::commands::candidates;

/// The variable that the scripts set. Its name is our own: other programs' scripts set `COMPLETE` too.
const VARIABLE: &str = "SANDBOX_COMPLETE";

type Words = fn() -> BTreeSet<String>;

/// Which argument of which verbs takes which words. A verb of a group stands as `GROUP VERB`; `*` stands for every verb.
const KNOWN: &[(&str, &str, Words)] = &[
    ("*", "project", candidates::projects),
    ("*", "name", candidates::sandboxes),
    ("up", "image", candidates::images),
    ("up", "profile", candidates::profiles),
    ("init", "agent", candidates::agents),
    ("explain", "code", candidates::codes),
    ("credential set", "name", candidates::credentials),
    ("credential rotate", "name", candidates::credentials),
    ("credential revoke", "name", candidates::credentials),
    ("credential rm", "name", candidates::credentials),
    ("image lock", "name", candidates::images),
    ("image build", "name", candidates::images),
    ("image sbom", "name", candidates::images),
    ("image sign", "name", candidates::images),
    ("image provenance", "name", candidates::images),
    ("image diff", "first", candidates::images),
    ("image diff", "second", candidates::images),
    ("image outdated", "name", candidates::images),
    ("image update", "name", candidates::images),
    ("image vendor", "name", candidates::images),
    ("image verify", "name", candidates::images),
    ("image push", "name", candidates::images),
];

/// Where these names mean something else: a new project's name, and the folder with the images.
const OTHER_MEANING: &[(&str, &str)] = &[("init", "project"), ("image", "project")];

/// The words for an argument of a verb; the more exact line comes first.
fn words(verb: &str, argument: &str) -> Option<Words> {
    let group = verb.split(' ').next().unwrap_or(verb);
    if OTHER_MEANING.contains(&(group, argument)) {
        return None;
    }
    let find = |place: &str| KNOWN.iter().find(|(known, id, _)| *known == place && *id == argument);
    find(verb).or_else(|| find("*")).map(|(.., words)| *words)
}

/// Tells every argument of every verb which words it could have.
pub(super) fn with_candidates(command: Command, verb: &str) -> Command {
    let add = |arg: Arg| match words(verb, arg.get_id().as_str()) {
        Some(words) => {
            let list = move || words().into_iter().map(CompletionCandidate::new).collect::<Vec<_>>();
            arg.add(ArgValueCandidates::new(list))
        }
        None => arg,
    };
    let within = |inner: Command| {
        let name = if verb.is_empty() { inner.get_name().to_owned() } else { format!("{verb} {}", inner.get_name()) };
        with_candidates(inner, &name)
    };
    command.mut_args(add).mut_subcommands(within)
}

/// Answers a shell that asks; none when none did.
pub(super) fn answer(words: &[OsString]) -> Option<ExitCode> {
    let folder = std::env::current_dir().ok();
    let shells = CompleteEnv::with_factory(|| with_candidates(super::command(), "")).var(VARIABLE);
    match shells.try_complete(words.iter().cloned(), folder.as_deref()) {
        Ok(answered) => answered.then_some(ExitCode::SUCCESS),
        Err(error) => {
            // A shell shows nothing of this; who sets the variable by hand sees why.
            let _ = error.print();
            Some(ExitCode::from(2))
        }
    }
}

/// The script of a shell.
pub(super) fn script(shell: Shell) -> String {
    let mut text = Vec::new();
    if let Some(completer) = Shells::builtins().completer(&shell.to_string()) {
        // Writing into memory does not fail.
        let _ = completer.write_registration(VARIABLE, "sandbox", "sandbox", "sandbox", &mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every argument of every verb, as `VERB ARGUMENT`.
    fn arguments(command: &Command, verb: &str, found: &mut BTreeSet<(String, String)>) {
        found.extend(command.get_arguments().map(|arg| (verb.to_owned(), arg.get_id().to_string())));
        for inner in command.get_subcommands() {
            let name =
                if verb.is_empty() { inner.get_name().to_owned() } else { format!("{verb} {}", inner.get_name()) };
            arguments(inner, &name, found);
        }
    }

    #[test]
    fn every_line_of_the_table_is_about_an_argument_that_exists() {
        let mut found = BTreeSet::new();
        arguments(&super::super::command(), "", &mut found);
        for (verb, argument, _) in KNOWN {
            let exists = found.iter().any(|(known, id)| (*verb == "*" || known == verb) && id == argument);
            assert!(exists, "{verb} {argument}");
        }
        for (verb, argument) in OTHER_MEANING {
            assert!(found.contains(&((*verb).to_owned(), (*argument).to_owned())), "{verb} {argument}");
        }
    }

    #[test]
    fn every_shell_that_can_be_asked_for_has_a_script() {
        for shell in clap::ValueEnum::value_variants() {
            assert!(script(*shell).contains(VARIABLE), "{shell}");
        }
    }
}
