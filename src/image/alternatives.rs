//! Alternatives of Debian: which of several packages' programs has a name (update-alternatives(1)).
//!
//! The calls are read out of the packages' own scripts, of which nothing is run: lines with words, variables that were
//! given words before, and loops over words. Conditions are not weighed: a call counts where its program is there. A call in
//! any other form is refused, with the package that has it, and so is one with a variable that is set in any other form.
//! Kept is what `update-alternatives` keeps, so that it goes on from there.

use std::collections::{BTreeMap, BTreeSet};

use super::tree::{self, Entry, Kind, Tree};

/// Where `update-alternatives` keeps one file a name (update-alternatives(1), "FILES").
const RECORDS: &str = "var/lib/dpkg/alternatives/";
/// Where the links are that others lead to.
const LINKS: &str = "etc/alternatives/";
/// Calls that one script makes; a package of many tools has some dozens.
const CALLS: usize = 1000;
/// Lines of one script that are read, each time that a loop comes to it.
const TURNS: usize = 10_000;
/// Bytes that a variable or a line of a script may come to.
const TEXT: usize = 1 << 16;

/// One call of `update-alternatives --install`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alternative {
    /// The name that packages share.
    name: String,
    /// Where people look for it, from the root.
    link: String,
    /// What is to be found there, from the root.
    path: String,
    /// Of several the one with the highest is taken.
    priority: i32,
    /// By their names, what goes with it: link and path.
    slaves: BTreeMap<String, (String, String)>,
}

/// A call that cannot be read without a shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreadable;

/// The calls that a package's postinst makes when the package is new.
///
/// # Errors
/// When there is one whose words only a shell can tell.
pub fn calls(package: &str, postinst: &str) -> Result<Vec<Alternative>, Unreadable> {
    match package {
        // Its script has a function write the words.
        "xz-utils" => return Ok(vec![lzma()]),
        // It offers programs of names that they have on other kernels alone.
        "procps" => return Ok(Vec::new()),
        _ if !postinst.contains("update-alternatives") => return Ok(Vec::new()),
        _ => {}
    }
    let joined = postinst.replace("\\\r\n", " ").replace("\\\n", " ");
    let lines: Vec<&str> = joined.lines().map(str::trim).filter(|line| !line.starts_with('#')).collect();
    let mut reader = Reader { set: set(&lines), ..Reader::default() };
    reader.run(&lines, 0)?;
    Ok(reader.found)
}

/// What the postinst of xz-utils calls.
fn lzma() -> Alternative {
    let mut slaves = BTreeMap::new();
    let tools = ["cat", "more", "less", "diff", "cmp", "grep", "egrep", "fgrep"];
    let pairs = tools.iter().map(|tool| (format!("lz{tool}"), format!("xz{tool}")));
    for (name, target) in pairs.chain([("unlzma".to_owned(), "unxz".to_owned())]) {
        let page = |name: &str| format!("usr/share/man/man1/{name}.1.gz");
        slaves.insert(format!("{name}.1.gz"), (page(&name), page(&target)));
        slaves.insert(name.clone(), (format!("usr/bin/{name}"), format!("usr/bin/{target}")));
    }
    let page = |name: &str| format!("usr/share/man/man1/{name}.1.gz");
    slaves.insert("lzma.1.gz".to_owned(), (page("lzma"), page("xz")));
    Alternative {
        name: "lzma".to_owned(),
        link: "usr/bin/lzma".to_owned(),
        path: "usr/bin/xz".to_owned(),
        priority: 20,
        slaves,
    }
}

#[derive(Default)]
struct Reader {
    /// Variables; `None` for one that only ever had what a command said.
    variables: BTreeMap<String, Option<String>>,
    /// Names of all variables that the script sets somewhere, in whatever form.
    set: BTreeSet<String>,
    /// Lines read so far.
    turns: usize,
    found: Vec<Alternative>,
}

