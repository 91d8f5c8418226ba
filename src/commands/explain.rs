//! `sandbox explain CODE`: says more about a failure than fits into three lines.

use serde::Serialize;

use super::{Context, Failure};

/// Explain a failure's code
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The code in brackets after `error`, such as manifest-invalid; every code is listed when left out
    code: Option<String>,
}

#[derive(Debug, Serialize)]
struct Explanation {
    code: &'static str,
    text: &'static str,
}

/// No failure has this code.
#[derive(Debug, thiserror::Error)]
#[error("explain `{}`: there is no such code", .0.escape_debug())]
struct Unknown(String);

/// Runs the verb.
///
/// # Errors
/// When there is no such code.
pub fn run(context: &Context, args: &Args) -> Result<u8, Failure> {
    let Some(code) = &args.code else {
        let all: Vec<Explanation> = EXPLANATIONS.iter().map(|&(code, text)| Explanation { code, text }).collect();
        context.printer.result(&all, || all.iter().map(|entry| format!("{}\n", entry.code)).collect());
        return Ok(0);
    };
    match EXPLANATIONS.iter().find(|(known, _)| known == code) {
        Some(&(code, text)) => {
            context.printer.described(&Explanation { code, text }, || text.to_owned());
            Ok(0)
        }
        None => {
            let shown = Unknown(code.chars().take(60).collect());
            let nearest = EXPLANATIONS.iter().map(|(known, _)| *known);
            let next = match nearest.min_by_key(|known| strsim::damerau_levenshtein(known, code)) {
                Some(known) => format!("did you mean `{known}`? `sandbox explain` lists every code"),
                None => "`sandbox explain` lists every code".to_owned(),
            };
            Err(Failure::new("code-unknown", &shown, next))
        }
    }
}

