//! Which paths hurt: judged by their names, as the most permissive file system would read them.
//!
//! A name is compared after what any file system may forget: case, Unicode composition, characters that HFS+ ignores,
//! trailing dots and spaces and `:stream` of NTFS, and its 8.3 short names.

use unicode_normalization::UnicodeNormalization;

/// The names that git itself or this launcher obeys.
const PROTECTED_FILES: [&str; 4] = [".gitmodules", ".gitattributes", ".lfsconfig", ".gitconfig"];

/// One part of a path as the most permissive file system reads it.
pub fn normalise(component: &str) -> String {
    let visible = component.chars().filter(|character| !ignorable(*character)).collect::<String>();
    // Upper case first folds what lower case alone leaves, such as the long s and the dotless i.
    let folded = visible.nfc().collect::<String>().to_uppercase().to_lowercase().nfc().collect::<String>();
    let before_stream = folded.split(':').next().unwrap_or_default();
    before_stream.trim_end_matches(['.', ' ']).to_owned()
}

/// Characters that HFS+ ignores in a name (the list that git's `utf8.c` names as well), and the other invisible ones.
fn ignorable(character: char) -> bool {
    matches!(character,
        '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{ad}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{e0000}'..='\u{e007f}')
}

/// The parts of a path; a backslash separates too, since it does on Windows.
fn components(path: &str) -> Vec<String> {
    path.split(['/', '\\']).map(normalise).collect()
}

/// Whether a normalised name is `protected` or one of its 8.3 short names.
fn is_name(name: &str, protected: &str) -> bool {
    if name == protected {
        return true;
    }
    let Some((stem, number)) = name.split_once('~') else { return false };
    let number = number.split('.').next().unwrap_or_default();
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return false;
    }
    let short = protected.trim_start_matches('.').split('.').next().unwrap_or_default();
    let letters: String = short.chars().take(6).collect();
    // After four files with one short name, NTFS takes two letters and four hexadecimal digits of a checksum.
    let hashed = stem.len() == 6
        && stem.is_char_boundary(2)
        && short.starts_with(&stem[..2])
        && stem[2..].bytes().all(|byte| byte.is_ascii_hexdigit());
    stem == letters || hashed
}

/// Whether a path goes through a folder or file that stands for `.git`.
pub fn through_git(path: &str) -> bool {
    components(path).iter().any(|name| is_name(name, ".git"))
}

/// Why a path is held back because of its name.
pub fn held_back(path: &str) -> Option<&'static str> {
    let parts = components(path);
    let last = parts.last().map(String::as_str).unwrap_or_default();
    let first = parts.first().map(String::as_str).unwrap_or_default();
    if parts.iter().any(|name| is_name(name, ".git")) {
        return Some("goes through a git folder");
    }
    if path.split(['/', '\\']).any(|part| part == "..") {
        return Some("leaves the working tree");
    }
    if path.split('/').any(|part| matches!(part, "" | ".")) {
        return Some("is another path than it says");
    }
    if PROTECTED_FILES.iter().any(|name| parts.iter().any(|part| is_name(part, name))) {
        return Some("configures git itself");
    }
    if is_name(last, "sandbox.yaml") || is_name(last, "sandbox.yml") || is_name(last, "dockerfile.agent") {
        return Some("configures the sandbox");
    }
    // A manifest may name any Dockerfile at the root as its image.
    if parts.len() == 1 && last.starts_with("dockerfile.") {
        return Some("configures the sandbox");
    }
    if parts.iter().any(|name| is_name(name, ".sandbox")) || is_name(first, "images") || is_name(first, "profiles") {
        return Some("configures the sandbox");
    }
    None
}

/// Whether a path is `file`, or a folder on the way to it, as the most permissive file system reads both.
pub fn reaches(path: &str, file: &str) -> bool {
    let (path, file) = (components(path), components(file));
    path.len() <= file.len() && path.iter().zip(&file).all(|(name, protected)| is_name(name, protected))
}

