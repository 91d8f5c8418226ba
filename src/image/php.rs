//! PHP's modules and settings, which Debian's packages copy and link when they are installed (phpenmod(8)).

use super::tree::{Entry, Kind, Tree};

/// Where each version has a file for each program that PHP is built into.
const PROGRAMS: &str = "usr/lib/php/";
/// The place of a module among others if its file names none.
const PRIORITY: &str = "20";

/// Whether a package's scripts do nothing that counts but what [`enable`] does. Those of the server do more.
pub fn is_known(package: &str) -> bool {
    let Some((version, module)) = package.strip_prefix("php").and_then(|rest| rest.split_once('-')) else {
        return false;
    };
    match version {
        "" => module == "common",
        _ => version.chars().all(|c| c.is_ascii_digit() || c == '.') && !matches!(module, "fpm" | "cgi"),
    }
}

/// Puts the settings of each version and its modules in place, and switches the modules on for each program.
///
/// # Errors
/// When a file of the tree cannot be read.
pub fn enable(tree: &mut Tree) -> std::io::Result<()> {
    let programs: Vec<(String, String)> = tree
        .below(PROGRAMS)
        .filter_map(|(path, _)| path[PROGRAMS.len()..].split_once("/sapi/"))
        .map(|(version, program)| (version.to_owned(), program.to_owned()))
        .collect();
    for (version, program) in &programs {
        let settings = format!("etc/php/{version}/{program}/php.ini");
        let shipped = [
            format!("{PROGRAMS}{version}/php.ini-production.{program}"),
            format!("{PROGRAMS}{version}/php.ini-production"),
        ];
        if tree.get(&settings).is_none()
            && let Some(text) = shipped.iter().find_map(|path| tree.read(path).transpose())
        {
            tree.write(&settings, text?, 0o644);
        }
        for (module, text) in modules(tree, version)? {
            let available = format!("etc/php/{version}/mods-available/{module}.ini");
            let link = format!("etc/php/{version}/{program}/conf.d/{}-{module}.ini", priority(&text));
            if tree.get(&available).is_none() {
                tree.write(&available, text, 0o644);
            }
            if tree.get(&link).is_none() {
                tree.put(&link, Entry::new(Kind::Symlink(format!("/{available}")), 0o777));
            }
        }
    }
    Ok(())
}

/// The modules that packages of a version ship, with their settings.
fn modules(tree: &Tree, version: &str) -> std::io::Result<Vec<(String, String)>> {
    let start = format!("usr/share/php{version}-");
    let mut found = Vec::new();
    for (path, _) in tree.below(&start) {
        let parts: Vec<&str> = path[start.len()..].split('/').collect();
        if let [_, _, file] = parts[..]
            && let Some(module) = file.strip_suffix(".ini")
            && let Some(text) = tree.read(path)?
        {
            found.push((module.to_owned(), String::from_utf8_lossy(&text).into_owned()));
        }
    }
    Ok(found)
}

/// What a line `; priority=NUMBER` says.
fn priority(text: &str) -> &str {
    let values = text.lines().filter_map(|line| line.strip_prefix(';')?.trim().strip_prefix("priority"));
    let mut values = values.filter_map(|rest| rest.trim_start().strip_prefix('=')).map(str::trim);
    values.find(|value| !value.is_empty() && value.chars().all(|c| c.is_ascii_digit())).unwrap_or(PRIORITY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_on_for_every_program_in_their_order() {
        let mut tree = Tree::default();
        tree.write("usr/lib/php/8.2/sapi/cli", "", 0o644);
        tree.write("usr/lib/php/8.2/php.ini-production.cli", "memory_limit = -1\n", 0o644);
        tree.write("usr/share/php8.2-common/common/pdo.ini", "; of common\n; priority=10\nextension=pdo.so\n", 0o644);
        tree.write("usr/share/php8.2-mbstring/mbstring/mbstring.ini", "extension=mbstring.so\n", 0o644);
        enable(&mut tree).unwrap();
        let links: Vec<&str> = tree.below("etc/php/8.2/cli/").map(|(path, _)| path).collect();
        let folder = "etc/php/8.2/cli/";
        let expected =
            ["conf.d", "conf.d/10-pdo.ini", "conf.d/20-mbstring.ini", "php.ini"].map(|name| format!("{folder}{name}"));
        assert_eq!(links, expected);
        assert_eq!(tree.read("etc/php/8.2/cli/php.ini").unwrap().unwrap(), b"memory_limit = -1\n");
        match &tree.get("etc/php/8.2/cli/conf.d/10-pdo.ini").unwrap().kind {
            Kind::Symlink(target) => assert_eq!(target, "/etc/php/8.2/mods-available/pdo.ini"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn servers_and_packages_of_other_names_are_not_known() {
        for known in ["php-common", "php8.2-cli", "php8.4-mbstring"] {
            assert!(is_known(known), "{known}");
        }
        for other in ["php8.2-fpm", "php-cli", "phpmyadmin", "php-x", "libapache2-mod-php8.2", "python3"] {
            assert!(!is_known(other), "{other}");
        }
    }
}
