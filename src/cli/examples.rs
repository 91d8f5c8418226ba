//! The examples at the end of each verb's `--help`, which the manual pages repeat.

use clap::Command;

/// A command and what it does.
type Example = (&'static str, &'static str);

/// Examples by verb. A verb of a group stands as `GROUP VERB`; the first line is about the program itself.
const EXAMPLES: &[(&str, &[Example])] = &[
    ("", &[("init", "write sandbox.yaml for this repository"), ("trust", "approve it"), ("up", "run the agent")]),
    (
        "init",
        &[
            ("init", "ask, show, then write"),
            ("init --yes --agent codex", "ask nothing"),
            ("init ../payments --project pay", "another folder, another name"),
        ],
    ),
    (
        "up",
        &[
            ("up", "start or join, and run the agent"),
            ("up -- make test", "run another command instead"),
            ("up payments --name try-2 --detach", "a second sandbox, in the background"),
        ],
    ),
    (
        "plan",
        &[
            ("plan", "of the project of this folder"),
            ("plan payments", "of a project that was used before"),
            ("plan --format json", "for scripts"),
        ],
    ),
    (
        "why",
        &[
            ("why payments github.com", "is this host allowed on port 443?"),
            ("why payments db.internal:5432", "and this port?"),
            ("why payments api.github.com POST /graphql", "and this request?"),
        ],
    ),
    (
        "exec",
        &[
            ("exec payments -- git log -3", "look at the agent's work"),
            ("exec . -- make test", "the project of this folder"),
            ("exec payments --name try-2 -- ps aux", "its second sandbox"),
        ],
    ),
    ("shell", &[("shell", "in the sandbox of this folder"), ("shell payments", "in another project's")]),
    (
        "cp",
        &[
            ("cp payments:out/report.pdf .", "out of /workspace, into this folder"),
            ("cp fixtures.sql payments:/tmp/", "into the sandbox"),
            ("cp .:dist ./dist-of-agent --limit 2GiB", "a folder, under another name"),
        ],
    ),
    (
        "port",
        &[
            ("port payments 3000", "http://payments.localhost:3000"),
            ("port payments 80:8080 5173", "several, one of them elsewhere"),
            ("port payments --name try-2 3000:3001", "of its second sandbox"),
        ],
    ),
    ("ps", &[("ps", "every sandbox of this machine"), ("ps --format json", "for scripts")]),
    ("status", &[("status", "exit code 1 when it is down"), ("status payments --name try-2", "of another one")]),
    (
        "network",
        &[
            ("network ls payments", "what it may reach, and what went through"),
            ("network log payments --follow --denied", "see what it asks for in vain"),
            ("network allow payments docs.rs", "let it reach one more host"),
        ],
    ),
    (
        "network ls",
        &[("network ls", "of the sandbox of this folder"), ("network ls payments --format json", "for scripts")],
    ),
    (
        "network log",
        &[
            ("network log payments", "every decision of the session"),
            ("network log payments --follow", "and those that are still to come"),
            ("network log payments --denied", "only what was denied"),
        ],
    ),
    (
        "network allow",
        &[
            ("network allow payments docs.rs", "the whole host, on port 443"),
            ("network allow payments api.github.com GET /repos/acme/**", "some requests alone"),
            ("network allow . db.internal:5432 --allow-private 10.20.0.0/16", "a private host"),
        ],
    ),
    (
        "network deny",
        &[("network deny payments docs.rs", "on every port"), ("network deny payments docs.rs:80", "on this one")],
    ),
    (
        "network learn",
        &[
            ("network learn payments", "of its last session, also when it is gone"),
            ("network learn payments --format json", "for other programs"),
        ],
    ),
    (
        "network presets",
        &[
            ("network presets", "all of them, with your project's own"),
            ("network presets github > profiles/network/github.yaml", "a copy to change, which then comes first"),
        ],
    ),
    (
        "logs",
        &[
            ("logs", "all that the main command printed"),
            ("logs --follow", "and what it prints from now on"),
            ("logs payments --tail 20", "only the last lines"),
        ],
    ),
    (
        "diff",
        &[
            ("diff", "changed lines by file"),
            ("diff --patch", "the changes themselves"),
            ("diff payments --names", "the paths alone"),
        ],
    ),
    (
        "review",
        &[
            ("review", "the page's path, and what is riskiest"),
            ("review payments --output review.html", "into a file of your own"),
            ("review payments --format json", "for other programs"),
        ],
    ),
    (
        "pull",
        &[
            ("pull", "review, then bring in"),
            ("pull --watch", "and what the agent commits from now on"),
            ("pull --accept-risk sandbox.yaml", "let in what is held back"),
        ],
    ),
    (
        "scan",
        &[
            ("scan", "the home, the environment, this folder's settings"),
            ("scan ~/src --check", "every file of a folder; exit code 1 when something is found"),
            ("scan --as sarif > scan.sarif", "for the programs that show such findings"),
        ],
    ),
    (
        "report",
        &[
            ("report", "what the last session of this folder's sandbox did"),
            ("report payments --name try-2", "of another one, also when it is gone"),
            ("report payments --format json", "for other programs"),
        ],
    ),
    (
        "down",
        &[
            ("down", "refuses to lose commits that were not pulled"),
            ("down --discard", "lose them"),
            ("down --discard-home", "also remove the home that `workspace.home: keep` keeps"),
        ],
    ),
    (
        "workspace",
        &[
            ("workspace ls", "clones and homes, what they take, and when they were last used"),
            ("workspace rm payments --home", "refuses while it runs, or to lose commits"),
            ("workspace export payments -o payments.tar", "files and folders, without links and `.git`"),
        ],
    ),
    (
        "workspace ls",
        &[("workspace ls", "every sandbox of this machine"), ("workspace ls --format json", "sizes in bytes")],
    ),
    (
        "workspace rm",
        &[
            ("workspace rm payments", "the clone of a sandbox that does not run"),
            ("workspace rm payments --discard --home", "with commits that were not pulled, and the home"),
        ],
    ),
    (
        "workspace export",
        &[
            ("workspace export payments -o payments.tar", "files and folders of the clone"),
            ("workspace export payments --home -o home.tar", "of the home"),
            ("workspace export payments --bundle -o payments.bundle", "the agent's commits"),
        ],
    ),
    ("gc", &[("gc --dry-run", "say what a crash left behind"), ("gc", "remove it")]),
    (
        "credential",
        &[
            ("credential ls", "what the project has, without values"),
            ("credential set anthropic", "type a value, hidden"),
            ("credential check", "exit code 1 when one cannot be used"),
        ],
    ),
    (
        "credential set",
        &[
            ("credential set anthropic", "type the value, hidden"),
            ("credential set anthropic payments < key.txt", "from a file, for a project by name"),
        ],
    ),
    (
        "credential login",
        &[
            ("credential login codex", "by a code in the browser"),
            ("credential login codex payments < token.txt", "with a refresh token, for a project by name"),
        ],
    ),
    (
        "credential import",
        &[
            ("credential import .env", "variables named like declared credentials"),
            ("credential import .env --prefix PAYMENTS_", "with a prefix before the names"),
        ],
    ),
    (
        "credential ls",
        &[
            ("credential ls", "of the project of this folder"),
            ("credential ls payments", "of another"),
            ("credential ls --owner ada", "what a person has here, in every project"),
        ],
    ),
    (
        "credential check",
        &[
            ("credential check", "of the project of this folder"),
            ("credential check payments --format json", "for cron and CI"),
            ("credential check --as sarif > credentials.sarif", "for a code host's list of alerts"),
        ],
    ),
    (
        "credential rotate",
        &[
            ("credential rotate github", "running sandboxes get the new one"),
            ("credential rotate github payments", "of a project by name"),
        ],
    ),
    (
        "credential recipients",
        &[
            ("credential recipients ls", "whose keys open new values"),
            ("credential recipients add bo ~/bo.pub", "a key for a colleague"),
            ("credential recipients rm bo", "who has left"),
        ],
    ),
    (
        "credential recipients ls",
        &[
            ("credential recipients ls", "of the project of this folder"),
            ("credential recipients ls payments --format json", "with whole keys, for a script"),
        ],
    ),
    (
        "credential recipients add",
        &[
            ("credential recipients add bo age1…", "an age key"),
            ("credential recipients add bo ~/.ssh/id_ed25519.pub", "an ssh key, from a file"),
        ],
    ),
    (
        "credential recipients rm",
        &[
            ("credential recipients rm bo", "all keys of a person"),
            ("credential recipients rm bo payments", "of a project by name"),
        ],
    ),
    (
        "credential rekey",
        &[
            ("credential rekey", "after a recipient was added or removed"),
            ("credential rekey payments", "of a project by name"),
        ],
    ),
    (
        "credential revoke",
        &[
            ("credential revoke github", "running sandboxes lose it at once"),
            ("credential revoke --all payments", "the kill switch: everything that its sandboxes have"),
            (
                "credential revoke --owner ada --stop --reason offboarding",
                "of a person, who may have left; sandboxes stop",
            ),
        ],
    ),
    (
        "credential identity",
        &[
            ("credential identity payments", "issuer, public keys, and what Vault, AWS, GCP and Azure are told"),
            ("credential identity --rotate", "a new key; the old one stays published for an hour"),
            ("credential identity payments --token vault", "a token, for a look at it; it is recorded"),
        ],
    ),
    (
        "credential rm",
        &[
            ("credential rm anthropic", "of the project of this folder"),
            ("credential rm anthropic payments", "of a project by name"),
        ],
    ),
    (
        "image",
        &[
            ("image ls", "what there is"),
            ("image lock agent", "resolve, build and write the lock"),
            ("image verify agent", "build again and compare"),
        ],
    ),
    (
        "image lock",
        &[
            ("image lock agent", "write images/agent/image.lock"),
            ("image lock agent --project ../payments", "of another project"),
            ("image lock Dockerfile.agent", "build it, and write Dockerfile.agent.lock"),
        ],
    ),
    (
        "image build",
        &[
            ("image build agent", "what the lock says"),
            ("image build agent --check", "twice, and compare"),
            ("image build agent --output oci:out", "into a folder"),
        ],
    ),
    (
        "image lint",
        &[
            ("image lint", "of Dockerfile.agent"),
            ("image lint tools/Dockerfile --strict", "of another one, warnings included"),
        ],
    ),
    (
        "image sign",
        &[
            ("image sign agent --key release.pem", "the provenance"),
            ("image sign agent --key release.pem --as spdx", "the bill of materials"),
        ],
    ),
    ("image sbom", &[("image sbom agent", "SPDX 2.3"), ("image sbom agent --as cyclonedx", "CycloneDX 1.6")]),
    (
        "image provenance",
        &[
            ("image provenance agent", "print the statement"),
            ("image provenance agent --project ../payments", "of another project"),
        ],
    ),
    (
        "image diff",
        &[
            ("image diff agent codex", "between two definitions"),
            ("image diff agent codex --format json", "for scripts"),
        ],
    ),
    (
        "image outdated",
        &[("image outdated agent", "exit code 1 when something is"), ("image outdated agent --format json", "for CI")],
    ),
    (
        "image update",
        &[
            ("image update agent", "take newer versions"),
            ("image update agent git", "of one package"),
            ("image update agent --project ../payments", "of another project"),
        ],
    ),
    ("image ls", &[("image ls", "with the digests of the locks"), ("image ls --project ../payments", "of a project")]),
    (
        "image vendor",
        &[
            ("image vendor agent", "keep its packages in images/vendor"),
            ("image vendor agent --project ../payments", "of another project"),
        ],
    ),
    (
        "image verify",
        &[
            ("image verify agent", "build again and compare"),
            ("image verify agent --offline", "with what is in the cache"),
            ("image verify agent --key release.pub --statement agent.json", "and with what was signed"),
        ],
    ),
    (
        "image push",
        &[
            ("image push agent registry.example.com/team/agent", "by digest"),
            ("image push agent registry.example.com/team/agent:1", "and a tag"),
        ],
    ),
    (
        "image pull",
        &[
            ("image pull registry.example.com/team/agent@sha256:…", "by digest"),
            ("image pull registry.example.com/team/agent@sha256:… --quiet", "for scripts"),
        ],
    ),
    (
        "audit",
        &[
            ("audit log", "what happened"),
            ("audit verify", "is the log whole?"),
            ("audit report --as html > report.html", "for an auditor"),
        ],
    ),
    (
        "audit log",
        &[
            ("audit log --project payments", "of one project"),
            ("audit log --action credential", "about credentials"),
            ("audit log --since 2026-01-31T00:00:00Z", "since a time"),
        ],
    ),
    (
        "audit verify",
        &[("audit verify", "exit code 1 when it is not whole"), ("audit verify --format json", "its head")],
    ),
    (
        "audit report",
        &[
            ("audit report --since 2026-01-01T00:00:00Z", "sessions and credentials of this year"),
            ("audit report --project payments --as csv > payments.csv", "of one project, for a spreadsheet"),
            ("audit report --as html > report.html", "a page to hand on"),
        ],
    ),
    (
        "trust",
        &[
            ("trust", "show what the manifest asks for, then ask"),
            ("trust payments --yes", "approve without being asked"),
        ],
    ),
    ("doctor", &[("doctor", "exit code 1 when something is missing"), ("doctor --format json", "for scripts")]),
    (
        "editor",
        &[
            ("editor vscode", "show what would be written"),
            ("editor vscode --write", "merge it into what is there"),
            ("editor vscode --remove", "take it away again"),
        ],
    ),
    ("schema", &[("schema", "print it"), ("schema > sandbox.schema.json", "for an editor that reads a file")]),
    ("explain", &[("explain", "list every code"), ("explain manifest-invalid", "say more about one")]),
    (
        "completions",
        &[
            ("completions bash > ~/.local/share/bash-completion/completions/sandbox", "for every new bash"),
            ("completions zsh > ~/.zfunc/_sandbox", "for zsh, in a folder of $fpath"),
            ("completions fish > ~/.config/fish/completions/sandbox.fish", "for every new fish"),
        ],
    ),
    ("man", &[("man | man -l -", "read the first page"), ("man --output ~/.local/share/man/man1", "write them all")]),
];

