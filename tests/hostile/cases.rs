//! What a hostile sandbox may send: each case builds a bundle, and says what has to become of it.

use std::path::PathBuf;

use sha1::Digest as _;

use super::scene::Scene;

/// What has to become of a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    /// git refuses it, or the review holds it back: nothing comes in.
    Stopped,
    /// It comes in, and the review says so before anything else.
    ShownFirst,
    /// It comes in with nothing to say: the control, without which "stopped" would prove nothing.
    Lands,
}

use Expected::{Lands, ShownFirst, Stopped};

type Make = Box<dyn Fn(&Scene) -> PathBuf + Send + Sync>;

/// One bundle.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) expected: Expected,
    pub(crate) make: Make,
}

fn case(name: impl Into<String>, expected: Expected, make: impl Fn(&Scene) -> PathBuf + Send + Sync + 'static) -> Case {
    Case { name: name.into(), expected, make: Box::new(make) }
}

/// One entry on top of the base.
fn entry(mode: &'static str, path: &str, content: &str, expected: Expected) -> Case {
    let (path, content) = (path.to_owned(), content.to_owned());
    case(format!("{mode} {path:?} {}", content.chars().take(60).collect::<String>().escape_debug()), expected, {
        move |scene| {
            scene.plant(&path, mode, &content);
            scene.bundle()
        }
    })
}

pub(crate) fn all() -> Vec<Case> {
    [names(), links(), submodules(), trees(), commits(), bundles(), contents(), secrets(), bombs(), controls()]
        .into_iter()
        .flatten()
        .collect()
}

/// Paths that some file system reads as git's folder, as a file that git obeys, or as a way out of the tree.
fn names() -> Vec<Case> {
    let mut cases = Vec::new();
    // What HFS+ forgets: https://git.kernel.org/pub/scm/git/git.git/tree/utf8.c, next_hfs_char().
    let forgotten = ('\u{200c}'..='\u{200f}').chain('\u{202a}'..='\u{202e}').chain('\u{206a}'..='\u{206f}');
    for character in forgotten.chain(['\u{feff}']) {
        cases.push(entry("100644", &format!(".g{character}it/config"), "x", Stopped));
    }
    for character in ['\u{200c}', '\u{202e}', '\u{feff}'] {
        cases.push(entry("100644", &format!(".gitmodule{character}s"), "x", Stopped));
        cases.push(entry("100644", &format!("{character}.gitattributes"), "x", Stopped));
    }
    for path in [
        ".git/config",
        "d/.git/config",
        ".GIT/config",
        "d/.Git/hooks/post-checkout",
        ".git./config",
        ".git /config",
        ".git . ./config",
        ".git...",
        ".git/objects/info/alternates",
        ".git/info/attributes",
        ".git/hooks/reference-transaction",
        "git~1/config",
        "d/GIT~2/config",
        "gi7eba~1",
        ".git::$INDEX_ALLOCATION/config",
        ".git::$DATA",
        ".git:stream",
        ".g\u{131}t/config",
        "..\\x",
        "a\\..\\..\\x",
        "a\\.git\\config",
        ".git\\config",
        "../x",
        "d/../../x",
        "./x",
        "d//x",
        "..",
        ".gitmodules ",
        ".GitModules",
        "GITMOD~1",
        "gi7d29~1",
        ".gitmodule\u{17f}",
        "d/.gitmodules",
        ".gitattributes",
        "d/.gitattributes",
        ".GITATTRIBUTES.",
        "GITATT~1",
        ".lfsconfig",
        ".gitconfig",
        "sandbox.yaml",
        "d/Sandbox.yaml",
        "SANDBO~1.YAM",
        ".sandbox/credentials/x",
        "images/agent/image.yaml",
        "Images/agent/image.lock",
        "profiles/default.yaml",
        "Dockerfile.agent",
    ] {
        cases.push(entry("100644", path, "* filter=evil\n", Stopped));
    }
    cases
}

