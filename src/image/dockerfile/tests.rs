//! Dockerfiles that pin what they use, and those that do not.

use proptest::prelude::*;

use super::*;

const PIN: &str = "debian@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Line, column and rule of each finding. `PIN` stands for an image with its digest.
fn found(text: &str) -> Vec<(usize, usize, &'static str)> {
    let images = BTreeSet::from(["agent".to_owned()]);
    let findings = findings(&text.replace("PIN", PIN), &images).unwrap();
    findings.iter().map(|finding| (finding.line, finding.column, finding.rule)).collect()
}

#[test]
fn accepts_stages_scratch_digests_and_images_of_the_project() {
    let text = "# syntax=docker/PIN\nARG TAG=PIN\nFROM PIN AS Build\nRUN --mount=type=bind,from=build,target=/x make\n\
                FROM ${TAG} AS other\nFROM $TAG\nCOPY --from=build /a /b\nCOPY --from=0 /a /c\nCOPY --from=PIN /a /d\n\
                FROM agent\nCOPY --from=other a b\nFROM scratch\nADD --checksum=sha256:HEX https://h/x /x\nADD a.tar /\n\
                ADD https://h/r.git#0123456789abcdef0123456789abcdef01234567 /r\n";
    assert_eq!(found(&text.replace("HEX", &"ab".repeat(32))), []);
}

#[test]
fn refuses_everything_that_comes_in_without_a_digest_at_its_line() {
    for (text, expected) in [
        ("FROM debian:bookworm\n", (1, 6, "unpinned")),
        ("FROM --platform=linux/amd64 debian\n", (1, 29, "unpinned")),
        ("# syntax=docker/dockerfile:1\nFROM PIN\n", (1, 10, "unpinned")),
        ("ARG BASE\nFROM ${BASE}\n", (2, 6, "unpinned")),
        ("ARG BASE=debian:12\nFROM $BASE\n", (2, 6, "unpinned")),
        ("ARG BASE=PIN\nFROM ${BASE:-debian}\n", (2, 6, "unpinned")),
        // An argument of a stage is not one of FROM.
        ("FROM PIN\nARG BASE=PIN\nFROM $BASE\n", (3, 6, "unpinned")),
        ("FROM PIN\nCOPY --from=nginx:latest /a /b\n", (2, 13, "unpinned")),
        // A stage that is not there yet is an image of a registry.
        ("FROM PIN\nCOPY --from=later /a /b\nFROM PIN AS later\n", (2, 13, "unpinned")),
        ("FROM PIN\nCOPY --from=1 /a /b\n", (2, 13, "unpinned")),
        ("FROM PIN\nRUN --mount=type=bind,from=golang,target=/go make\n", (2, 13, "unpinned")),
        ("FROM PIN\nRUN true\nRUN --mount=from=a:b \\\n  make\n", (3, 13, "unpinned")),
        ("FROM debian@sha256:0123\n", (1, 6, "unpinned")),
        ("FROM PIN\nADD https://h/x /x\n", (2, 5, "unpinned-add")),
        ("FROM PIN\nADD --checksum=md5:00 https://h/x /x\n", (2, 23, "unpinned-add")),
        ("FROM PIN\nADD $URL /x\n", (2, 5, "unpinned-add")),
        ("FROM PIN\nADD https://h/r.git#main /r\n", (2, 5, "unpinned-add")),
        ("FROM PIN\nADD git@h:r.git /r\n", (2, 5, "unpinned-add")),
        ("FROM PIN\nONBUILD COPY --from=nginx a b\n", (2, 21, "unpinned")),
    ] {
        assert!(found(text).contains(&expected), "{text}: {:?}", found(text));
        let own = findings(&text.replace("PIN", PIN), &BTreeSet::new()).unwrap();
        assert!(own.iter().any(|finding| finding.severity == Severity::Error), "{text}");
    }
}