/// What each code means, by code.
pub(super) const EXPLANATIONS: &[(&str, &str)] = &[
    (
        "agent-unknown",
        "`sandbox init` knows agents by name: what runs, in which image, which hosts and which key it needs. Another agent is written into sandbox.yaml by hand, with `command:` and `image:` in place of `agent:`.",
    ),
    (
        "audit-access",
        "The audit log in the launcher's state folder cannot be read or written. Nothing is started that could not be recorded. Check the folder's owner, its permissions and the free space.",
    ),
    (
        "audit-broken",
        "The audit log is one chain of hashes, and it does not fit together: a line was changed, removed, added, moved or cut off. Keep the file, compare it with a copy, and find out who could write to it. An error of the disk looks the same as an attack.",
    ),
    (
        "audit-json",
        "An event of the audit log could not be written as JSON. This is a fault of sandbox itself; please report it.",
    ),
    (
        "branch-absent",
        "The agent's clone has no such branch, or what came names it twice. `sandbox pull` without `--branch` takes the branch that the session began on, and says which others have commits.",
    ),
    (
        "branch-exists",
        "The branch that `pull` was asked to make is already there. Nothing was overwritten. Choose another name for `--into`.",
    ),
    ("branch-name", "The name is not one that git takes for a branch. Write a plain name such as main or feature/x."),
    (
        "code-unknown",
        "`sandbox explain` was asked about a code that no failure has. Without a code it lists all of them.",
    ),
    (
        "command",
        "The command could not be started in the sandbox: it is not there (exit code 127) or cannot be executed (126), as with `docker run`. The image decides which programs there are.",
    ),
    (
        "commits-not-pulled",
        "The sandbox holds commits that this repository does not have, and removing it would lose them. Bring them in with `sandbox pull`, or throw them away with `--discard`.",
    ),
    (
        "configuration-invalid",
        "Your own config.yaml has a key or a value that is not known. It decides how much a manifest may ask for, so that nothing in it is ignored. docs/configuration.md lists the keys and their defaults.",
    ),
    (
        "configuration-unreadable",
        "Your own config.yaml is there and cannot be read. It decides how much a manifest may ask for, so that its absence is not assumed. Check its permissions, and that it is UTF-8 text.",
    ),
    (
        "container-different",
        "The engine made a container that differs from the plan, though it took the request without a word. It was removed and not started, since it would be weaker than it says. Update the engine, and report it with the output of `sandbox doctor`.",
    ),
    (
        "copy-ends",
        "`sandbox cp` copies between this machine and one sandbox: one of the two paths is written as PROJECT:PATH, the other one is a path here. A path here with a colon in its name is written with a slash before it, such as ./a:b.",
    ),
    (
        "copy-exists",
        "Something is at the place that the copy would take. Nothing is written over: give another name, or `--force`, by which a file takes the place of a file. A folder never takes the place of anything.",
    ),
    (
        "copy-failed",
        "Reading or writing failed on one of the two sides; the cause says which and why. What had come is removed, and what was there is as it was.",
    ),
    (
        "copy-refused",
        "`sandbox cp` takes regular files and folders below /workspace, /home/agent and /tmp, within limits of bytes, number, depth and time. Links, devices, pipes and sockets, names that hide what they are, and what git or sandbox obeys on this machine (.git, .gitattributes, sandbox.yaml) are refused, and so is the whole copy with them.",
    ),
    (
        "credential",
        "A credential could not be read, stored, issued or withdrawn. The causes above name the step; `sandbox credential check` tries each credential without starting a sandbox.",
    ),
    (
        "credential-input",
        "The value of a credential is read from standard input or from a terminal, never from the command line, where other users would see it. It was missing, empty, too long or not readable.",
    ),
    (
        "credential-not-issued",
        "A credential that the manifest declares could not be had, so that the sandbox was not started: the agent would have failed later and less clearly. `sandbox credential ls` shows which are set.",
    ),
    (
        "credential-not-login",
        "`sandbox credential login` is for credentials of the provider `oauth`, whose access tokens are renewed by a log-in that stays on your side. Other providers have values of their own: give those of the store with `sandbox credential set`.",
    ),
    (
        "credential-not-out",
        "The credential is not lent to any running sandbox, so that there is nothing to withdraw. `sandbox credential ls` shows what is out.",
    ),
    (
        "credential-not-stored",
        "The credential does not come from the embedded store: its value lives in an env file or is printed by a command. Change it there.",
    ),
    (
        "credential-undeclared",
        "The manifest does not declare a credential of this name. Credentials belong to one project and are declared in its sandbox.yaml, so that a reader sees what the agent gets.",
    ),
    (
        "credential-words",
        "A word on the command line of `sandbox credential` is not one that it takes, and could be a secret value. Such a word is not repeated in the message. Values are read from standard input; rotate a value that was typed as an argument, since other users and the shell's history may have it.",
    ),
    (
        "current-folder",
        "The current folder was removed or is not readable, so that the project in it cannot be found. Change to another folder, or name the project by its path.",
    ),
    (
        "destination",
        "A destination is a host with or without a port, as the gateway takes it: a name, a dotted quad without leading zeros, or an IPv6 address in brackets. A path begins with `/` and has one meaning: no `..`, no `//`, nothing encoded twice.",
    ),
    (
        "detached-head",
        "The repository is at a commit and not on a branch, so that it is not clear which branch the agent is to work on. Switch to a branch, or write `workspace.branch`.",
    ),
    (
        "editor-file",
        "A file of your editor could not be read, is larger than any that people write, or was changed while `sandbox editor` worked on it. A file is replaced as a whole or not at all; run the verb again.",
    ),
    (
        "editor-format",
        "`sandbox editor` merges its tasks into what is there and keeps your comments and order, so it has to understand the file first. It changes nothing when one of the files is not of its format: JSON with comments for VS Code and Zed, TOML for Helix.",
    ),
    (
        "editor-link",
        "A file or folder that `sandbox editor` is to write is a symbolic link, a pipe or a device. It could lead out of the project, and an agent may have put it there, so it is never followed.",
    ),
    (
        "editor-memory",
        "What `sandbox editor` wrote is remembered by hash in the launcher's state folder, so that `pull` holds back commits that change such a file. The record cannot be read or written. If it is deleted, `pull` still shows these files first, and `sandbox editor EDITOR --write` remembers them anew.",
    ),
    (
        "editor-taken",
        "A run configuration of JetBrains is a file of its own. There is one of that name already, or you changed the one that was written; it is not overwritten.",
    ),
    (
        "engine-address",
        "The engine's address is not one that can be used. `unix:///PATH` and `tcp://HOST:PORT` can; a remote engine is reached through a socket that ssh forwards.",
    ),
    (
        "engine-call",
        "A call to the engine failed, or its answer was not one. Its own words are among the causes; its log has more.",
    ),
    (
        "engine-configuration",
        "Docker's own configuration, which names the engine to use, cannot be read. Mend the file, or go past it with `--engine`.",
    ),
    (
        "engine-context",
        "The Docker context in use does not exist or cannot be read. `docker context ls` shows those that there are.",
    ),
    (
        "engine-not-answering",
        "There is an address of an engine, and nobody answers there. Start the engine, or correct DOCKER_HOST or the Docker context.",
    ),
    (
        "engine-not-permitted",
        "The engine's socket is there and does not let you in. Whoever may use it has root's rights on the machine, so that a rootless engine is the better answer.",
    ),
    (
        "engine-request",
        "A value cannot be put into a request to the engine: a name with characters that it refuses, or a number beyond its range.",
    ),
    (
        "engine-timeout",
        "The engine took longer than any healthy one does. See whether `docker ps` answers; a full disk and a busy machine look like this.",
    ),
    (
        "engine-too-new",
        "The engine does not speak any version of its protocol that this sandbox knows. Install a newer sandbox.",
    ),
    ("engine-too-old", "The engine is older than 20.10 and lacks what the containment needs. Upgrade it."),
    (
        "engine-unknown",
        "Something answers at the engine's address and is not a Docker Engine. Check the address; `sandbox doctor` shows where it comes from.",
    ),
    (
        "export-failed",
        "Clone, home or commits could not be written to the file, or more than the limit came. Nothing is written over, and a file that was begun is removed.",
    ),
    (
        "gateway",
        "The gateway, through which all of a sandbox's traffic goes, could not be reached or did not take its orders. Without it the agent reaches nothing. `sandbox status` shows its state.",
    ),
    (
        "git-missing",
        "git is needed on this machine to clone the project and to bring commits back. Install it and see that it is in PATH.",
    ),
    (
        "identity",
        "A sandbox's identity could not be signed. It is a short token that names project, person and session, and that issuers take in place of a secret; `sandbox credential identity` prints what they need. It takes an issuer in config.yaml and a signing key that only you can read.",
    ),
    ("image", "An image could not be locked, built or checked. The causes above name the step and the file."),
    (
        "image-absent",
        "The engine does not have the image that the plan names. `sandbox up` pulls one that is named by its digest; run it again, or name a definition in images/.",
    ),
    (
        "image-build",
        "A step of the Dockerfile failed, or what came of it is no image that the launcher takes over. The last lines of the builder are above. Steps have no network unless the image was locked with `--with-network`.",
    ),
    (
        "image-builder",
        "DOCKER_BUILDKIT is neither 0 nor 1, or it asks for BuildKit and the one of this engine cannot be given the files of a build: engines before 27.5 with the containerd store look for them in the network instead. Leave the variable out, and the classic builder is used; the image is the same.",
    ),
    (
        "image-content",
        "A package was fetched as its digest says, and is not what a package has to be: it reaches out of the image, is longer than any, or has another name or version than the lock says. Nothing of it was used.",
    ),
    (
        "image-context",
        "COPY or ADD of the Dockerfile name something that does not go into a build: a file that is absent or left out, that may hold credentials, or that is a link out of the project.",
    ),
    (
        "image-definition",
        "The definition images/NAME/image.yaml has a fault, or its bases form a circle. The causes above name the place.",
    ),
    (
        "image-dockerfile",
        "The text cannot be read as a Dockerfile, or a line of it is not built: something comes in that no digest pins, or that the launcher does not send. The cause names line and column.",
    ),
    (
        "image-key",
        "The file is not a key that can sign or verify: PEM, PKCS#8 without a password for a private one, of ECDSA with P-256 or of Ed25519.",
    ),
    (
        "image-keyring",
        "The keys that sign the distribution's packages are not on this machine, so that no package can be trusted. Install the package debian-archive-keyring.",
    ),
    (
        "image-lost",
        "The engine took the image and does not have it any more. A clean-up or a full disk does that; `sandbox doctor` checks the engine.",
    ),
    (
        "image-mismatch",
        "The build gave other bytes than its lock says. A lock pins the image to the byte, so that this one is not used. When the definition or the launcher changed on purpose, lock it again.",
    ),
    (
        "image-npm",
        "The definition has programs of npm that need others, and images/NAME/package-lock.json does not give a tarball of each that can be unpacked. `sandbox image lock` has `npm` write the file where there is none; no script of a package is run.",
    ),
    (
        "image-offline",
        "The step needs the network and `--offline` forbids it. What is in the cache is used without it.",
    ),
    (
        "image-package",
        "No source of the definition has this Debian package, or no lock that the project may write: the name is another one, or an image that comes with the launcher has it. The versions of npm and PyPI programs stand in the definition.",
    ),
    (
        "image-platform",
        "The image is not for this machine's processor and operating system. The launcher takes the entry of an index that is for Linux and this processor, and nothing else.",
    ),
    (
        "image-python",
        "The definition has programs of PyPI, and images/NAME/pylock.toml does not give a wheel of each for the Python of the image. `sandbox image lock` has `uv` write the file where there is none; nothing is built from source.",
    ),
    (
        "image-reference",
        "The text is neither a name in images/ nor a reference with a digest. A tag alone is refused, since it can point to something else tomorrow.",
    ),
    (
        "image-release",
        "The index of the distribution is not signed by a key that is trusted, is out of date, or is older than the one that is locked. Check the mirror and the clock; an attacker in between looks the same.",
    ),
    (
        "image-repository",
        "The definition names a repository of others than Debian, and the file with its key cannot be used. It is a file beside image.yaml with OpenPGP keys, binary or armored; whoever has the private key decides what is in the image.",
    ),
    (
        "image-script",
        "Packages want to run scripts that the builder does not run. Images are unpacked, not installed, so that they come out the same each time. Where a package cannot do without, install it in a step of a Dockerfile.agent above the image; the result is pinned by its lock as well. Where it can, as a library can whose script writes a cache, name it in `debian.without_scripts` of the definition.",
    ),
    (
        "image-signature",
        "The envelope was not signed with this key, or what was signed is not what the lock gives: another image, or another state of the repository.",
    ),
    (
        "image-stale",
        "The lock was made for another definition or another base than the present one. Lock the image again, its base first.",
    ),
    (
        "image-unavailable",
        "A package or file of the lock could not be fetched. Mirrors drop old versions: if it is gone, lock the image again.",
    ),
    (
        "image-unknown",
        "There is no image definition of this name, neither in the project's images/ nor among the built-in ones.",
    ),
    (
        "image-unlocked",
        "The image has a definition and no lock. A lock pins every package by its digest; `sandbox image lock` writes it.",
    ),
    (
        "image-vendored",
        "A file in images/vendor is not the one that its name and the lock say. It is not used, and nothing else is taken in its place.",
    ),
    (
        "image-version",
        "The definition asks for a version of a Debian package, or for that of a suite, which no source has. Repositories keep the newest version of a release alone; one that is gone is in an image only as long as its lock is.",
    ),
    (
        "image-volume",
        "The image declares a volume. The engine would make it writable, without a limit and outside of the sandbox's own volumes, so that such an image is refused.",
    ),
    (
        "in-use",
        "Something that was to be removed is in use by a container. End what uses it first; `sandbox ps` shows the sandboxes.",
    ),
    (
        "init-declined",
        "Nothing was written, since the answer was no. The draft can be had again at any time; with `--yes` it is written without a question.",
    ),
    (
        "init-not-asked",
        "`sandbox init` asks for the agent and the project's name, and shows the draft before it writes it. Without a terminal it writes nothing unless `--yes` is given.",
    ),
    (
        "interrupted",
        "The launch was interrupted, and what was begun was taken back: credentials withdrawn, containers removed. It can be run again.",
    ),
    (
        "journal",
        "The record of a running sandbox, by which another process finds and ends it, cannot be read or written. Check the launcher's state folder; `sandbox gc` ends what has no readable record.",
    ),
    (
        "large-file",
        "A file of git-lfs that `workspace.lfs` lists is not in your own store (.git/lfs/objects), from which it goes into the sandbox: sandbox itself fetches nothing and runs no filter. `git lfs fetch` brings it there.",
    ),
    (
        "launcher-image",
        "The launcher's own image, from which the relay and the gateway run, could not be made or loaded. It is built from the sandbox binary itself, so that the engine and the cache folder are what to look at.",
    ),
    (
        "learn-observe",
        "`network learn --observe` opens every public host to the command, so that it asks first, or wants `--yes`. It never does so in a sandbox that runs already, which may hold credentials. Without `--observe` what is not listed is denied and recorded, which opens nothing.",
    ),
    (
        "limit-missing",
        "The engine warned that it does not enforce a limit, or left one out. A sandbox without its limits is not started. A rootless engine needs cgroup v2 with the cpu, memory and pids controllers delegated.",
    ),
    (
        "man-not-written",
        "The manual pages are files in the folder that `--output` names, one for each verb. The folder is made when it is not there; it or a file in it could not be written.",
    ),
    (
        "manifest-exists",
        "The repository has a sandbox.yaml already, which is never overwritten. Edit it, or move it away to have a new draft.",
    ),
    (
        "manifest-invalid",
        "sandbox.yaml has a key or a value that is refused, or asks for more than your configuration permits. Every fault is shown at once with its line and what to write instead. A manifest never names host paths, devices, capabilities, runtime flags or network modes.",
    ),
    (
        "manifest-missing",
        "There is no sandbox.yaml where one was looked for: at the path, or in the current folder and those above it.",
    ),
    (
        "manifest-name",
        "A manifest is named sandbox.yaml, also after its links are followed. An approval covers that file, so that another one would be used without having been approved.",
    ),
    (
        "manifest-not-trusted",
        "The manifest, or something that it uses, was never approved or changed since. It decides which hosts the agent reaches and which commands run on your machine, and it comes from a repository. Read it, then run `sandbox trust`.",
    ),
    (
        "manifest-not-written",
        "The draft could not be written into the repository's top folder. Check the folder's owner, its permissions and the free space.",
    ),
    (
        "manifest-owner",
        "The manifest belongs to another user. In a shared folder anybody could leave one, so that only your own are used.",
    ),
    (
        "manifest-unreadable",
        "sandbox.yaml is there and cannot be read. Check its permissions, and that it is UTF-8 text.",
    ),
    (
        "name-taken",
        "The engine already has a container or volume of the name that the sandbox needs, and it is not this sandbox's. `sandbox gc` removes what a crash left; what is not ours is never touched.",
    ),
    (
        "network-entry",
        "A running sandbox is allowed what a manifest could allow it, and no more: the entry was judged as if sandbox.yaml had it, beside the others that are in force, and under your own config.yaml. The causes above say what is against it.",
    ),
    (
        "network-preset",
        "A preset is a file with hosts and their rules that a manifest uses by name. Those of a project stand in profiles/network/NAME.yaml beside sandbox.yaml and come before the ones that the launcher has. `sandbox network presets` lists them all, and `sandbox network presets NAME` prints one to start from.",
    ),
    (
        "network-restart",
        "Requests to a host with `rules` are read by the gateway, whose certificate the programs in the sandbox have to trust. They are told so when the sandbox starts, and this one was started without any such host. Write the rule into sandbox.yaml and start it again, or allow the whole host.",
    ),
    ("no-commit", "The repository has no commit yet, so that there is nothing to clone. Commit something first."),
    (
        "no-repository",
        "The workspace's folder is not in a git repository. The agent gets a clone and gives back commits, so that one is needed: run `git init` and commit.",
    ),
    (
        "no-session",
        "The report of a session is made of the audit log in the launcher's state folder on this machine, and no session of that name is in it. Sessions of other people and machines are in their logs.",
    ),
    (
        "not-contained",
        "The probe inside the new sandbox found something that must not be: a way out, a missing limit, a reachable address. The agent was not started. The causes above name what failed; `sandbox doctor` checks the engine.",
    ),
    (
        "not-there",
        "A container, volume or image was there a moment ago, or should be, and is not. Somebody else removed it, or it stopped. `sandbox status` shows what is there.",
    ),
    (
        "nothing-to-import",
        "The file has no variable that is a credential of the manifest. Declare the credential first; the name in the file is compared with it.",
    ),
    (
        "other-branch",
        "Uncommitted changes can only go along on top of the branch that is checked out, and another one was asked for. Switch to that branch, or leave `include_uncommitted` off.",
    ),
    (
        "page-not-written",
        "The page of `sandbox review` is written into the launcher's state folder, or to the file that --output names, as a new file that then takes the place of the old one. The system's message above says what kept it from that.",
    ),
    (
        "partial-clone",
        "The repository is a partial clone and lacks objects that the agent's clone needs. `git fetch --refetch --no-filter` brings them.",
    ),
    (
        "plan-changed",
        "A sandbox of this project runs from another plan: the manifest, the image or the options changed since. A changed `network.allow` alone is taken without a restart; the cause above names what is not. Joining it would not give what was asked for. End it with `sandbox down`, or start a second one with `--name`.",
    ),
    (
        "port-refused",
        "The operating system did not let `sandbox` listen on a port of this machine's loopback. Ports below 1024 often need privileges: `sandbox port PROJECT 80:8080` has port 80 of the sandbox at 8080 of this machine.",
    ),
    (
        "port-taken",
        "Another program listens on that port of this machine, on 127.0.0.1 or on ::1. `sandbox` takes both, so that `localhost` leads to one server only. `sandbox port PROJECT PORT:LOCAL` takes another one.",
    ),
    (
        "profile",
        "There is no confinement profile of this name. They are part of sandbox: strict, default, debug and browser. A manifest cannot bring its own.",
    ),
    (
        "project-access",
        "A file or folder of the project cannot be read, or the place where projects are remembered cannot be written. Check the permissions.",
    ),
    (
        "project-nameless",
        "A project's name is a DNS label: letters, digits and hyphens, at most 40 of them. Neither the remote's URL nor the folder's name has any that could be used, so it has to be given with `--project`.",
    ),
    (
        "project-unknown",
        "This machine has not seen a project of this name. Name it by its path once; afterwards its name is enough.",
    ),
    (
        "proxy-log-in",
        "The password for the company's proxy could not be had. `network.proxy_log_in` in your configuration names a command, which has 30 s and whose first output is the password, or a file that nobody but you can read.",
    ),
    (
        "registry",
        "The registry could not be reached, was busy for too long, or answered what the specification does not have. What was transferred is kept, so that running it again goes on from there.",
    ),
    (
        "registry-absent",
        "The registry has no such image or part of one. The name may be wrong, the image deleted, or hidden from the account that is logged in.",
    ),
    (
        "registry-content",
        "The registry sent other bytes than the digest names, or a document that is not an image. Nothing of it was used. A broken proxy does that, and so does somebody who wants another program to run.",
    ),
    (
        "registry-denied",
        "The registry or its token service refused. Logins come from Docker's configuration and its helpers; `docker login` makes one. An account may be logged in and not be allowed to use this repository.",
    ),
    (
        "registry-login",
        "Docker's configuration could not be read, or names a credential helper that cannot be started. Without a configuration registries are asked without a login.",
    ),
    (
        "registry-redirection",
        "The registry sent the launcher to a place where it does not go: an address of another kind than the registry's own, such as a private one or a metadata service, or one without encryption.",
    ),
    (
        "relay",
        "The relay, the only network neighbour of the agent, did not start or died. Without it the agent reaches nothing.",
    ),
    (
        "repository-owner",
        "The repository belongs to another user. git would run what its configuration says, so that only your own are used.",
    ),
    (
        "rotation-request",
        "The wish to rotate or withdraw a credential could not be left for the process that supervises the sandbox. Check the launcher's state folder.",
    ),
    (
        "runtime",
        "The launcher could not start its own threads or timers. The machine is short of processes, memory or open files.",
    ),
    (
        "sandbox-absent",
        "There is no sandbox of this project. `sandbox ps` lists those that there are; `sandbox up` starts one.",
    ),
    (
        "sandbox-differs",
        "A running container differs from the plan that it was started from: somebody changed it. It is not joined. End it with `sandbox down`.",
    ),
    (
        "sandbox-foreign",
        "A sandbox of this name belongs to another user or another machine that uses the same engine. It is neither joined nor removed.",
    ),
    (
        "sandbox-stopped",
        "The sandbox is there and does not run. Its work is kept: `sandbox up` goes on, `sandbox pull` brings the commits in, `sandbox down` removes it.",
    ),
    (
        "scan-path",
        "`sandbox scan` looks through files and folders that are there and that you may read; what it cannot read inside of a folder it names and passes over. Without a path it looks at your home, the environment and the settings of the current folder.",
    ),
    (
        "session",
        "The stream to the program inside the sandbox failed: it did not start, ended early or said what it must not say. An image that sandbox did not build needs git and a user with the id 1000.",
    ),
    (
        "session-ended",
        "The session ended while the command ran: a limit of `resources` was reached, the agent's container died, or another command took the sandbox down. The reason is in the message and in `sandbox status`. What the agent wrote is kept until `sandbox down`; processes and files in memory are gone.",
    ),
    (
        "signing-key",
        "`workspace.sign` wants a key of the session for its commits, and there was none: the system gave no random bytes.",
    ),
    (
        "state-folder",
        "The launcher's state folder cannot be used. It holds the journals, the audit log and the approvals, so that nothing works without it. Check its owner, its permissions and the free space.",
    ),
    (
        "submodule",
        "A path of `workspace.submodules` is no submodule of the branch, or its commit is not in your own checkout of it, from which it goes into the sandbox: sandbox itself fetches nothing. `git submodule update --init PATH` brings it there.",
    ),
    (
        "supervisor",
        "The process that renews credentials and restarts the gateway failed, or there is nothing for it to supervise. supervisor.log in the sandbox's folder has its words; `sandbox up` starts it again.",
    ),
    (
        "temporary-file",
        "A temporary file could not be written. Make room in the folder for temporary files, or set TMPDIR to another one.",
    ),
    (
        "trust-access",
        "A file that the manifest uses, or the record of its approval, cannot be read or written. Check the permissions.",
    ),
    (
        "trust-declined",
        "You were asked to approve the manifest, and the answer was no. Nothing was started and nothing was recorded.",
    ),
    (
        "trust-edited",
        "sandbox.yaml changed between being read and being approved. What would be approved is not what was shown, so that nothing was recorded. Run it again.",
    ),
    (
        "trust-json",
        "The record of an approval could not be written as JSON. This is a fault of sandbox itself; please report it.",
    ),
    (
        "trust-not-asked",
        "The manifest needs an approval, and there is no terminal to ask on. Read it, then run `sandbox trust` on a terminal, or `sandbox trust --yes` in a script that has checked it by other means.",
    ),
    (
        "trust-special",
        "Among the files that an approval covers is a symbolic link or a special file. What it leads to can change without the approval noticing, so that a plain file is needed.",
    ),
    (
        "trust-too-large",
        "The files that an approval covers are more, or larger, than a person can have looked at. Keep only what the sandbox needs in images/, profiles/ and .sandbox/.",
    ),
    (
        "workspace",
        "The project's clone could not be made, or the agent's work not be read. The causes above have git's own words.",
    ),
    (
        "workspace-absent",
        "There is no clone, or no home, of that sandbox. `sandbox workspace ls` lists those that there are.",
    ),
    (
        "workspace-in-use",
        "A sandbox that runs keeps its clone and its home. `sandbox down` ends it, and refuses to lose commits that were not pulled.",
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// The codes in a source file: literals in `Failure::new("…"` and its like, and, in a file that hands a variable to it, the
    /// first literal of each arm of a `match`.
    fn codes(text: &str) -> BTreeSet<String> {
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let mut openings = vec!["Failure::new(", "Failure::system(", "Failure::told("];
        if ["Failure::new(code,", "Failure::told(code,", "Self::new(code,", "Self { code,"]
            .iter()
            .any(|using| code.contains(using))
        {
            openings.push("=> ");
        }
        let mut found = BTreeSet::new();
        for opening in openings {
            for piece in code.split(opening).skip(1) {
                let piece =
                    piece.trim_start_matches(|character: char| character.is_whitespace() || "({".contains(character));
                let Some((literal, rest)) = piece.strip_prefix('"').and_then(|piece| piece.split_once('"')) else {
                    continue;
                };
                let is_code = literal.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
                if is_code && rest.trim_start().starts_with(',') {
                    found.insert(literal.to_owned());
                }
            }
        }
        found
    }

    fn all(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                all(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.extend(codes(&std::fs::read_to_string(&path).unwrap()));
            }
        }
    }

    #[test]
    fn finds_codes_however_they_are_written() {
        let text = "match x { A => (\"a-one\", \"n\"), B => (\n \"b-two\",\n \"n\"), C => { (\"c\", 1) } }; Failure::new(code, e, n); Failure::new(\n  \"d-four\", e)";
        assert_eq!(codes(text).into_iter().collect::<Vec<_>>(), ["a-one", "b-two", "c", "d-four"]);
    }

    #[test]
    fn every_code_is_explained_and_every_explanation_has_a_code() {
        let mut used = BTreeSet::new();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        all(&source.join("commands"), &mut used);
        all(&source.join("cli"), &mut used);
        assert!(used.len() > 50, "only {} codes were found", used.len());
        let explained: BTreeSet<String> = EXPLANATIONS.iter().map(|(code, _)| (*code).to_owned()).collect();
        let missing: Vec<_> = used.difference(&explained).collect();
        let idle: Vec<_> = explained.difference(&used).collect();
        assert!(missing.is_empty(), "explain {missing:?}");
        assert!(idle.is_empty(), "no failure has {idle:?}");
    }

    #[test]
    fn explanations_are_sorted_sentences() {
        assert!(EXPLANATIONS.is_sorted_by(|left, right| left.0 < right.0));
        for (code, text) in EXPLANATIONS {
            assert!(text.len() > 40 && text.ends_with('.'), "{code}");
        }
    }
}