impl Reader {
    fn run(&mut self, lines: &[&str], depth: usize) -> Result<(), Unreadable> {
        let mut index = 0;
        while let Some(line) = lines.get(index) {
            index += 1;
            self.turns += 1;
            if self.turns > TURNS {
                return Err(Unreadable);
            }
            if let Some((name, words)) = line.strip_prefix("for ").and_then(|rest| rest.split_once(" in ")) {
                if words.contains("done") {
                    // All in one line.
                    if words.contains("update-alternatives") {
                        return Err(Unreadable);
                    }
                    continue;
                }
                let end = index + block(&lines[index..]).ok_or(Unreadable)?;
                let body = &lines[index..end];
                index = end + 1;
                // Only loops with a call in them need be understood.
                if !body.iter().any(|line| line.contains("update-alternatives") && line.contains("--install")) {
                    continue;
                }
                let words = words.trim_end_matches("do").trim_end().trim_end_matches(';');
                if depth > 2 {
                    return Err(Unreadable);
                }
                for word in self.words(words)? {
                    self.variables.insert(name.trim().to_owned(), Some(word));
                    self.run(body, depth + 1)?;
                }
            } else if let Some((name, value)) = line.split_once('=').filter(|(name, _)| is_name(name)) {
                self.assign(name, value)?;
            } else if calls_by_variable(line) {
                return Err(Unreadable);
            } else if line.contains("update-alternatives") && line.contains("--install") {
                self.call(line)?;
            }
        }
        Ok(())
    }

    /// Notes a variable. What a command says is not known, so a value from before stays: scripts correct one so for
    /// packages of a second architecture.
    fn assign(&mut self, name: &str, value: &str) -> Result<(), Unreadable> {
        let asked = value.contains("$(") || value.contains('`');
        if !asked && value.contains("update-alternatives") {
            return Err(Unreadable);
        }
        let words = shlex::split(value.trim_end().trim_end_matches(';')).filter(|_| !asked).unwrap_or_default();
        let ends = |word: &str| matches!(word, "&&" | "||" | "|" | "&" | ";");
        // What a variable in it holds is one word here, whatever is in it.
        let value = match &words[..] {
            [] if asked => Err(Unreadable),
            [] => Ok(String::new()),
            [word] => self.expanded(word),
            [first, next, ..] if first.ends_with(';') || ends(next) => {
                self.variables.insert(name.to_owned(), None);
                return Ok(());
            }
            // Variables for one command alone.
            _ => return Ok(()),
        };
        match value {
            Ok(value) => drop(self.variables.insert(name.to_owned(), Some(value))),
            Err(Unreadable) => drop(self.variables.entry(name.to_owned()).or_insert(None)),
        }
        Ok(())
    }

    /// The words of a text with the variables in it, as a shell takes it apart.
    fn words(&self, text: &str) -> Result<Vec<String>, Unreadable> {
        shlex::split(&self.expanded(text)?).ok_or(Unreadable)
    }

    fn expanded(&self, text: &str) -> Result<String, Unreadable> {
        let mut result = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            result.push_str(before);
            let (name, after) = match after.strip_prefix('{') {
                Some(inner) => inner.split_once('}').ok_or(Unreadable)?,
                None => after.split_at(after.find(|c: char| !is_word(c)).unwrap_or(after.len())),
            };
            if !is_name(name) {
                return Err(Unreadable);
            }
            match self.variables.get(name) {
                Some(Some(value)) => result.push_str(value),
                Some(None) => return Err(Unreadable),
                None if self.set.contains(name) => return Err(Unreadable),
                // One that nobody sets is empty.
                None => {}
            }
            if result.len() > TEXT {
                return Err(Unreadable);
            }
            rest = after;
        }
        result.push_str(rest);
        if result.len() > TEXT || result.contains('`') { Err(Unreadable) } else { Ok(result) }
    }

    fn call(&mut self, line: &str) -> Result<(), Unreadable> {
        let line = line.strip_prefix("update-alternatives").ok_or(Unreadable)?;
        let words = self.words(line)?;
        let ends = |word: &String| matches!(word.as_str(), "||" | "&&" | ";" | "|" | "&") || word.contains(['<', '>']);
        let mut words = words.into_iter().take_while(|word| !ends(word)).skip_while(|word| word == "--quiet");
        let mut word = || words.next().ok_or(Unreadable);
        if word()? != "--install" {
            return Err(Unreadable);
        }
        let mut alternative = Alternative {
            link: place(&word()?)?,
            name: named(word()?)?,
            path: place(&word()?)?,
            priority: word()?.parse().map_err(|_| Unreadable)?,
            slaves: BTreeMap::new(),
        };
        while let Ok(option) = word() {
            if option != "--slave" {
                return Err(Unreadable);
            }
            let (link, name, path) = (place(&word()?)?, named(word()?)?, place(&word()?)?);
            alternative.slaves.insert(name, (link, path));
        }
        if self.found.len() >= CALLS {
            return Err(Unreadable);
        }
        self.found.push(alternative);
        Ok(())
    }
}