/// The narrowest terminal that a page is made for.
const COLUMNS: usize = 80;

/// Puts the examples at the end of the help of the program and of every verb.
pub(super) fn teach(command: Command) -> Command {
    within(command, "")
}

fn within(command: Command, verb: &str) -> Command {
    let command = match EXAMPLES.iter().find(|(name, _)| *name == verb) {
        Some((_, examples)) => command.after_help(text(examples)),
        None => command,
    };
    command.mut_subcommands(|inner| {
        let name = if verb.is_empty() { inner.get_name().to_owned() } else { format!("{verb} {}", inner.get_name()) };
        within(inner, &name)
    })
}

/// Commands in one column and what they do in the next; where one finds no room, all words stand above their commands.
fn text(examples: &[Example]) -> String {
    let length = |text: &str| text.chars().count();
    let width = examples.iter().map(|(command, _)| length(command)).max().unwrap_or_default();
    let beside = examples.iter().all(|(_, words)| "  sandbox ".len() + width + 2 + length(words) <= COLUMNS);
    let mut text = "Examples:".to_owned();
    for (command, words) in examples {
        if beside {
            text.push_str(&format!("\n  sandbox {command:width$}  {words}"));
        } else {
            text.push_str(&format!("\n  # {words}\n  sandbox {command}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn verbs(command: &Command, verb: &str, found: &mut BTreeSet<String>) {
        found.insert(verb.to_owned());
        for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set() && inner.get_name() != "help") {
            let name =
                if verb.is_empty() { inner.get_name().to_owned() } else { format!("{verb} {}", inner.get_name()) };
            verbs(inner, &name, found);
        }
    }

    #[test]
    fn every_verb_has_two_or_three_examples() {
        let mut found = BTreeSet::new();
        verbs(&super::super::command(), "", &mut found);
        let taught: BTreeSet<String> = EXAMPLES.iter().map(|(verb, _)| (*verb).to_owned()).collect();
        assert_eq!(taught, found);
        assert_eq!(taught.len(), EXAMPLES.len(), "a verb stands there twice");
        for (verb, examples) in EXAMPLES {
            assert!((2..=3).contains(&examples.len()), "{verb} has {}", examples.len());
        }
    }

    #[test]
    fn every_example_is_a_command_that_is_understood() {
        for (verb, examples) in EXAMPLES {
            for (example, _) in *examples {
                assert!(example.starts_with(verb), "{example} is no example of {verb}");
                let own = example.split(['<', '>', '|']).next().unwrap();
                // A digest in full would not fit on a line.
                let words = own.split_whitespace().map(|word| word.replace('…', &"0".repeat(64)));
                let parsed =
                    super::super::command().try_get_matches_from(std::iter::once("sandbox".into()).chain(words));
                assert!(parsed.is_ok(), "sandbox {example}: {}", parsed.unwrap_err());
            }
        }
    }

    #[test]
    fn no_example_is_wider_than_a_narrow_terminal() {
        for (verb, examples) in EXAMPLES {
            for line in text(examples).lines() {
                assert!(line.chars().count() <= COLUMNS, "{verb}: {line}");
            }
        }
    }
}
