//! What maintainer scripts would have done: the dpkg database, accounts, certificates; [`alternatives`] and modules of
//! [`php`] are in files of their own.

use std::collections::BTreeSet;

use super::alternatives::{self, Alternative};
use super::control::paragraph;
use super::error::{PackageProblem, RefusedScript};
use super::lock::Package;
use super::php;
use super::tree::{Entry, Kind, Tree};
use super::unpack::Unpacked;
use crate::init::truststore;

/// Where dpkg records each package.
const INFO: &str = "var/lib/dpkg/info/";

/// The agent's user and group.
pub const AGENT: u64 = 1000;

/// Packages whose preinst and postinst are replaced by a fix-up of this file: accounts, copied files, certificates, the
/// time zone.
const REPLACED: &[&str] = &[
    "base-files",
    "base-passwd",
    "ca-certificates",
    "ca-certificates-java",
    "debianutils",
    "git-lfs",
    "libc-bin",
    "readline-common",
    "tzdata",
];

/// Packages whose preinst and postinst do nothing that counts but to offer [`alternatives`].
const ALTERNATIVES: &[&str] = &[
    "bison",
    "clang",
    "cpp",
    "g++",
    "gawk",
    "gcc",
    "imagemagick-*.q16",
    "less",
    "libblas3",
    "liblapack3",
    "lua5.4",
    "maven",
    "mawk",
    "nano",
    "netcat-openbsd",
    "netcat-traditional",
    "node-babel7",
    "openjdk-*-jdk-headless",
    "openjdk-*-jre-headless",
    "php-cli",
    "pinentry-curses",
    "scala",
    "universal-ctags",
    "xz-utils",
];

/// Packages whose preinst and postinst mend an older version, make caches, or set up services and their users, mail, login
/// or PAM, which a new root without an init system has no use for. Alternatives that they offer are there.
const INERT: &[&str] = &[
    "adduser",
    "apt",
    "bash",
    "binutils",
    "bsdextrautils",
    "cmake-data",
    "coreutils",
    "dash",
    "debconf",
    "debian-archive-keyring",
    "dpkg",
    "erlang-base",
    "fish",
    "flex",
    "fontconfig",
    "fontconfig-config",
    "git",
    "golang-go",
    "gzip",
    "hicolor-icon-theme",
    "init-system-helpers",
    "iputils-ping",
    "java-common",
    "libbcprov-java",
    "libc6",
    "libcrypt-dev",
    "libdebuginfod-common",
    "libgcrypt20",
    "libglib2.0-0",
    "libglib2.0-0t64",
    "libgssapi-krb5-2",
    "libjs-jquery",
    "libpam-modules",
    "libpam-runtime",
    "libpam0g",
    "libpaper1",
    "libpython3.*-minimal",
    "libreadline8t64",
    "libselinux1",
    "libsensors5",
    "libwrap0",
    "llvm",
    "llvm-*-runtime",
    "locales",
    "login",
    "login.defs",
    "man-db",
    "mariadb-common",
    "mysql-common",
    "netbase",
    "node-undici",
    "nodejs",
    "ocaml-base",
    "openssh-client",
    "openssl",
    "passwd",
    "perl",
    "perl-base",
    "pkg-config",
    "pkgconf",
    "pkgconf-bin",
    "postgresql-client-*",
    "procps",
    "python3",
    "python3-distutils",
    "python3-lib2to3",
    "python3-minimal",
    "python3-pip",
    "python3-pkg-resources",
    "python3-setuptools",
    "python3-wheel",
    "python3.*",
    "python3.*-minimal",
    "python3.*-venv",
    "redis-tools",
    "ruby",
    "sgml-base",
    "sudo",
    "tar",
    "tmux",
    "ucf",
    "unzip",
    "usr-is-merged",
    "usrmerge",
    "util-linux",
    "vim-common",
    "vim-runtime",
    "x11-common",
    "zsh",
    "zsh-common",
];

/// Files that postinst scripts copy into place.
const COPIES: &[(&str, &str)] = &[
    ("usr/share/libc-bin/nsswitch.conf", "etc/nsswitch.conf"),
    ("usr/share/base-files/profile", "etc/profile"),
    ("usr/share/base-files/motd", "etc/motd"),
    ("usr/share/base-files/dot.bashrc", "root/.bashrc"),
    ("usr/share/base-files/dot.profile", "root/.profile"),
    ("usr/share/debianutils/shells", "etc/shells"),
    ("usr/share/readline/inputrc", "etc/inputrc"),
];