#[test]
fn refuses_what_builders_read_otherwise_than_it_is_read_here() {
    for (text, line) in [
        ("FROM agent\nRUN echo \\\\\nCOPY --from=evil:latest /x /x\n", 2),
        ("FROM agent\nRUN echo \\\\ \t\r\nRUN true\n", 2),
        ("# escape=`\nFROM agent\nRUN echo ``\nRUN true\n", 3),
        ("# syntax=evil/f\n# syntax=evil/f\nFROM agent\n", 1),
        ("#!/x\n# syntax=evil/f\nFROM agent\n", 2),
        ("#\u{a0}syntax=evil/f\nFROM agent\n", 1),
        ("# any=1\n# SYNTAX = evil/f\nFROM agent\n", 2),
        ("\n# escape=`\nFROM agent\n", 2),
        ("FROM agent\nRUN cat <<CMD\nFROM agent AS evil\nCMD\nCOPY --from=evil /x /x\n", 2),
        ("FROM agent\nRUN cat 3<<-'CMD'\nUSER x\n", 2),
        ("FROM agent\nRUN cat <\\\n# or not\n\n<CMD\nUSER x\n", 2),
        ("FROM agent\nRUN a \\\n\u{a0}# b\nFROM agent AS evil\nCOPY --from=evil /x /x\n", 3),
        ("FROM agent\nRUN <<A cat <<B\nA\nB\n", 2),
        ("FROM agent\nRUN echo a\rUSER x\n", 2),
        ("FROM agent\nRUN echo a\u{2028}USER x\n", 2),
    ] {
        match findings(text, &BTreeSet::from(["agent".to_owned()])) {
            Ok(findings) => {
                let ambiguous = findings.iter().find(|finding| finding.rule == "ambiguous");
                assert_eq!(ambiguous.map(|finding| finding.line), Some(line), "{text:?}: {findings:?}");
            }
            // What is no Dockerfile here is not built either.
            Err(error) => assert!(matches!(error, DockerfileError::Form { .. }), "{text:?}"),
        }
    }
    for text in [
        "# syntax=docker/PIN\n# escape=`\nFROM agent\nRUN echo `\n a\n",
        "FROM agent\n# syntax=x is only a comment here\nRUN grep a <<< b && echo $((1 << 2)) && cat<<x \\\n && true\n",
        "FROM agent\r\nRUN <<EOF\r\ncat <<x\r\nEOF\r\nRUN true\r\n",
        "FROM agent\nRUN <<EOF\necho \\\\\nx\nEOF\nCOPY <<A <<B /a\nb <<c\nA\nB\n",
    ] {
        assert_eq!(found(text), [], "{text:?}");
    }
}

#[test]
fn a_number_is_a_stage_for_copies_and_a_name_for_from() {
    assert_eq!(found("FROM agent AS a\nFROM 0\n"), [(2, 6, "unpinned")]);
    assert_eq!(found("FROM agent AS a\nFROM agent\nCOPY --from=0 a b\nRUN --mount=from=0,target=/x true\n"), []);
}

#[test]
fn finds_what_makes_builds_differ_where_it_stands() {
    for (commands, expected) in [
        ("curl -fsSL https://h/i | bash", Some((2, 5, "pipe-to-shell"))),
        ("true && \\\n  wget -O- https://h/i | sudo sh -s", Some((3, 3, "pipe-to-shell"))),
        ("bash -c \"$(curl https://h/i)\"", Some((2, 5, "remote-script"))),
        ("bash <(curl https://h/i)", Some((2, 5, "remote-script"))),
        ("curl -o f https://h/i && sha256sum --check f.sum && sh f", None),
        ("apt-get update && apt-get install -y jq", Some((2, 23, "apt-snapshot"))),
        ("apt-get -o A::B=c --yes install jq", Some((2, 5, "apt-snapshot"))),
        ("apt-get update -o Dir::Etc::sourcelist=snapshot.debian.org.list && apt-get install jq", None),
        ("echo built $(date) > /built", Some((2, 18, "time"))),
        ("date --date=@$SOURCE_DATE_EPOCH > /built", None),
        ("update-database /var", None),
        ("head -c 8 /dev/urandom > /id", Some((2, 15, "random"))),
        ("ssh-keygen -A", Some((2, 5, "random"))),
        ("git clone https://h/r", Some((2, 5, "clone"))),
        ("pip install black", Some((2, 5, "pip-hashes"))),
        ("pip install --require-hashes -r f", None),
        ("npm --global install x", Some((2, 5, "npm-install"))),
        ("npm ci", None),
    ] {
        let text = format!("FROM PIN\nRUN {commands}\n");
        assert_eq!(found(&text), expected.into_iter().collect::<Vec<_>>(), "{commands}");
    }
    assert_eq!(found("FROM PIN\nRUN [\"/bin/sh\", \"-c\", \"curl x | sh\"]\n"), [(2, 5, "pipe-to-shell")]);
    assert_eq!(
        found("FROM PIN\nRUN <<E\nmake\nuuidgen\nE\n").iter().map(|found| found.2).collect::<Vec<_>>(),
        ["random"]
    );
}