/// The names of variables that a script gives values in any form: alone, after `export` or `&&`, by `read` or by a loop.
fn set(lines: &[&str]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for line in lines {
        let mut words = line.split(|c: char| c.is_whitespace() || ";&|(){}\"'".contains(c)).peekable();
        while let Some(word) = words.next() {
            match word {
                "for" => names.extend(words.peek().map(|name| (*name).to_owned())),
                "read" | "getopts" => names.extend(words.clone().map(str::to_owned)),
                _ => names.extend(word.split_once('=').map(|(name, _)| name.trim_end_matches('+').to_owned())),
            }
        }
    }
    names.retain(|name| is_name(name));
    names
}

/// Whether a line calls for something that a variable says.
fn calls_by_variable(line: &str) -> bool {
    line.split("update-alternatives").skip(1).any(|rest| {
        let rest = rest.trim_start();
        let rest = rest.strip_prefix("--quiet").unwrap_or(rest).trim_start();
        rest.trim_start_matches('"').starts_with('$')
    })
}

/// The number of lines before the one with the `done` of a loop.
fn block(lines: &[&str]) -> Option<usize> {
    let mut depth = 0_usize;
    lines.iter().position(|line| {
        for statement in line.split(';').map(str::trim_start) {
            match statement.split(char::is_whitespace).next().unwrap_or_default() {
                "for" | "while" | "until" => depth += 1,
                "done" if depth == 0 => return true,
                "done" => depth -= 1,
                _ => {}
            }
        }
        false
    })
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Whether a text can be the name of a variable.
fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && text.chars().all(is_word)
}

/// The name of an alternative: one part of a path (update-alternatives(1) takes any but with a slash or white space).
fn named(word: String) -> Result<String, Unreadable> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._+-".contains(c);
    let fine = !word.is_empty() && word.len() < 200 && !word.starts_with('.') && word.chars().all(plain);
    if fine { Ok(word) } else { Err(Unreadable) }
}

/// An absolute path without white space, as one from the root.
fn place(word: &str) -> Result<String, Unreadable> {
    let path = word.strip_prefix('/').filter(|path| !path.contains(|c: char| c.is_whitespace() || c.is_control()));
    tree::clean(path.ok_or(Unreadable)?).ok().filter(|path| !path.is_empty()).ok_or(Unreadable)
}

/// What is kept of one name.
#[derive(Debug, Default, PartialEq, Eq)]
struct Record {
    /// Somebody has chosen, so nothing else changes the links.
    manual: bool,
    link: String,
    /// Links by their names.
    slaves: BTreeMap<String, String>,
    /// By their paths: the priority, and the paths of slaves by name.
    choices: BTreeMap<String, (i32, BTreeMap<String, String>)>,
}

impl Record {
    /// Reads what [`Record::text`] or `update-alternatives` wrote; `None` when it is not of this form.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let rooted = |path: &str| path.strip_prefix('/').map(str::to_owned);
        let manual = match lines.next()? {
            "auto" => false,
            "manual" => true,
            _ => return None,
        };
        let mut record = Self { manual, link: rooted(lines.next()?)?, ..Self::default() };
        loop {
            match lines.next()? {
                "" => break,
                name => drop(record.slaves.insert(name.to_owned(), rooted(lines.next()?)?)),
            }
        }
        loop {
            match lines.next()? {
                "" => return Some(record),
                path => {
                    let priority = lines.next()?.parse().ok()?;
                    let mut slaves = BTreeMap::new();
                    for name in record.slaves.keys() {
                        if let Some(path) = rooted(lines.next()?) {
                            slaves.insert(name.clone(), path);
                        }
                    }
                    record.choices.insert(rooted(path)?, (priority, slaves));
                }
            }
        }
    }

    fn text(&self) -> String {
        let mut text = format!("{}\n/{}\n", if self.manual { "manual" } else { "auto" }, self.link);
        for (name, link) in &self.slaves {
            text.push_str(&format!("{name}\n/{link}\n"));
        }
        text.push('\n');
        for (path, (priority, slaves)) in &self.choices {
            text.push_str(&format!("/{path}\n{priority}\n"));
            for name in self.slaves.keys() {
                let path = slaves.get(name).map(|path| format!("/{path}")).unwrap_or_default();
                text.push_str(&format!("{path}\n"));
            }
        }
        text.push('\n');
        text
    }
}