/// Symbolic links that leave the tree, reach git's folder, or stand where git reads a file.
fn links() -> Vec<Case> {
    let long = "a/".repeat(3000);
    let mut cases: Vec<Case> = [
        ("link", "/etc/passwd"),
        ("link", "../outside"),
        ("link", ".."),
        ("d/link", "x/../../../y"),
        ("d/e/link", "../../../x"),
        ("link", ".git"),
        ("link", ".git/hooks"),
        ("link", ".GIT/config"),
        ("link", "./.git/config"),
        ("link", "d/../.git/config"),
        ("link", "git~1/hooks"),
        ("link", ".g\u{200c}it/hooks"),
        ("link", ".git\\hooks"),
        ("d/link", "../.git"),
        ("link", "C:\\Windows"),
        ("link", "c:x"),
        ("link", "\\\\host\\share"),
        ("link", "\\x"),
        ("link", "..\\x"),
        ("link", "~/x"),
        ("link", "/proc/self/root"),
        ("link", ""),
        ("link", &long),
        (".gitmodules", "a.txt"),
        (".gitattributes", "a.txt"),
        ("sandbox.yaml", "a.txt"),
        (".git", "a.txt"),
    ]
    .into_iter()
    .map(|(path, target)| entry("120000", path, target, Stopped))
    .collect();
    cases.push(case("a link, and files below its name by another case (CVE-2021-21300)", Stopped, |scene| {
        let hook = scene.blob(b"#!/bin/sh\n");
        let target = scene.blob(b".git/hooks");
        let folder = scene.tree(&[("100755", b"post-checkout", &hook)]);
        scene.commit(&scene.tree(&[("40000", b"A", &folder), ("120000", b"a", &target)]));
        scene.bundle()
    }));
    cases.push(case("a link and a folder of one name", Stopped, |scene| {
        let content = scene.blob(b"..");
        let folder = scene.tree(&[("100644", b"x", &content)]);
        scene.commit(&scene.tree(&[("120000", b"a", &content), ("40000", b"a", &folder)]));
        scene.bundle()
    }));
    cases.push(case("a link to the tree itself that a second link leaves by", Stopped, |scene| {
        let (here, up) = (scene.blob(b"."), scene.blob(b"b/../.."));
        scene.commit(&scene.tree(&[("120000", b"b", &here), ("120000", b"c", &up)]));
        scene.bundle()
    }));
    cases.push(case("a link's target with a NUL", Stopped, |scene| {
        scene.plant_bytes(b"link", "120000", b"a\0/../../x");
        scene.bundle()
    }));
    cases.push(case("a link that only a commit in between has", Stopped, |scene| {
        scene.plant("link", "120000", "/etc");
        scene.plant("b.txt", "100644", "x");
        scene.bundle()
    }));
    cases
}

/// Submodules, and the ways in which `.gitmodules` was a way in.
fn submodules() -> Vec<Case> {
    let mut cases: Vec<Case> =
        ["sub", "d/sub", "a.txt", ".git", "-sub"].iter().map(|path| entry("160000", path, "", Stopped)).collect();
    for (name, settings) in [
        (
            "a name that leaves modules/ (CVE-2018-11235)",
            "[submodule \"../../hooks\"]\n\tpath = sub\n\turl = https://x/y\n",
        ),
        ("an option as its address (CVE-2018-17456)", "[submodule \"sub\"]\n\tpath = sub\n\turl = -u./payload\n"),
        ("an option as its path", "[submodule \"sub\"]\n\tpath = --upload-pack=x\n\turl = https://x/y\n"),
        ("a command as its update", "[submodule \"sub\"]\n\tpath = sub\n\turl = https://x/y\n\tupdate = !touch x\n"),
        (
            "a line feed in its address (CVE-2020-5260)",
            "[submodule \"sub\"]\n\tpath = sub\n\turl = https://x%0ahost=y/z\n",
        ),
        (
            "a carriage return after its path (CVE-2025-48384)",
            "[submodule \"sub\"]\n\tpath = \"sub\r\"\n\turl = https://x/y\n",
        ),
        ("the ext transport", "[submodule \"sub\"]\n\tpath = sub\n\turl = \"ext::sh -c touch% x\"\n"),
        (
            "an ssh host that is an option (CVE-2017-1000117)",
            "[submodule \"sub\"]\n\tpath = sub\n\turl = ssh://-oProxyCommand=x/y\n",
        ),
        ("a path of this machine (CVE-2022-39253)", "[submodule \"sub\"]\n\tpath = sub\n\turl = file:///\n"),
        ("a submodule with nothing wrong", "[submodule \"sub\"]\n\tpath = sub\n\turl = https://x/y\n"),
        ("settings that cannot be read", "[submodule \"sub\"\n\tpath"),
    ] {
        cases.push(case(format!("submodule: {name}"), Stopped, move |scene| {
            let settings = scene.blob(settings.as_bytes());
            scene.commit(&scene.tree(&[("100644", b".gitmodules", &settings), ("160000", b"sub", &scene.base())]));
            scene.bundle()
        }));
    }
    cases.push(case("submodule: a very long address (CVE-2023-29007)", Stopped, |scene| {
        let settings = format!("[submodule \"sub\"]\n\tpath = sub\n\turl = https://x/{}\n", "y".repeat(2000));
        scene.plant(".gitmodules", "100644", &settings);
        scene.bundle()
    }));
    cases.push(case("submodule: its folder is a link by another case (CVE-2024-32002)", Stopped, |scene| {
        let target = scene.blob(b".git");
        let folder = scene.tree(&[("160000", b"sub", &scene.base())]);
        scene.commit(&scene.tree(&[("40000", b"A", &folder), ("120000", b"a", &target)]));
        scene.bundle()
    }));
    cases
}