#[test]
fn finds_folders_whose_owner_depends_on_the_builder_and_volumes() {
    assert_eq!(found("FROM PIN\nUSER 1000:1000\nWORKDIR /a\n"), [(3, 1, "workdir-owner")]);
    assert_eq!(found("FROM PIN\nUSER root\nWORKDIR /a\n"), []);
    assert_eq!(found("FROM PIN\nCOPY --chown=1000:1000 a /made/here/\n"), [(2, 14, "copy-owner")]);
    for destination in ["/opt/a", "/home/agent/a/", "/a", "a", "./a"] {
        assert_eq!(found(&format!("FROM PIN\nCOPY --chown=1000:1000 a {destination}\nCOPY a /made/here/\n")), []);
    }
    // A stage begins with its image's user.
    assert_eq!(found("FROM PIN\nUSER 1000\nFROM PIN\nWORKDIR /a\n"), []);
    assert_eq!(found("FROM PIN\nVOLUME /data\n"), [(2, 1, "volume")]);
    assert_eq!(
        found("FROM PIN\nONBUILD RUN git clone x\n").iter().map(|found| found.2).collect::<Vec<_>>(),
        ["onbuild", "clone"]
    );
}

#[test]
fn says_where_a_text_is_no_dockerfile() {
    let error = findings("FROM PIN\n\nWHAT is this\n", &BTreeSet::new()).unwrap_err();
    let DockerfileError::Form { line, .. } = error else { panic!("{error}") };
    assert_eq!(line, 3);
}

#[test]
fn every_sign_is_a_pattern() {
    assert!(PATTERNS.iter().all(Option::is_some));
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_and_findings_are_places_in_it(
        lines in proptest::collection::vec(
            "(FROM|from|RUN|COPY --from=|ADD|ARG|USER|WORKDIR|ONBUILD|# syntax=|) ?[a-z0-9:@$\\{\\}/ é\"'\\[\\]<|\\\\-]{0,30}",
            0..12,
        ),
        end in "(\n|\r\n)",
    ) {
        let text = lines.join(&end);
        if let Ok(found) = findings(&text, &BTreeSet::new()) {
            for finding in found {
                prop_assert!(text.get(finding.span.clone()).is_some(), "{finding:?}");
                prop_assert!(finding.line <= text.matches('\n').count() + 1);
            }
        }
    }

    #[test]
    fn no_tag_passes_for_a_digest(name in "[a-z]{1,10}", tag in "[a-z0-9._-]{0,20}", how in 0..4_usize) {
        let image = if tag.is_empty() { name.clone() } else { format!("{name}:{tag}") };
        let text = match how {
            0 => format!("FROM {image}x\n"),
            1 => format!("ARG I={image}x\nFROM $I\n"),
            2 => format!("FROM scratch\nCOPY --from={image}x a b\n"),
            _ => format!("FROM scratch\nRUN --mount=type=bind,from={image}x true\n"),
        };
        let found = findings(&text, &BTreeSet::new()).unwrap();
        prop_assert!(found.iter().any(|finding| finding.rule == "unpinned"), "{text}");
    }
}