/// Group numbers of base-passwd's group.master.
const MAIL: u64 = 8;
const SHADOW: u64 = 42;

/// Folders that the postinst of base-files makes: path, mode and group.
const BASE_FOLDERS: &[(&str, u32, u64)] = &[
    ("etc/opt", 0o755, 0),
    ("media", 0o755, 0),
    ("mnt", 0o755, 0),
    ("opt", 0o755, 0),
    ("srv", 0o755, 0),
    ("usr/local/etc", 0o755, 0),
    ("usr/local/games", 0o755, 0),
    ("usr/local/include", 0o755, 0),
    ("usr/local/lib", 0o755, 0),
    ("usr/local/sbin", 0o755, 0),
    ("usr/local/share/man", 0o755, 0),
    ("usr/local/src", 0o755, 0),
    ("var/mail", 0o2775, MAIL),
    ("var/opt", 0o755, 0),
];

/// Links that the postinst of base-files makes, with their targets.
const BASE_LINKS: &[(&str, &str)] =
    &[("etc/dpkg/origins/default", "debian"), ("usr/local/man", "share/man"), ("var/spool/mail", "../mail")];

/// Folders of base-files that its postinst turns into links (hier(7)). They are there before any package, so what a
/// package has below them comes to be below /run.
const RUN_LINKS: &[(&str, &str)] = &[("var/lock", "/run/lock"), ("var/run", "/run")];

/// Parts of scripts that debhelper writes (dh(1)) and that are alternatives or what a new root has no use for: byte code of
/// Python, services and their users' folders, menus and icons, and what removes what an older version had.
const DEBHELPER: &[&str] = &[
    "dh_bugfiles",
    "dh_installalternatives",
    "dh_installdeb",
    "dh_installinit",
    "dh_installinitramfs",
    "dh_installlogrotate",
    "dh_installmenu",
    "dh_installmime",
    "dh_installsystemd",
    "dh_installsystemduser",
    "dh_installtmpfiles",
    "dh_installudev",
    "dh_installxfonts",
    "dh_installxmlcatalogs",
    "dh_lintian",
    "dh_makeshlibs",
    "dh_pypy",
    "dh_python3",
    "dh_systemd_enable",
    "dh_systemd_start",
    "dh_ucf",
];