/// Trees that no git writes.
fn trees() -> Vec<Case> {
    let tree = |name: &str, expected, build: fn(&Scene, &str) -> String| {
        case(format!("tree: {name}"), expected, move |scene: &Scene| {
            let blob = scene.blob(b"x");
            scene.commit(&build(scene, &blob));
            scene.bundle()
        })
    };
    vec![
        tree("one name twice", Stopped, |scene, blob| scene.tree(&[("100644", b"x", blob), ("100755", b"x", blob)])),
        tree("not sorted", Stopped, |scene, blob| scene.tree(&[("100644", b"y", blob), ("100644", b"x", blob)])),
        tree("an empty name", Stopped, |scene, blob| scene.tree(&[("100644", b"", blob)])),
        tree("a whole path as a name", Stopped, |scene, blob| scene.tree(&[("100644", b"d/x", blob)])),
        tree("a whole path into git's folder as a name", Stopped, |scene, blob| {
            scene.tree(&[("100755", b".git/hooks/post-checkout", blob)])
        }),
        tree("the tree itself as a name", Stopped, |scene, blob| scene.tree(&[("100644", b".", blob)])),
        tree("the folder above as a name", Stopped, |scene, blob| {
            let folder = scene.tree(&[("100644", b"x", blob)]);
            scene.tree(&[("40000", b"..", &folder)])
        }),
        tree("git's folder as an empty folder", Stopped, |scene, _| {
            let folder = scene.tree(&[]);
            scene.tree(&[("40000", b".git", &folder)])
        }),
        tree("an object id of zeros", Stopped, |scene, _| scene.tree(&[("100644", b"x", &"0".repeat(40))])),
        tree("an object that is not there", Stopped, |scene, _| scene.tree(&[("100644", b"x", &"5".repeat(40))])),
        tree("a folder that is a file", Stopped, |scene, blob| scene.tree(&[("40000", b"x", blob)])),
        tree("a mode of a device", Stopped, |scene, blob| scene.tree(&[("60000", b"x", blob)])),
        tree("a mode of a pipe", Stopped, |scene, blob| scene.tree(&[("10000", b"x", blob)])),
        tree("a mode that is no number", Stopped, |scene, blob| scene.tree(&[("9z", b"x", blob)])),
        tree("a mode with a set-user-id bit", Stopped, |scene, blob| scene.tree(&[("104755", b"x", blob)])),
        tree("a mode with a leading zero", Stopped, |scene, blob| scene.tree(&[("0100644", b"x", blob)])),
        tree("an entry that ends early", Stopped, |scene, _| scene.object("tree", b"100644 x\0short")),
        tree("an entry without an end of its name", Stopped, |scene, _| {
            scene.object("tree", b"100644 xxxxxxxxxxxxxxxxxxxxxxxx")
        }),
        tree("a bare repository inside", Stopped, |scene, blob| {
            let inner = scene.tree(&[("100644", b"x", blob)]);
            let bare =
                scene.tree(&[("100644", b"HEAD", blob), ("40000", b"objects", &inner), ("40000", b"refs", &inner)]);
            scene.tree(&[("40000", b"deep", &bare)])
        }),
        tree("a bare repository inside that borrows and promises objects", Stopped, |scene, blob| {
            let borrowed = scene.blob(b"/etc\n");
            let settings = scene.blob(b"[remote \"x\"]\n\turl = ext::sh -c touch% x\n\tpromisor = true\n");
            let info = scene.tree(&[("100644", b"alternates", &borrowed)]);
            let objects = scene.tree(&[("40000", b"info", &info)]);
            let refs = scene.tree(&[("100644", b"x", blob)]);
            let bare =
                [("100644", &b"HEAD"[..], blob), ("100644", b"config", &settings), ("40000", b"objects", &objects)];
            let bare = scene.tree(&[&bare[..], &[("40000", b"refs", &refs)]].concat());
            scene.tree(&[("40000", b"a", &bare)])
        }),
        tree("a bare repository at the top, in capitals", Stopped, |scene, blob| {
            let inner = scene.tree(&[("100644", b"x", blob)]);
            scene.tree(&[("100644", b"HEAD", blob), ("40000", b"OBJECTS", &inner), ("40000", b"Refs", &inner)])
        }),
        tree("a name of 5000 bytes", Stopped, |scene, blob| scene.tree(&[("100644", &[b'x'; 5000], blob)])),
    ]
}

