//! Tools that people ask for, whose packages have maintainer scripts, in images of two releases: they are found under the
//! names that `update-alternatives` gives them, and each starts as the agent's user, offline, on a read-only root.
#![allow(clippy::unwrap_used, reason = "a test says by a panic what is wrong")]

mod support;

use support::{Home, docker, text};

/// The least of a root, with certificates.
const ROOT: &str = "base-files, base-passwd, bash, ca-certificates, coreutils, dash, debianutils, diffutils, dpkg, findutils, \
                    git, grep, hostname, libc-bin, login, mawk, ncurses-base, sed, tar, usr-is-merged";

/// Packages, a command, and what it prints.
const TOOLS: &[(&str, &str, &str)] = &[
    ("default-jdk-headless", "java -version && javac -version", "javac "),
    // The authorities of the image, in the form that Java reads.
    ("default-jdk-headless", "keytool -list -cacerts -storepass changeit | grep --count trustedCertEntry", "1"),
    ("maven", "mvn -version", "Apache Maven"),
    ("npm", "npm --version", "."),
    ("python3-requests", "python3 -c 'import requests; print(requests.__version__)'", "2."),
    ("python3-numpy", "python3 -c 'import numpy; print(numpy.zeros(2))'", "[0. 0.]"),
    ("python3-venv", "python3 -m venv /tmp/venv && /tmp/venv/bin/pip --version", "/tmp/venv"),
    ("vim", "vi --version && readlink /etc/alternatives/vi", "/usr/bin/vim.basic"),
    ("nano", "update-alternatives --display editor", "/bin/nano - priority 40"),
    ("tmux", "tmux -V", "tmux 3"),
    ("zsh", "zsh --version", "zsh 5"),
    ("fish", "fish --version", "fish, version"),
    (
        "build-essential, clang, cmake",
        "cc --version && c++ --version && clang --version && cmake --version",
        "clang version",
    ),
    ("llvm", "llc --version", "LLVM version"),
    ("gdb", "gdb --version", "GNU gdb"),
    ("php-cli, php-mbstring", "php -r 'echo mb_strlen(\"ä\"), php_ini_loaded_file();'", "1/etc/php/"),
    ("composer", "composer --version", "Composer version 2"),
    ("ruby", "ruby --version", "ruby 3"),
    ("git-lfs", "git lfs version && git config --system filter.lfs.process", "git-lfs filter-process"),
    ("redis-tools", "redis-cli --version", "redis-cli "),
    ("default-mysql-client", "mysql --version", "MariaDB"),
    ("netcat-openbsd, socat", "nc -h 2>&1; socat -V", "socat version"),
    ("universal-ctags", "ctags --version", "Universal Ctags"),
    ("lua5.4", "lua -v", "Lua 5.4"),
    ("bison, flex", "yacc --version && flex --version", "flex 2"),
    ("imagemagick", "convert --version", "ImageMagick"),
    ("gnupg, pinentry-curses", "gpg --version && pinentry --version", "pinentry-curses"),
    ("man-db, sudo, locales, iputils-ping", "man --version && locale -a", "C"),
    ("elixir", "elixir --version", "Elixir 1"),
    ("dpkg", "dpkg --audit && echo well", "well"),
];

fn tools(suite: &str) {
    let home = Home::new();
    let project = tempfile::tempdir().unwrap();
    let folder = project.path().join("images/tools");
    std::fs::create_dir_all(&folder).unwrap();
    let mut packages: Vec<&str> =
        ROOT.split(", ").chain(TOOLS.iter().flat_map(|(names, ..)| names.split(", "))).collect();
    packages.sort_unstable();
    packages.dedup();
    let definition = format!(
        "version: 1\ndebian: {{suite: {suite}, packages: [{}]}}\n\
         env: {{LANG: C.UTF-8, PATH: '/usr/local/bin:/usr/bin:/bin:/usr/sbin'}}\n",
        packages.join(", ")
    );
    std::fs::write(folder.join("image.yaml"), definition).unwrap();
    let image = |words: &[&str]| {
        let mut command = home.sandbox();
        command.args(["--format", "json", "image"]).args(words).arg("--project").arg(project.path());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{suite} {words:?}: {}", text(&output.stderr));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    image(&["lock", "tools"]);
    let archive = project.path().join("image.tar");
    let built = image(&["build", "tools", "--output", &format!("docker-archive:{}", archive.display())]);
    let id = built["config"].as_str().unwrap();
    let loaded = docker(&["load", "--quiet", "--input", archive.to_str().unwrap()]);
    assert!(loaded.status.success(), "{}", text(&loaded.stderr));
    std::fs::remove_file(archive).unwrap();
    let mut failed = Vec::new();
    for (names, command, expected) in TOOLS {
        let words = [
            "run",
            "--rm",
            "--network=none",
            "--read-only",
            "--tmpfs=/tmp:exec",
            "--user=1000:1000",
            "--env=HOME=/tmp",
        ];
        let output = docker(&[&words[..], &[id, "bash", "-o", "pipefail", "-ec", command]].concat());
        let said = text(&output.stdout) + &text(&output.stderr);
        if !output.status.success() || !said.contains(expected) {
            failed.push(format!("{names}: {command}: {}\n{said}", output.status));
        }
    }
    docker(&["image", "rm", "--force", id]);
    assert!(failed.is_empty(), "{suite}:\n{}", failed.join("\n"));
}

#[test]
#[ignore = "fetches about 900 MB of packages; `make test-full` runs it"]
fn tools_of_bookworm_start_under_the_names_that_people_know() {
    tools("bookworm");
}

#[test]
#[ignore = "fetches about 900 MB of packages; `make test-full` runs it"]
fn tools_of_trixie_start_under_the_names_that_people_know() {
    tools("trixie");
}