/// Whether a package has this name, where `*` is for the version that is in it.
fn is_of(name: &str, package: &str) -> bool {
    let Some((start, end)) = name.split_once('*') else { return name == package };
    let version = package.strip_prefix(start).and_then(|rest| rest.strip_suffix(end));
    version.is_some_and(|version| !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Refuses packages that need a script run, and gives the alternatives that one offers.
pub fn check_scripts(package: &str, unpacked: &Unpacked) -> Result<Vec<Alternative>, RefusedScript> {
    let refused = |script: &str| RefusedScript { package: package.to_owned(), script: script.to_owned() };
    let known = [REPLACED, ALTERNATIVES, INERT].iter().any(|list| list.iter().any(|name| is_of(name, package)));
    let mut offered = Vec::new();
    for (script, text) in unpacked.control.iter().filter(|(name, _)| matches!(name.as_str(), "preinst" | "postinst")) {
        let text = String::from_utf8_lossy(text);
        if !known && !generated(&text) && !php::is_known(package) {
            return Err(refused(script));
        }
        if script == "postinst" {
            offered = alternatives::calls(package, &text).map_err(|_| refused(script))?;
        }
    }
    // The trigger of libglib2.0-0 would compile them, and a program without them ends.
    let schema = |path: &str| path.starts_with("usr/share/glib-2.0/schemas/") && path.ends_with(".gschema.xml");
    match unpacked.entries.iter().any(|(path, _)| schema(path)) {
        true => Err(refused("trigger of libglib2.0-0")),
        false => Ok(offered),
    }
}

/// Whether a script does nothing but what debhelper wrote into it, and of that only what a new root has no use for.
fn generated(script: &str) -> bool {
    let mut inside = false;
    for line in script.lines().map(str::trim) {
        if let Some(tool) = line.strip_prefix("# Automatically added by ") {
            // Such as `dh_python3` or `dh_installdeb/13.11.4`.
            if inside || !DEBHELPER.contains(&tool.split('/').next().unwrap_or(tool)) {
                return false;
            }
            inside = true;
        } else if line == "# End automatically added section" {
            inside = false;
        } else if !inside && !line.is_empty() && !line.starts_with('#') && !matches!(line, "set -e" | "exit 0") {
            return false;
        }
    }
    !inside
}

/// Takes the files and the record of a package away that another version of it replaces. What others have too stays.
///
/// # Errors
/// When dpkg's database cannot be read.
pub fn forget(tree: &mut Tree, package: &str) -> std::io::Result<()> {
    let listed = |tree: &Tree, path: &str| -> std::io::Result<Vec<String>> {
        let text = tree.read(path)?.unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let paths = text.lines().filter_map(|line| line.strip_prefix('/')).filter(|path| !matches!(*path, "" | "."));
        Ok(paths.filter_map(|path| tree.locate(path).ok()).collect())
    };
    let (mut own, mut records, mut others) = (Vec::new(), Vec::new(), BTreeSet::new());
    let info: Vec<String> = tree.below(INFO).map(|(path, _)| path.to_owned()).collect();
    for path in info {
        let Some((stem, kind)) = path.strip_prefix(INFO).and_then(|name| name.rsplit_once('.')) else { continue };
        let mine = stem.split(':').next() == Some(package);
        match (mine, kind) {
            (true, "list") => own.extend(listed(tree, &path)?),
            (false, "list") => others.extend(listed(tree, &path)?),
            _ => {}
        }
        if mine {
            records.push(path);
        }
    }
    // The links of merged /usr and of /run are nobody's, though packages list folders of these names.
    own.retain(|path| path.contains('/') && !RUN_LINKS.iter().any(|(link, _)| link == path));
    // What is in a folder goes before the folder.
    own.sort_by(|one, other| other.cmp(one));
    for path in own.iter().filter(|path| !others.contains(*path)).chain(&records) {
        tree.remove(path);
    }
    let status = tree.read("var/lib/dpkg/status")?.unwrap_or_default();
    let first = format!("Package: {package}\n");
    let text = String::from_utf8_lossy(&status);
    let stanzas = text.split_inclusive("\n\n").filter(|stanza| !stanza.starts_with(&first));
    tree.write("var/lib/dpkg/status", stanzas.collect::<String>(), 0o644);
    Ok(())
}

/// Records a package in dpkg's database (dpkg-query(1), deb-md5sums(5)) and gives its stanza of `status`.
pub fn record(tree: &mut Tree, package: &Package, unpacked: &Unpacked) -> Result<String, PackageProblem> {
    let control = unpacked.control.iter().find(|(name, _)| name == "control");
    let (_, control) = control.ok_or(PackageProblem::Member("control file"))?;
    let control = String::from_utf8_lossy(control);
    // Packages that can be there for several architectures have the architecture in their files' names.
    let fields = paragraph(&control).ok_or(PackageProblem::Member("control paragraph"))?;
    let same = fields.line("Multi-Arch") == Some("same");
    let stem = if same { format!("{}:{}", package.name, package.architecture) } else { package.name.clone() };
    let info = |kind: &str| format!("var/lib/dpkg/info/{stem}.{kind}");
    let mut list = String::from("/.\n");
    for (path, _) in unpacked.entries.iter().filter(|(path, _)| !path.is_empty()) {
        list.push_str(&format!("/{path}\n"));
    }
    tree.write(&info("list"), list, 0o644);
    for (name, bytes) in unpacked.control.iter().filter(|(name, _)| name != "control") {
        let script = matches!(name.as_str(), "preinst" | "postinst" | "prerm" | "postrm" | "config");
        tree.write(&info(name), bytes.clone(), if script { 0o755 } else { 0o644 });
    }
    let mut stanza = String::new();
    for line in control.lines().filter(|line| !line.is_empty()) {
        stanza.push_str(line);
        stanza.push('\n');
        if line.starts_with("Package:") {
            stanza.push_str("Status: install ok installed\n");
        }
    }
    stanza.push_str(&conffiles(unpacked)?);
    stanza.push('\n');
    Ok(stanza)
}

/// The field `Conffiles` of `status`: each configuration file with the MD5 of what the package ships, by which dpkg knows
/// later whether somebody changed it (deb-conffiles(5), dpkg-query(1)).
fn conffiles(unpacked: &Unpacked) -> Result<String, PackageProblem> {
    let mut field = String::new();
    let listed = unpacked.control.iter().find(|(name, _)| name == "conffiles");
    let listed = listed.map(|(_, bytes)| String::from_utf8_lossy(bytes)).unwrap_or_default();
    // A line may begin with a flag, such as `remove-on-upgrade`, which is about a file that the package no longer has.
    for path in listed.lines().filter(|line| line.starts_with('/')) {
        let entry = unpacked.entries.iter().find(|(name, _)| *name == path[1..]);
        let Some((_, Entry { kind: Kind::File(content), .. })) = entry else { continue };
        if field.is_empty() {
            field.push_str("Conffiles:\n");
        }
        field.push_str(&format!(" {path} {}\n", hex::encode(content.md5()?)));
    }
    Ok(field)
}

/// Before the first package: merged /usr, the links to /run, and the folders that a read-only root needs as mount points.
pub fn begin(tree: &mut Tree) {
    for name in ["bin", "sbin", "lib", "lib64"] {
        tree.put(&format!("usr/{name}"), Entry::new(Kind::Folder, 0o755));
        tree.put(name, Entry::new(Kind::Symlink(format!("usr/{name}")), 0o777));
    }
    for folder in ["workspace", "home/agent"] {
        tree.put(folder, Entry::new(Kind::Folder, 0o755).owned(AGENT, AGENT));
    }
    for folder in ["dev", "proc", "sys", "run", "run/secrets", ".sandbox", "etc", "usr/local/bin"] {
        tree.put(folder, Entry::new(Kind::Folder, 0o755));
    }
    for folder in ["run/lock", "tmp", "var/tmp"] {
        tree.put(folder, Entry::new(Kind::Folder, 0o1777));
    }
    for (link, target) in RUN_LINKS {
        tree.put(link, Entry::new(Kind::Symlink((*target).to_owned()), 0o777));
    }
}

/// After the packages of the lowest layer: accounts, the folders of base-files, and dpkg's empty files.
pub fn base(tree: &mut Tree, epoch: u64) -> std::io::Result<()> {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    if let Some(passwd) = tree.read("usr/share/base-passwd/passwd.master")?.map(text) {
        let passwd = passwd.replace(":*:", ":x:") + "agent:x:1000:1000::/home/agent:/bin/bash\n";
        let day = epoch / 86_400;
        let shadow: String = passwd
            .lines()
            .filter_map(|line| Some(format!("{}:*:{day}:0:99999:7:::\n", line.split_once(':')?.0)))
            .collect();
        tree.write("etc/passwd", passwd, 0o644);
        let entry = Entry::new(Kind::File(super::tree::Content::Bytes(shadow.into_bytes().into())), 0o640);
        tree.put("etc/shadow", entry.owned(0, SHADOW));
    }
    if let Some(group) = tree.read("usr/share/base-passwd/group.master")?.map(text) {
        let group = group.replace(":*:", ":x:") + "agent:x:1000:\n";
        let shadow: String =
            group.lines().filter_map(|line| Some(format!("{}:*::\n", line.split_once(':')?.0))).collect();
        tree.write("etc/group", group, 0o644);
        let entry = Entry::new(Kind::File(super::tree::Content::Bytes(shadow.into_bytes().into())), 0o640);
        tree.put("etc/gshadow", entry.owned(0, SHADOW));
    }
    if tree.get("usr/share/base-files").is_some() {
        let absent: Vec<_> = BASE_FOLDERS.iter().filter(|(path, ..)| tree.get(path).is_none()).collect();
        for (path, mode, group) in absent {
            tree.put(path, Entry::new(Kind::Folder, *mode).owned(0, *group));
        }
        for (link, target) in BASE_LINKS {
            tree.put(link, Entry::new(Kind::Symlink((*target).to_owned()), 0o777));
        }
    }
    tree.write("var/lib/dpkg/info/format", "1\n", 0o644);
    tree.write("var/lib/dpkg/available", "", 0o644);
    tree.write("etc/machine-id", "", 0o444);
    tree.write("etc/hostname", "sandbox\n", 0o644);
    Ok(())
}

/// After the packages of any layer: certificates, copied files, and what programs need to be told.
pub fn every(tree: &mut Tree) -> std::io::Result<()> {
    const ROOTS: &str = "usr/share/ca-certificates/";
    let authorities = tree.below(ROOTS).filter(|(path, _)| path.ends_with(".crt"));
    let authorities: Vec<(String, bool)> = authorities.map(|(path, entry)| (path.to_owned(), !entry.below)).collect();
    if authorities.iter().any(|(_, own)| *own) {
        let (mut bundle, mut list) = (Vec::new(), String::new());
        // Those of lower layers are in it too.
        for (path, own) in &authorities {
            let bytes = tree.read(path)?.unwrap_or_default();
            bundle.extend_from_slice(bytes.trim_ascii_end());
            bundle.push(b'\n');
            let name = &path[ROOTS.len()..];
            list.push_str(&format!("{name}\n"));
            let stem = name.rsplit('/').next().unwrap_or(name).trim_end_matches(".crt");
            let link = format!("etc/ssl/certs/{stem}.pem");
            if *own {
                tree.put(&link, Entry::new(Kind::Symlink(format!("/{path}")), 0o777));
            }
        }
        tree.write("etc/ssl/certs/ca-certificates.crt", bundle, 0o644);
        // Without the list a later update-ca-certificates would empty the bundle.
        tree.write("etc/ca-certificates.conf", list, 0o644);
        // OpenSSL looks here before it looks for links that are named by hashes, which would need a parser of X.509.
        let bundle = Kind::Symlink("/etc/ssl/certs/ca-certificates.crt".into());
        tree.put("usr/lib/ssl/cert.pem", Entry::new(bundle, 0o777));
        // For authorities that a Dockerfile adds.
        tree.put("usr/local/share/ca-certificates", Entry::new(Kind::Folder, 0o755));
    }
    for (from, to) in COPIES {
        if tree.get(from).is_some_and(|entry| !entry.below)
            && let Some(bytes) = tree.read(from)?
        {
            tree.write(to, bytes, 0o644);
        }
    }
    // What Debian's package of time zones takes when nobody is asked.
    const ZONE: &str = "usr/share/zoneinfo/Etc/UTC";
    if tree.get(ZONE).is_some_and(|entry| !entry.below) && tree.get("etc/localtime").is_none() {
        tree.put("etc/localtime", Entry::new(Kind::Symlink(format!("/{ZONE}")), 0o777));
    }
    python(tree);
    java(tree)?;
    git_lfs(tree)?;
    php::enable(tree)
}

/// Where Debian's Python looks for what an administrator installs.
fn python(tree: &mut Tree) {
    const PROGRAM: &str = "usr/bin/python3.";
    let own = tree.below(PROGRAM).filter(|(_, entry)| !entry.below && matches!(entry.kind, Kind::File(_)));
    let minors: Vec<String> = own.map(|(path, _)| path[PROGRAM.len()..].to_owned()).collect();
    for minor in minors.iter().filter(|minor| minor.bytes().all(|byte| byte.is_ascii_digit())) {
        let folder = format!("usr/local/lib/python3.{minor}/dist-packages");
        tree.put(&folder, Entry::new(Kind::Folder, 0o755));
    }
}

/// The trust store of Java's, which ca-certificates-java makes by a program in Java.
fn java(tree: &mut Tree) -> std::io::Result<()> {
    const BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";
    let (java, bundle) = (tree.get("usr/share/ca-certificates-java"), tree.get(BUNDLE));
    let own = java.is_some() && [java, bundle].into_iter().flatten().any(|entry| !entry.below);
    if own && let Some(bundle) = tree.read(BUNDLE)? {
        tree.write("etc/ssl/certs/java/cacerts", truststore::store(&String::from_utf8_lossy(&bundle)), 0o644);
    }
    Ok(())
}

/// What `git lfs install --system` writes (git-lfs-install(1)).
fn git_lfs(tree: &mut Tree) -> std::io::Result<()> {
    const FILTER: &str = "[filter \"lfs\"]\n\tclean = git-lfs clean -- %f\n\tsmudge = git-lfs smudge -- %f\n\
                          \tprocess = git-lfs filter-process\n\trequired = true\n";
    if tree.get("usr/bin/git-lfs").is_some_and(|entry| !entry.below) {
        let mut text = tree.read("etc/gitconfig")?.unwrap_or_default();
        text.extend_from_slice(FILTER.as_bytes());
        tree.write("etc/gitconfig", text, 0o644);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::tree::Content;

    #[test]
    fn a_name_with_a_star_is_for_any_version_and_for_nothing_else() {
        assert!(is_of("python3.*-venv", "python3.13-venv") && is_of("less", "less"));
        for other in ["python3.-venv", "python3.x-venv", "python3.13-venv-x", "python3.13", "python3.1-1-venv"] {
            assert!(!is_of("python3.*-venv", other), "{other}");
        }
    }

    #[test]
    fn a_script_that_debhelper_wrote_is_known_by_its_marks_and_any_other_line_makes_it_unknown() {
        let part = |tool: &str| {
            format!("# Automatically added by {tool}\nif x; then\n\tdo it\nfi\n# End automatically added section\n")
        };
        let script = |rest: &str| format!("#!/bin/sh\nset -e\n\n{rest}\nexit 0\n");
        assert!(generated(&script(&(part("dh_python3") + &part("dh_installdeb/13.11.4")))));
        assert!(!generated(&script(&part("dh_unknown"))));
        assert!(!generated(&script(&(part("dh_python3") + "rm -rf /\n"))));
        assert!(!generated(&script("# Automatically added by dh_python3\nrm -rf /\n")));
        assert!(!generated(&script(&part("dh_python3").replace("do it", "# Automatically added by dh_python3"))));
    }

    #[test]
    fn authorities_of_a_base_stay_when_a_layer_brings_more() {
        const BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("base");
        let mut base = Tree::default();
        base.write("usr/share/ca-certificates/mozilla/one.crt", "one\n", 0o644);
        base.put("usr/share/ca-certificates-java", Entry::new(Kind::Folder, 0o755));
        every(&mut base).unwrap();
        base.layer(&mut std::fs::File::create(&path).unwrap(), 7).unwrap();
        let mut upper = Tree::default();
        upper.add_layer(&path).unwrap();
        every(&mut upper).unwrap();
        assert!(upper.get(BUNDLE).unwrap().below, "nothing is new");
        upper.write("usr/share/ca-certificates/company/root.crt", "root", 0o644);
        every(&mut upper).unwrap();
        assert_eq!(upper.read(BUNDLE).unwrap().unwrap(), b"root\none\n");
        assert_eq!(upper.read("etc/ca-certificates.conf").unwrap().unwrap(), b"company/root.crt\nmozilla/one.crt\n");
        assert!(
            upper.get("etc/ssl/certs/one.pem").unwrap().below && !upper.get("etc/ssl/certs/root.pem").unwrap().below
        );
        assert!(!upper.get("etc/ssl/certs/java/cacerts").unwrap().below);
    }

    #[test]
    fn a_package_is_forgotten_with_its_files_but_not_with_those_of_others() {
        let mut tree = Tree::default();
        tree.put("lib", Entry::new(Kind::Symlink("usr/lib".into()), 0o777));
        for path in ["usr/lib/a/own", "usr/lib/shared", "etc/a.conf"] {
            tree.write(path, "x", 0o644);
        }
        tree.write("var/lib/dpkg/info/a:amd64.list", "/.\n/lib\n/lib/a\n/lib/a/own\n/lib/shared\n/etc/a.conf\n", 0o644);
        tree.write("var/lib/dpkg/info/a:amd64.md5sums", "", 0o644);
        tree.write("var/lib/dpkg/info/ab.list", "/.\n/usr/lib/shared\n", 0o644);
        tree.write("var/lib/dpkg/status", "Package: a\nVersion: 1\n\nPackage: ab\nVersion: 1\n\n", 0o644);
        forget(&mut tree, "a").unwrap();
        let left: Vec<_> = tree.below("").map(|(path, _)| path).filter(|path| path.contains(['.', 's'])).collect();
        let expected = ["usr", "usr/lib", "usr/lib/shared", "var/lib/dpkg/info/ab.list", "var/lib/dpkg/status"];
        assert_eq!(left, expected);
        assert_eq!(tree.read("var/lib/dpkg/status").unwrap().unwrap(), b"Package: ab\nVersion: 1\n\n");
    }

    #[test]
    fn the_status_has_the_configuration_files_that_a_package_ships_with_their_digests() {
        let file = |text: &str| Entry::new(Kind::File(Content::Bytes(text.as_bytes().into())), 0o644);
        let conffiles = b"/etc/bash.bashrc\nremove-on-upgrade /etc/old\n/etc/absent\n".to_vec();
        let unpacked = Unpacked {
            control: vec![("conffiles".to_owned(), conffiles)],
            entries: vec![("etc/bash.bashrc".to_owned(), file("hello\n")), ("etc/old".to_owned(), file("x"))],
        };
        // md5sum of "hello\n".
        let expected = "Conffiles:\n /etc/bash.bashrc b1946ac92492d2347c6235b4d2611184\n";
        assert_eq!(super::conffiles(&unpacked).unwrap(), expected);
        let none = Unpacked { control: Vec::new(), entries: Vec::new() };
        assert_eq!(super::conffiles(&none).unwrap(), "");
    }
}