/// Commits that no git writes, and histories that hide something.
fn commits() -> Vec<Case> {
    let raw = |name: &str, expected, text: fn(&Scene, &str) -> Vec<u8>| {
        case(format!("commit: {name}"), expected, move |scene: &Scene| {
            scene.plant("b.txt", "100644", "two\n");
            let tree = scene.id("main^{tree}");
            let commit = scene.object("commit", &text(scene, &tree));
            scene.point(&commit);
            scene.bundle()
        })
    };
    let who = "author a <a@x> 1 +0000\ncommitter a <a@x> 1 +0000\n";
    let mut cases = vec![
        raw("no author", Stopped, |scene, tree| format!("tree {tree}\nparent {}\n\nx\n", scene.base()).into_bytes()),
        raw("an author without an address", Stopped, |scene, tree| {
            format!("tree {tree}\nparent {}\nauthor a 1 +0000\ncommitter a <a@x> 1 +0000\n\nx\n", scene.base())
                .into_bytes()
        }),
        raw("an author with a line feed", Stopped, |scene, tree| {
            format!("tree {tree}\nparent {}\nauthor a\nb <a@x> 1 +0000\ncommitter a <a@x> 1 +0000\n\nx\n", scene.base())
                .into_bytes()
        }),
        raw("a date past all counting", Stopped, |scene, tree| {
            format!(
                "tree {tree}\nparent {}\nauthor a <a@x> 99999999999999999999 +0000\ncommitter a <a@x> 1 +0000\n\nx\n",
                scene.base()
            )
            .into_bytes()
        }),
        raw("a NUL before the message", Stopped, |scene, tree| {
            format!("tree {tree}\nparent {}\nauthor a\0 <a@x> 1 +0000\ncommitter a <a@x> 1 +0000\n\nx\n", scene.base())
                .into_bytes()
        }),
        raw("a parent that is not there", Stopped, |_, tree| {
            format!("tree {tree}\nparent {}\nauthor a <a@x> 1 +0000\ncommitter a <a@x> 1 +0000\n\nx\n", "5".repeat(40))
                .into_bytes()
        }),
        raw("a parent that is a tree", Stopped, |_, tree| {
            format!("tree {tree}\nparent {tree}\nauthor a <a@x> 1 +0000\ncommitter a <a@x> 1 +0000\n\nx\n").into_bytes()
        }),
        raw("a tree that is a file", Stopped, |scene, _| {
            format!(
                "tree {}\nparent {}\nauthor a <a@x> 1 +0000\ncommitter a <a@x> 1 +0000\n\nx\n",
                scene.blob(b"x"),
                scene.base()
            )
            .into_bytes()
        }),
        raw("no tree", Stopped, |_, _| b"author a <a@x> 1 +0000\ncommitter a <a@x> 1 +0000\n\nx\n".to_vec()),
        raw("empty", Stopped, |_, _| Vec::new()),
    ];
    cases.push(case("commit: a signature that a program would have to check", Lands, move |scene| {
        scene.plant("b.txt", "100644", "two\n");
        let (tree, parent) = (scene.id("main^{tree}"), scene.base());
        let signature = "gpgsig -----BEGIN PGP SIGNATURE-----\n \n x\n -----END PGP SIGNATURE-----\n";
        scene.point(&scene.object("commit", format!("tree {tree}\nparent {parent}\n{who}{signature}\nx\n").as_bytes()));
        scene.bundle()
    }));
    cases.push(case("commit: a message that drives a terminal", Lands, |scene| {
        scene.plant("b.txt", "100644", "two\n");
        let tree = scene.id("main^{tree}");
        scene.point(&scene.commit_of(&tree, &[scene.base()], "\u{1b}]0;owned\u{7}\u{202e}\u{1b}[2Jx"));
        scene.bundle()
    }));
    cases.push(case("commit: an unknown encoding, and bytes that are no text", Lands, move |scene| {
        scene.plant("b.txt", "100644", "two\n");
        let (tree, parent) = (scene.id("main^{tree}"), scene.base());
        let mut text = format!("tree {tree}\nparent {parent}\n{who}encoding ../../x\n\n").into_bytes();
        text.extend([0xff, 0xfe, b'\n']);
        scene.point(&scene.object("commit", &text));
        scene.bundle()
    }));
    cases.push(case("commit: a history of its own, unrelated to the base", Lands, |scene| {
        scene.plant("b.txt", "100644", "two\n");
        scene.point(&scene.commit_of(&scene.id("main^{tree}"), &[], "root"));
        scene.bundle()
    }));
    cases.push(case("commit: a merge of a hundred parents, one of them hostile", Stopped, |scene| {
        scene.plant("sub", "160000", "");
        let hostile = scene.head();
        let tree = scene.id(&format!("{}^{{tree}}", scene.base()));
        let mut parents: Vec<String> =
            (0..99).map(|number| scene.commit_of(&tree, &[scene.base()], &number.to_string())).collect();
        parents.push(hostile);
        scene.point(&scene.commit_of(&tree, &parents, "merge"));
        scene.bundle()
    }));
    cases.push(case("commit: a submodule that comes and goes", Stopped, |scene| {
        let tree = scene.id("main^{tree}");
        scene.plant("sub", "160000", "");
        scene.commit(&tree);
        scene.bundle()
    }));
    cases.push(case("commit: a repository in pieces, a commit for each", Stopped, |scene| {
        let tree = scene.id("main^{tree}");
        for path in ["bare/HEAD", "bare/objects/x", "bare/refs/x"] {
            scene.plant(path, "100644", "x");
            scene.commit(&tree);
        }
        scene.bundle()
    }));
    cases
}