/// Makes the links of alternatives and keeps them, beside those of lower layers.
///
/// # Errors
/// When what is kept cannot be read.
pub fn install(tree: &mut Tree, calls: Vec<Alternative>) -> std::io::Result<()> {
    for call in calls {
        if !exists(tree, &call.path) {
            continue;
        }
        let file = format!("{RECORDS}{}", call.name);
        let former = tree.read(&file)?.and_then(|bytes| Record::parse(&String::from_utf8_lossy(&bytes)));
        let mut record = former.unwrap_or_default();
        record.link = call.link;
        let mut own = BTreeMap::new();
        for (name, (link, path)) in call.slaves {
            record.slaves.insert(name.clone(), link);
            own.insert(name, path);
        }
        record.choices.insert(call.path, (call.priority, own));
        tree.write(&file, record.text(), 0o644);
        choose(tree, &call.name, &record);
    }
    Ok(())
}

/// Has the links of a name lead to the choice of the highest priority, and takes those slaves away that it does not have.
fn choose(tree: &mut Tree, name: &str, record: &Record) {
    let present = record.choices.iter().filter(|(path, _)| exists(tree, path));
    // Of two that are equal the first one.
    let best = present.rev().max_by_key(|(_, (priority, _))| *priority);
    let Some((path, (_, slaves))) = best.filter(|_| !record.manual) else { return };
    link(tree, name, &record.link, path);
    for (name, place) in &record.slaves {
        match slaves.get(name).filter(|path| exists(tree, path)) {
            Some(path) => link(tree, name, place, path),
            None if tree.get(&format!("{LINKS}{name}")).is_some() => {
                tree.remove(&format!("{LINKS}{name}"));
                let place = tree.locate(place).unwrap_or_else(|_| place.clone());
                tree.remove(&place);
            }
            None => {}
        }
    }
}

fn link(tree: &mut Tree, name: &str, place: &str, path: &str) {
    let Ok(located) = tree.locate(place) else { return };
    // A file of somebody else's stays.
    if tree.get(&located).is_some_and(|entry| !matches!(entry.kind, Kind::Symlink(_))) {
        return;
    }
    for (at, target) in [(format!("{LINKS}{name}"), format!("/{path}")), (located, format!("/{LINKS}{name}"))] {
        let there = tree.get(&at).is_some_and(|entry| matches!(&entry.kind, Kind::Symlink(old) if *old == target));
        if !there {
            tree.put(&at, Entry::new(Kind::Symlink(target), 0o777));
        }
    }
}