/// Files that run, or are obeyed, wherever they are.
const RUN_FILES: [(&str, &str); 119] = [
    (".envrc", "direnv runs it"),
    (".nvim.lua", "the editor runs it"),
    (".nvimrc", "the editor runs it"),
    (".exrc", "the editor runs it"),
    (".env", "loaded into the environment by many tools"),
    (".mcp.json", "starts servers for agents"),
    ("claude.md", "instructs agents"),
    ("agents.md", "instructs agents"),
    ("gemini.md", "instructs agents"),
    (".cursorrules", "instructs agents"),
    (".windsurfrules", "instructs agents"),
    ("package.json", "its scripts run on install"),
    ("package-lock.json", "decides what is installed"),
    (".npmrc", "configures npm"),
    (".yarnrc", "configures yarn"),
    (".yarnrc.yml", "configures yarn"),
    (".pnpmfile.cjs", "pnpm runs it"),
    ("makefile", "make runs it"),
    ("gnumakefile", "make runs it"),
    ("justfile", "just runs it"),
    ("taskfile.yml", "task runs it"),
    ("rakefile", "rake runs it"),
    ("gemfile", "bundler runs it"),
    ("cmakelists.txt", "cmake runs it"),
    ("build.rs", "cargo runs it"),
    ("cargo.toml", "names what cargo builds"),
    ("rust-toolchain.toml", "chooses the compiler"),
    ("rust-toolchain", "chooses the compiler"),
    ("conftest.py", "pytest runs it"),
    ("setup.py", "pip runs it"),
    ("setup.cfg", "configures python tools"),
    ("pyproject.toml", "names build back ends"),
    ("noxfile.py", "nox runs it"),
    ("tox.ini", "tox runs it"),
    ("sitecustomize.py", "python runs it at start"),
    ("usercustomize.py", "python runs it at start"),
    ("build.gradle", "gradle runs it"),
    ("build.gradle.kts", "gradle runs it"),
    ("settings.gradle", "gradle runs it"),
    ("pom.xml", "maven runs it"),
    ("dockerfile", "docker runs it"),
    ("containerfile", "docker runs it"),
    (".pre-commit-config.yaml", "pre-commit runs it"),
    (".gitlab-ci.yml", "runs in continuous integration"),
    ("jenkinsfile", "runs in continuous integration"),
    ("flake.nix", "nix runs it"),
    (".vimrc", "the editor runs it"),
    (".lvimrc", "the editor runs it"),
    (".dir-locals.el", "the editor runs it"),
    (".sublime-project", "the editor runs its tasks"),
    (".gdbinit", "the debugger runs it"),
    (".lldbinit", "the debugger runs it"),
    (".tmux.conf", "tmux runs it"),
    ("claude.local.md", "instructs agents"),
    ("agents.override.md", "instructs agents"),
    ("copilot-instructions.md", "instructs agents"),
    (".clinerules", "instructs agents"),
    (".aider.conf.yml", "configures an agent"),
    ("opencode.json", "configures an agent"),
    ("opencode.jsonc", "configures an agent"),
    (".mise.toml", "mise runs it"),
    ("mise.toml", "mise runs it"),
    (".tool-versions", "chooses what tools run"),
    ("yarn.lock", "decides what is installed"),
    ("pnpm-lock.yaml", "decides what is installed"),
    ("npm-shrinkwrap.json", "decides what is installed"),
    ("bun.lockb", "decides what is installed"),
    ("bun.lock", "decides what is installed"),
    ("bunfig.toml", "configures bun"),
    ("pnpm-workspace.yaml", "configures pnpm"),
    ("cargo.lock", "decides what is installed"),
    ("poetry.lock", "decides what is installed"),
    ("uv.lock", "decides what is installed"),
    ("pipfile", "names what is installed"),
    ("pipfile.lock", "decides what is installed"),
    ("requirements.txt", "decides what is installed"),
    ("go.mod", "decides what is installed"),
    ("go.sum", "decides what is installed"),
    ("gemfile.lock", "decides what is installed"),
    ("composer.json", "its scripts run on install"),
    ("composer.lock", "decides what is installed"),
    ("deno.json", "configures deno"),
    ("settings.gradle.kts", "gradle runs it"),
    ("gradle.properties", "configures gradle"),
    ("gradlew", "gradle's start"),
    ("gradle-wrapper.properties", "decides what gradle downloads"),
    ("mvnw", "maven's start"),
    ("build.bazel", "bazel runs it"),
    ("module.bazel", "bazel runs it"),
    ("workspace.bazel", "bazel runs it"),
    (".bazelrc", "configures bazel"),
    ("meson.build", "meson runs it"),
    ("sconstruct", "scons runs it"),
    ("taskfile.yaml", "task runs it"),
    ("procfile", "foreman runs it"),
    ("vagrantfile", "vagrant runs it"),
    ("brewfile", "brew runs it"),
    ("tiltfile", "tilt runs it"),
    ("shell.nix", "nix runs it"),
    ("default.nix", "nix runs it"),
    ("devenv.nix", "nix runs it"),
    (".irbrc", "ruby runs it at start"),
    (".pryrc", "ruby runs it at start"),
    (".rprofile", "R runs it at start"),
    (".rspec", "configures rspec"),
    ("lefthook.yml", "git hooks"),
    (".lefthook.yml", "git hooks"),
    (".lintstagedrc", "git hooks"),
    (".pre-commit-hooks.yaml", "pre-commit runs it"),
    (".travis.yml", "runs in continuous integration"),
    ("azure-pipelines.yml", "runs in continuous integration"),
    ("bitbucket-pipelines.yml", "runs in continuous integration"),
    (".drone.yml", "runs in continuous integration"),
    ("appveyor.yml", "runs in continuous integration"),
    ("cloudbuild.yaml", "runs in continuous integration"),
    (".woodpecker.yml", "runs in continuous integration"),
    ("compose.yml", "docker runs it"),
    ("compose.yaml", "docker runs it"),
    (".dockerignore", "decides what docker takes in"),
];