/// Files that are no bundle, lie about what they hold, or hold more than was asked for.
fn bundles() -> Vec<Case> {
    let file = |name: &str, bytes: fn(&Scene, &[u8]) -> Vec<u8>| {
        case(format!("bundle: {name}"), Stopped, move |scene: &Scene| {
            scene.plant("b.txt", "100644", "two\n");
            let whole = std::fs::read(scene.bundle()).unwrap();
            scene.written(&bytes(scene, &whole))
        })
    };
    fn header(scene: &Scene, text: &str) -> Vec<u8> {
        let text = text.replace("BASE", &scene.base()).replace("HEAD", &scene.head());
        [text.as_bytes(), &scene.pack()].concat()
    }
    let mut cases = vec![
        file("empty", |_, _| Vec::new()),
        file("no bundle at all", |_, _| b"garbage\n\n".to_vec()),
        file("a shell script", |_, _| b"#!/bin/sh\ntouch /tmp/x\n".to_vec()),
        file("cut in the header", |_, whole| whole[..60].to_vec()),
        file("cut in the middle", |_, whole| whole[..whole.len() / 2].to_vec()),
        file("cut before the checksum", |_, whole| whole[..whole.len() - 20].to_vec()),
        file("a byte flipped in the pack", |_, whole| {
            let mut bytes = whole.to_vec();
            let at = bytes.len() - 40;
            bytes[at] ^= 1;
            bytes
        }),
        file("a byte flipped in the checksum", |_, whole| {
            let mut bytes = whole.to_vec();
            let at = bytes.len() - 1;
            bytes[at] ^= 1;
            bytes
        }),
        file("a version that is to come", |scene, _| {
            header(scene, "# v9 git bundle\n-BASE x\nHEAD refs/heads/main\n\n")
        }),
        file("a capability that nobody knows", |scene, _| {
            header(scene, "# v3 git bundle\n@evil=1\n-BASE x\nHEAD refs/heads/main\n\n")
        }),
        file("another kind of object ids", |scene, _| {
            header(scene, "# v3 git bundle\n@object-format=sha256\n-BASE x\nHEAD refs/heads/main\n\n")
        }),
        file("a filter, so that objects may be missing", |scene, _| {
            header(scene, "# v3 git bundle\n@filter=blob:none\n-BASE x\nHEAD refs/heads/main\n\n")
        }),
        file("the ref twice, with two commits", |scene, _| {
            header(scene, "# v2 git bundle\n-BASE x\nHEAD refs/heads/main\nBASE refs/heads/main\n\n")
        }),
        file("a list of bundles elsewhere", |_, _| {
            b"[bundle]\n\tversion = 1\n\tmode = all\n[bundle \"x\"]\n\turi = https://x/y\n".to_vec()
        }),
        file("a repository's address", |_, _| b"ext::sh -c touch% /tmp/x\n".to_vec()),
        file("an object id in capitals", |scene, _| {
            header(scene, &format!("# v2 git bundle\n-BASE x\n{} refs/heads/main\n\n", scene.head().to_uppercase()))
        }),
        file("carriage returns", |scene, _| {
            header(scene, "# v2 git bundle\r\n-BASE x\r\nHEAD refs/heads/main\r\n\r\n")
        }),
        file("a header without an end", |scene, _| {
            [format!("# v2 git bundle\n{} ", scene.head()).as_bytes(), &vec![b'x'; 3 << 20]].concat()
        }),
        file("a chain of a pack with a delta of itself", |scene, _| {
            // gitformat-pack(5): type 6 is a delta against an object so many bytes before; 0 means itself.
            let mut pack = b"PACK\0\0\0\x02\0\0\0\x01\x65\0".to_vec();
            pack.extend([0x78, 0x9c, 0x03, 0, 0, 0, 0, 1]);
            pack.extend(sha1::Sha1::digest(&pack));
            [format!("# v2 git bundle\n-{} x\n{} refs/heads/main\n\n", scene.base(), scene.head()).as_bytes(), &pack]
                .concat()
        }),
        file("no ref", |scene, _| header(scene, "# v2 git bundle\n-BASE x\n\n")),
        file("another ref alone", |scene, _| header(scene, "# v2 git bundle\n-BASE x\nHEAD refs/heads/other\n\n")),
        file("a ref that points nowhere", |scene, _| {
            header(scene, &format!("# v2 git bundle\n-BASE x\n{} refs/heads/main\n\n", "5".repeat(40)))
        }),
        file("a ref of zeros", |scene, _| {
            header(scene, &format!("# v2 git bundle\n-BASE x\n{} refs/heads/main\n\n", "0".repeat(40)))
        }),
        file("a ref that is a file", |scene, _| {
            let blob = scene.blob(b"x");
            header(scene, &format!("# v2 git bundle\n-BASE x\n{blob} refs/heads/main\n\n"))
        }),
        file("a ref that is a tree", |scene, _| {
            let tree = scene.id("main^{tree}");
            header(scene, &format!("# v2 git bundle\n-BASE x\n{tree} refs/heads/main\n\n"))
        }),
        file("a base that the developer has not", |scene, _| {
            header(scene, &format!("# v2 git bundle\n-{} \u{1b}[2Jx\nHEAD refs/heads/main\n\n", "1".repeat(40)))
        }),
        file("a pack of another version", |_, whole| {
            let mut bytes = whole.to_vec();
            let at = bytes.windows(4).position(|window| window == b"PACK").unwrap() + 7;
            bytes[at] = 9;
            bytes
        }),
        file("a pack that promises four thousand million objects", |_, whole| {
            let mut bytes = whole.to_vec();
            let at = bytes.windows(4).position(|window| window == b"PACK").unwrap() + 8;
            bytes[at..at + 4].fill(0xff);
            bytes
        }),
        file("a pack with nothing in it", |scene, _| {
            let empty = super::scene::git_with(&scene.agent(), &["pack-objects", "--stdout", "-q"], b"");
            let header = format!("# v2 git bundle\n-{} x\n{} refs/heads/main\n\n", scene.base(), scene.head());
            [header.as_bytes(), &empty].concat()
        }),
        file("a pack with more behind it", |_, whole| [whole, b"more"].concat()),
    ];
    cases.push(case("bundle: fifty thousand refs", Stopped, |scene| {
        scene.plant("b.txt", "100644", "two\n");
        let (head, names) =
            (scene.head(), (0..50_000).map(|number| format!("refs/heads/b{number}")).collect::<Vec<_>>());
        let more = names.iter().map(|name| (name.as_str(), head.as_str()));
        scene.bundle_of(&[("refs/heads/main", head.as_str())].into_iter().chain(more).collect::<Vec<_>>())
    }));
    cases.push(case("bundle: refs besides the one that was asked for", Lands, |scene| {
        scene.plant("b.txt", "100644", "two\n");
        let head = scene.head();
        let names = ["refs/heads/main", "refs/heads/other", "refs/tags/v1", "refs/remotes/origin/main", "HEAD"];
        scene.bundle_of(&names.map(|name| (name, head.as_str())))
    }));
    cases.push(case("bundle: refs with names that no ref may have", Lands, |scene| {
        scene.plant("b.txt", "100644", "two\n");
        let head = scene.head();
        let names = ["refs/heads/main", "refs/heads/../../hooks/x", "../config", "refs/heads/a..b", "refs/heads/-x"];
        scene.bundle_of(&names.map(|name| (name, head.as_str())))
    }));
    cases.push(case("bundle: the ref is a tag of a tag", Stopped, |scene| {
        scene.plant("b.txt", "100644", "two\n");
        let mut target = (scene.head(), "commit");
        for name in ["inner", "outer"] {
            let text = format!("object {}\ntype {}\ntag {name}\ntagger a <a@x> 1 +0000\n\nx\n", target.0, target.1);
            target = (scene.object("tag", text.as_bytes()), "tag");
        }
        scene.bundle_of(&[("refs/heads/main", &target.0)])
    }));
    cases
}