/// Whether there is something at a path; links of folders on the way are followed.
fn exists(tree: &Tree, path: &str) -> bool {
    tree.locate(path).is_ok_and(|path| tree.get(&path).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str) -> Alternative {
        calls("a", line).unwrap().remove(0)
    }

    fn leads(tree: &Tree, path: &str) -> Option<String> {
        match &tree.get(path)?.kind {
            Kind::Symlink(target) => Some(target.clone()),
            _ => None,
        }
    }

    #[test]
    fn calls_are_read_with_their_variables_loops_and_slaves() {
        let script = "#!/bin/sh\nset -e\nbase=/usr/lib/x\npriority=17\ntools='a b'\n# update-alternatives --install no\n\
                      if [ \"$2\" ]; then\n  priority=$(expr $priority - 1)\nfi\nfor i in $tools; do\n\
                      slave=\"--slave \\\n /usr/share/man/$i.1 \\\n  $i.1 $base/$i.1\"\n\
                      update-alternatives \\\n  --quiet --install /usr/bin/$i ${i} $base/bin/$i $priority $slave $none\n\
                      done\nupdate-alternatives --install /bin/c c \"/usr/bin/c d\" 5 || true\n";
        assert_eq!(calls("x", script), Err(Unreadable), "a path with a space");
        let found = calls("x", &script.replace("\"/usr/bin/c d\"", "/usr/bin/cd")).unwrap();
        assert_eq!(found.len(), 3);
        let slave = ("usr/share/man/b.1".to_owned(), "usr/lib/x/b.1".to_owned());
        let b = Alternative {
            name: "b".to_owned(),
            link: "usr/bin/b".to_owned(),
            path: "usr/lib/x/bin/b".to_owned(),
            priority: 17,
            slaves: BTreeMap::from([("b.1".to_owned(), slave)]),
        };
        assert_eq!(found[1], b);
        assert_eq!(found[2].path, "usr/bin/cd");
    }

    #[test]
    fn loops_without_calls_are_passed_over_however_they_end() {
        let script = "for link in /a /b; do\n  if [ -L $link ]; then\n    if ! ls $(readlink $link); then\n\
                      rm $link; fi; fi; done\nfor a in b; do echo $(date); done\n\
                      update-alternatives --install /usr/bin/a a /usr/bin/b 5\n";
        assert_eq!(calls("x", script).unwrap().len(), 1);
    }

    #[test]
    fn what_only_a_shell_can_tell_is_refused() {
        for line in [
            "update-alternatives --install /usr/bin/$1 a /usr/bin/b 5",
            "update-alternatives --install /usr/bin/a a $(which b) 5",
            "update-alternatives --install /usr/bin/a a `which b` 5",
            "p=$(which b)\nupdate-alternatives --install /usr/bin/a a $p 5",
            "test -x b && update-alternatives --install /usr/bin/a a /usr/bin/b 5",
            "update-alternatives --install /usr/bin/a a /usr/bin/b",
            "update-alternatives --install /usr/bin/a a /usr/bin/b five",
            "update-alternatives --install /usr/bin/a ../a /usr/bin/b 5",
            "update-alternatives --install /usr/../a a /usr/bin/b 5",
            "update-alternatives --install usr/a a /usr/bin/b 5",
            "for i in a b; do\nupdate-alternatives --install /usr/bin/$i $i /usr/lib/$i 5\n",
            "export b=/x\nupdate-alternatives --install /usr/bin/a a $b/usr/bin/b 5",
            "if true; then b=/x; fi\nupdate-alternatives --install /usr/bin/a a $b/usr/bin/b 5",
            "[ x ] || b=/x\nupdate-alternatives --install /usr/bin/a a $b/usr/bin/b 5",
            "b=/x; c=5\nupdate-alternatives --install /usr/bin/a a $b/usr/bin/b 5",
            "b=/x; c=5\nupdate-alternatives --install /usr/bin/a a /usr/bin/b $c",
            "b=/x && true\nupdate-alternatives --install /usr/bin/a a $b/usr/bin/b 5",
            "read -r b\nupdate-alternatives --install /usr/bin/a a $b/usr/bin/b 5",
            "action=--install\nupdate-alternatives $action /usr/bin/a a /usr/bin/b 5",
            "update-alternatives --quiet \"$@\"",
            "x=update-alternatives\n$x --install /usr/bin/a a /usr/bin/b 5",
        ] {
            assert_eq!(calls("x", line), Err(Unreadable), "{line}");
        }
        assert_eq!(calls("x", "update-alternatives --remove a /usr/bin/b"), Ok(Vec::new()));
    }

    #[test]
    fn a_variable_in_a_variable_is_as_it_was() {
        let script = "tools='a b'\nlist=$tools\nbase=/usr;\nfor i in $list; do\nupdate-alternatives --install \
                      /bin/$i $i $base/bin/$i 5\ndone\n";
        let found = calls("x", script).unwrap();
        assert_eq!(found.iter().map(|call| call.path.as_str()).collect::<Vec<_>>(), ["usr/bin/a", "usr/bin/b"]);
    }

    #[test]
    fn loops_in_loops_end_at_a_limit() {
        let words = (0..99).map(|word| word.to_string()).collect::<Vec<_>>().join(" ");
        let head = format!("for a in {words}; do\nfor b in {words}; do\nfor c in {words}; do\n");
        let script = format!("{head}x=$x$c\n# update-alternatives --install\ntrue update-alternatives # --install\n");
        assert_eq!(calls("x", &format!("{script}done\ndone\ndone\n")), Err(Unreadable));
        let long = format!("x={}\nupdate-alternatives --install /a a /b $x", "5".repeat(TEXT + 1));
        assert_eq!(calls("x", &long), Err(Unreadable));
    }

    #[test]
    fn the_preferred_one_wins_also_in_a_higher_layer_and_its_record_is_what_debian_writes() {
        let mut tree = Tree::default();
        for path in ["usr/bin/mawk", "usr/share/man/man1/mawk.1.gz"] {
            tree.write(path, "m", 0o755);
        }
        let mawk = one("update-alternatives --install /usr/bin/awk awk /usr/bin/mawk 5 --slave \
                        /usr/share/man/man1/awk.1.gz awk.1.gz /usr/share/man/man1/mawk.1.gz --slave /usr/bin/nawk nawk \
                        /usr/bin/mawk");
        install(&mut tree, vec![mawk]).unwrap();
        assert_eq!(leads(&tree, "usr/bin/awk").unwrap(), "/etc/alternatives/awk");
        assert_eq!(leads(&tree, "etc/alternatives/awk").unwrap(), "/usr/bin/mawk");
        assert_eq!(leads(&tree, "etc/alternatives/awk.1.gz").unwrap(), "/usr/share/man/man1/mawk.1.gz");
        let record = tree.read("var/lib/dpkg/alternatives/awk").unwrap().unwrap();
        let expected = "auto\n/usr/bin/awk\nawk.1.gz\n/usr/share/man/man1/awk.1.gz\nnawk\n/usr/bin/nawk\n\n\
                        /usr/bin/mawk\n5\n/usr/share/man/man1/mawk.1.gz\n/usr/bin/mawk\n\n";
        assert_eq!(String::from_utf8(record).unwrap(), expected);

        let gawk = one("update-alternatives --install /usr/bin/awk awk /usr/bin/gawk 10");
        install(&mut tree, vec![gawk.clone()]).unwrap();
        assert_eq!(leads(&tree, "etc/alternatives/awk").unwrap(), "/usr/bin/mawk", "gawk is not there");
        tree.write("usr/bin/gawk", "g", 0o755);
        install(&mut tree, vec![gawk]).unwrap();
        assert_eq!(leads(&tree, "etc/alternatives/awk").unwrap(), "/usr/bin/gawk");
        // It has no page and no nawk.
        assert!(leads(&tree, "etc/alternatives/awk.1.gz").is_none() && leads(&tree, "usr/bin/nawk").is_none());
        let lower = one("update-alternatives --install /usr/bin/awk awk /usr/bin/mawk 5");
        install(&mut tree, vec![lower]).unwrap();
        assert_eq!(leads(&tree, "etc/alternatives/awk").unwrap(), "/usr/bin/gawk");
    }

    #[test]
    fn foreign_files_and_choices_by_hand_stay() {
        let mut tree = Tree::default();
        tree.write("usr/bin/cc", "a compiler of somebody else's", 0o755);
        tree.write("usr/bin/gcc", "g", 0o755);
        let gcc = one("update-alternatives --install /usr/bin/cc cc /usr/bin/gcc 20");
        install(&mut tree, vec![gcc]).unwrap();
        assert!(matches!(tree.get("usr/bin/cc").unwrap().kind, Kind::File(_)));
        assert!(tree.get("etc/alternatives/cc").is_none());

        let record = Record::parse("manual\n/usr/bin/vi\n\n/usr/bin/vim\n30\n\n").unwrap();
        tree.write("usr/bin/vim", "v", 0o755);
        choose(&mut tree, "vi", &record);
        assert!(tree.get("etc/alternatives/vi").is_none());
    }

    proptest::proptest! {
        #[test]
        fn a_record_is_read_as_it_was_written(
            choices in proptest::collection::btree_map("[a-z/]{1,9}", (-5..99_i32, proptest::bool::ANY), 0..4),
            manual: bool,
        ) {
            let slaves = BTreeMap::from([("a.1".to_owned(), "usr/a.1".to_owned())]);
            let with = |path: &str| BTreeMap::from([("a.1".to_owned(), format!("{path}.1"))]);
            let choices = choices.into_iter().map(|(path, (priority, slave))| {
                let own = if slave { with(&path) } else { BTreeMap::new() };
                (path, (priority, own))
            });
            let record = Record { manual, link: "usr/bin/a".to_owned(), slaves, choices: choices.collect() };
            proptest::prop_assert_eq!(Record::parse(&record.text()), Some(record));
        }

        #[test]
        fn no_script_makes_the_reader_fail_or_leave_the_root(script in "(update-alternatives --install|for|in|do|done|[a-z/$ =;.\\\\\n\"'{}-]){0,40}") {
            for call in calls("x", &script).unwrap_or_default() {
                proptest::prop_assert!(!call.path.starts_with('/') && !call.link.split('/').any(|part| part == ".."));
            }
        }
    }
}