/// Folders whose content runs or is obeyed.
const RUN_FOLDERS: [(&str, &str); 33] = [
    (".vscode", "the editor runs its tasks"),
    (".idea", "the editor runs its configurations"),
    (".zed", "the editor runs its tasks"),
    (".nvim", "the editor runs it"),
    (".run", "the editor runs its configurations"),
    (".helix", "binds keys of the editor to commands"),
    (".claude", "configures an agent"),
    (".codex", "configures an agent"),
    (".gemini", "configures an agent"),
    (".cursor", "configures an agent"),
    (".devcontainer", "builds and starts containers"),
    (".husky", "git hooks"),
    (".githooks", "git hooks"),
    (".circleci", "runs in continuous integration"),
    (".cargo", "configures cargo"),
    (".yarn", "yarn runs it"),
    (".windsurf", "configures an agent"),
    (".continue", "configures an agent"),
    (".roo", "configures an agent"),
    (".cline", "configures an agent"),
    (".clinerules", "instructs agents"),
    (".kiro", "configures an agent"),
    (".opencode", "configures an agent"),
    (".aider", "configures an agent"),
    (".amazonq", "configures an agent"),
    (".junie", "configures an agent"),
    (".mvn", "maven runs it"),
    (".buildkite", "runs in continuous integration"),
    (".woodpecker", "runs in continuous integration"),
    (".gitea", "runs in continuous integration"),
    (".forgejo", "runs in continuous integration"),
    (".fleet", "the editor runs its configurations"),
    (".mise", "mise runs it"),
];

/// Why a path is shown first because of its name.
pub fn shown_first(path: &str) -> Option<&'static str> {
    let parts = components(path);
    let (last, folders) = parts.split_last()?;
    if let Some((_, reason)) = RUN_FOLDERS.iter().find(|(name, _)| folders.iter().any(|folder| is_name(folder, name))) {
        return Some(reason);
    }
    if folders.windows(2).any(|pair| pair[0] == ".github" && matches!(pair[1].as_str(), "workflows" | "actions")) {
        return Some("runs in continuous integration");
    }
    if let Some((_, reason)) = RUN_FILES.iter().find(|(name, _)| last == name) {
        return Some(reason);
    }
    if last.starts_with("dockerfile.") || last.ends_with(".dockerfile") || last.starts_with("docker-compose") {
        return Some("docker runs it");
    }
    if last.ends_with(".code-workspace") {
        return Some("the editor runs its tasks");
    }
    if last.ends_with(".pth") {
        return Some("python runs it at start");
    }
    None
}

/// Why a name deserves a look: characters that deceive the eye or a terminal.
pub fn deceptive(text: &str) -> Option<&'static str> {
    if text.chars().any(|character| character == '\u{1b}' || character == '\u{9b}') {
        return Some("holds terminal escapes");
    }
    if text.chars().any(|character| matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')) {
        return Some("holds bidirectional control characters");
    }
    // A byte order mark at the start is common and harmless.
    if text.trim_start_matches('\u{feff}').chars().any(ignorable_for_eye) {
        return Some("holds invisible characters");
    }
    None
}