/// What runs later, or deceives whoever reads it: it comes in and is shown first.
fn contents() -> Vec<Case> {
    let mut cases: Vec<Case> = [
        ("100644", ".envrc", "x"),
        ("100644", ".dir-locals.el", "x"),
        ("100644", ".github/copilot-instructions.md", "x"),
        ("100644", ".windsurf/rules/x.md", "x"),
        ("100644", "opencode.json", "{}"),
        ("100644", "mise.toml", "x"),
        ("100644", "yarn.lock", "x"),
        ("100644", "Cargo.lock", "x"),
        ("100644", ".mvn/extensions.xml", "x"),
        ("100644", ".buildkite/pipeline.yml", "x"),
        ("100644", "lefthook.yml", "x"),
        ("100644", "compose.yaml", "x"),
        ("100644", "Requirements.TXT", "x"),
        ("100644", ".vscode/tasks.json", "{}"),
        ("100644", "d/.vscode/settings.json", "{}"),
        ("100644", ".idea/workspace.xml", "x"),
        ("100644", ".zed/tasks.json", "[]"),
        ("100644", ".mcp.json", "{}"),
        ("100644", ".claude/settings.json", "{}"),
        ("100644", ".cursor/rules/x.mdc", "x"),
        ("100644", ".devcontainer/devcontainer.json", "{}"),
        ("100644", ".github/workflows/x.yml", "x"),
        ("100644", ".github/actions/x/action.yml", "x"),
        ("100644", ".gitlab-ci.yml", "x"),
        ("100755", ".husky/pre-commit", "x"),
        ("100644", ".cargo/config.toml", "x"),
        ("100644", "build.rs", "x"),
        ("100644", "Makefile", "x"),
        ("100644", "package.json", "{}"),
        ("100644", ".npmrc", "x"),
        ("100644", "conftest.py", "x"),
        ("100644", "CLAUDE.md", "x"),
        ("100644", "docs/AGENTS.md", "x"),
        ("100644", "Dockerfile", "x"),
        ("100755", "tool", "x"),
        ("100644", "b.bin", "a\0b"),
        ("100644", "bidi.rs", "a\u{202e}b"),
        ("100644", "zero.rs", "a\u{200b}b"),
        ("100644", "tags.txt", "a\u{e0041}b"),
        ("100644", "escape.rs", "\u{1b}[2J"),
        ("100644", "name\u{202e}txt.exe", "x"),
        ("100644", "name\u{1b}[2J", "x"),
        ("100644", "two\nlines", "x"),
        ("100644", "tab\there", "x"),
    ]
    .into_iter()
    .map(|(mode, path, content)| entry(mode, path, content, ShownFirst))
    .collect();
    cases.push(case("content: a name that is no text", ShownFirst, |scene| {
        scene.plant_bytes(b"\xff\xfe", "100644", b"x");
        scene.bundle()
    }));
    cases
}

/// Ten folders in ten folders, ten times: https://kate.io/blog/git-bomb/.
fn nested(scene: &Scene) -> String {
    let mut id = scene.blob(b"x");
    let mut mode = "100644";
    for _ in 0..10 {
        let names: Vec<String> = (0..10).map(|number| format!("d{number}")).collect();
        let entries: Vec<_> = names.iter().map(|name| (mode, name.as_bytes(), id.as_str())).collect();
        id = scene.tree(&entries);
        mode = "40000";
    }
    id
}

/// Credentials, in the last commit or only on the way to it.
fn secrets() -> Vec<Case> {
    // In two pieces, so that nobody takes this file for a place of one.
    let token = ["ghp_zQWBuTSOoRi4A9spHcVY5n", "cnsDkxkJ0mLq17"].concat();
    let passing = token.clone();
    vec![
        entry("100644", "settings.py", &format!("TOKEN = '{token}'\n"), Stopped),
        entry("100644", "settings.py", "TOKEN = 'ghp_zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ0mLq18'\n", Lands),
        case("secret: only a commit in between has it", Stopped, move |scene| {
            let tree = scene.id("main^{tree}");
            scene.plant("settings.py", "100644", &passing);
            scene.commit(&tree);
            scene.bundle()
        }),
    ]
}