fn ignorable_for_eye(character: char) -> bool {
    matches!(character, '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{2064}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

/// Why the target of a symbolic link at `path` is held back.
pub fn link_hazard(path: &str, target: &str) -> Option<&'static str> {
    if target.is_empty() || target.contains('\0') {
        return Some("symbolic link without a usable target");
    }
    let drive = target.as_bytes().get(1) == Some(&b':') && target.as_bytes()[0].is_ascii_alphabetic();
    if target.starts_with(['/', '\\', '~']) || drive {
        return Some("symbolic link to an absolute path");
    }
    if through_git(target) {
        return Some("symbolic link through a git folder");
    }
    // Every step is checked: `a/../../x/y` must not pass because it ends up inside again.
    let mut depth = path.split('/').count() as i64 - 1;
    for part in target.split(['/', '\\']) {
        match part {
            "" | "." => {}
            ".." => depth -= 1,
            _ => depth += 1,
        }
        if depth < 0 {
            return Some("symbolic link that leaves the tree");
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn holds_back_every_spelling_of_a_git_folder() {
        for path in [
            ".git/config",
            "a/.GIT/hooks/x",
            ".git. /x",
            ".git::$INDEX_ALLOCATION/x",
            "GIT~1/x",
            ".g\u{200c}it/x",
            "a\\.git\\config",
            ".gıt/x",
            "gi7eba~1",
            "git~2",
            ".git...",
            "\u{feff}.git",
        ] {
            assert!(held_back(path).is_some(), "{path:?}");
        }
    }

    #[test]
    fn holds_back_what_configures_git_or_the_sandbox() {
        for path in [
            ".gitmodules",
            "sub/.gitattributes",
            ".LFSCONFIG",
            "GITMOD~1",
            ".gitmodule\u{17f}",
            "sandbox.yaml",
            "x/.sandbox/y",
            "images/agent.yaml",
            "profiles/a.yaml",
            "Dockerfile.agent",
            "Dockerfile.tools.lock",
            "SANDBO~1.YAM",
        ] {
            assert!(held_back(path).is_some(), "{path:?}");
        }
    }

    #[test]
    fn reaches_a_file_by_its_disguises_and_by_its_folder() {
        for path in
            [".vscode/tasks.json", ".VSCode/Tasks.json", ".vscode", "VSCODE~1/tasks.json", ".vscode./tasks.json"]
        {
            assert!(reaches(path, ".vscode/tasks.json"), "{path:?}");
        }
        for path in [".vscode/launch.json", "vscode/tasks.json", ".vscode/tasks.json/x", "a/.vscode/tasks.json"] {
            assert!(!reaches(path, ".vscode/tasks.json"), "{path:?}");
        }
    }

    #[test]
    fn leaves_ordinary_names_alone() {
        for path in [
            "src/main.rs",
            ".gitignore",
            "src/images/logo.png",
            "git/notes.md",
            ".github/CODEOWNERS",
            "digit~1",
            "profiles.rs",
            ".gitkeep",
        ] {
            assert_eq!(held_back(path), None, "{path:?}");
        }
        assert_eq!(shown_first("src/main.rs"), None);
    }

    #[test]
    fn judges_a_link_at_every_step() {
        for (path, target, held) in [
            ("a/b", "../c", false),
            ("b", "../c", true),
            ("a/b", "../../c", true),
            ("a/b", "/etc/passwd", true),
            ("a", ".git/config", true),
            ("d/a", "../.GIT/x", true),
            ("a/b", "x/../../../c/d", true),
            ("a", "b/c", false),
            ("a", "C:\\x", true),
            ("a", "", true),
        ] {
            assert_eq!(link_hazard(path, target).is_some(), held, "{path} -> {target}");
        }
    }

    proptest! {
        #[test]
        fn a_disguise_never_frees_a_protected_name(
            name in prop::sample::select(vec![".git", ".gitmodules", ".gitattributes", "sandbox.yaml"]),
            upper in any::<u32>(), at in 0usize..4, tail in "[. ]{0,4}", stream in prop::option::of(":[a-z$]{0,9}"),
            hidden in prop::sample::select(vec!['\u{200c}', '\u{200d}', '\u{2063}', '\u{feff}', '\u{202e}']),
        ) {
            let mut disguised: String = name.chars().enumerate()
                .map(|(index, letter)| if upper >> index & 1 == 1 { letter.to_ascii_uppercase() } else { letter })
                .collect();
            disguised.insert(at, hidden);
            disguised.push_str(&tail);
            disguised.push_str(&stream.unwrap_or_default());
            prop_assert!(held_back(&disguised).is_some(), "{:?}", disguised);
        }

        #[test]
        fn any_text_is_judged_without_a_panic(path in any::<String>(), target in any::<String>()) {
            held_back(&path);
            shown_first(&path);
            link_hazard(&path, &target);
        }
    }
}