/// Little to send, much to unpack.
fn bombs() -> Vec<Case> {
    vec![
        case("bomb: a subject of ten million letters", Lands, |scene| {
            scene.plant("b.txt", "100644", "two\n");
            let tree = scene.id("main^{tree}");
            scene.point(&scene.commit_of(&tree, &[scene.base()], &"x".repeat(10_000_000)));
            scene.bundle()
        }),
        case("bomb: commits that change many files, again and again", Stopped, |scene| {
            let trees: Vec<String> = (0..2)
                .map(|turn| {
                    let blob = scene.blob(format!("{turn}").as_bytes());
                    let names: Vec<String> = (0..5000).map(|number| format!("f{number:05}")).collect();
                    let base = scene.base_entries();
                    let base = base.iter().map(|(mode, name, id)| (mode.as_str(), name.as_slice(), id.as_str()));
                    let more = names.iter().map(|name| ("100644", name.as_bytes(), blob.as_str()));
                    scene.tree(&base.chain(more).collect::<Vec<_>>())
                })
                .collect();
            for turn in 0..300 {
                scene.commit(&trees[turn % 2]);
            }
            scene.bundle()
        }),
        case("bomb: ten thousand million files of one blob", Stopped, |scene| {
            scene.commit(&nested(scene));
            scene.bundle()
        }),
        case("bomb: the same, taken away again", Stopped, |scene| {
            let tree = scene.id("main^{tree}");
            scene.commit(&nested(scene));
            scene.commit(&tree);
            scene.bundle()
        }),
        case("bomb: folders five thousand deep", Stopped, |scene| {
            let mut id = scene.blob(b"x");
            let mut mode = "100644";
            for _ in 0..5000 {
                id = scene.tree(&[(mode, b"d", &id)]);
                mode = "40000";
            }
            scene.commit(&id);
            scene.bundle()
        }),
        case("bomb: a file of 200 MB of one letter", ShownFirst, |scene| {
            let content = vec![b'\n'; 200 << 20];
            scene.plant_bytes(b"large.txt", "100644", &content);
            scene.bundle()
        }),
        case("bomb: more commits than are looked into", Stopped, |scene| {
            let tree = scene.id("main^{tree}");
            let mut stream = String::new();
            for number in 0..20_050 {
                let from = if number == 0 { format!("from {}\n", scene.base()) } else { String::new() };
                stream.push_str(&format!(
                    "commit refs/heads/main\ncommitter a <a@x> 1 +0000\ndata 1\nx\n{from}M 040000 {tree} \n"
                ));
            }
            super::scene::git_with(&scene.agent(), &["fast-import", "--quiet", "--force"], stream.as_bytes());
            let file = scene.path().join("incoming.bundle");
            let not = format!("^{}", scene.base());
            super::scene::git(
                &scene.agent(),
                &["bundle", "create", "-q", file.to_str().unwrap(), &not, "refs/heads/main"],
            );
            file
        }),
    ]
}

/// What has to come in: without it the rest would prove nothing.
fn controls() -> Vec<Case> {
    [
        ("100644", "b.txt", "two\n"),
        ("100644", "a.txt", "changed\n"),
        ("100644", ".gitignore", "target\n"),
        ("100644", "src/images/logo.svg", "<svg/>\n"),
        ("100644", "-rf", "x\n"),
        ("100644", "--help", "x\n"),
        ("100644", "$(touch x)", "x\n"),
        ("100644", "`touch x`", "x\n"),
        ("100644", ":(glob)**", "x\n"),
        ("100644", "a b\"c'd", "x\n"),
        ("100644", "<script>alert(1)</script>.txt", "x\n"),
        ("100644", "e\u{301}.txt", "x\n"),
        ("120000", "link", "a.txt"),
        ("120000", "d/link", "../a.txt"),
    ]
    .into_iter()
    .map(|(mode, path, content)| entry(mode, path, content, Lands))
    .collect()
}
