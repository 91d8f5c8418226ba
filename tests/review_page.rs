//! The page of `sandbox review` in a real browser, with commits that a sandbox made to take it over.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is wrong")]

mod support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use support::{Home, Project, text};

/// A server on loopback that counts who comes.
struct Trap {
    address: String,
    visits: Arc<AtomicUsize>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Trap {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let trap = Self {
            address: format!("127.0.0.1:{}", listener.local_addr().unwrap().port()),
            visits: Arc::default(),
            asked: Arc::default(),
        };
        let (visits, asked) = (trap.visits.clone(), trap.asked.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                visits.fetch_add(1, Ordering::SeqCst);
                let asked = asked.clone();
                // A browser opens connections ahead and asks nothing on them for a minute.
                std::thread::spawn(move || {
                    let mut head = [0; 512];
                    let count = stream.read(&mut head).unwrap_or_default();
                    asked.lock().unwrap().push(String::from_utf8_lossy(&head[..count]).into_owned());
                    let _ = stream.write_all(b"HTTP/1.1 404 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                });
            }
        });
        trap
    }

    fn visits(&self) -> usize {
        self.visits.load(Ordering::SeqCst)
    }
}

/// What a browser makes of a page: its document as it is in the end.
fn opened(page: &Path) -> String {
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
        .args(["--disable-background-networking", "--virtual-time-budget=4000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("file://{}", page.display()))
        .output()
        .unwrap_or_else(|error| panic!("this test needs `chromium` (Debian package `chromium`): {error}"));
    let document = text(&output.stdout);
    assert!(document.contains("</html>"), "chromium gave no document: {}", text(&output.stderr));
    document
}

fn title(document: &str) -> &str {
    document.split("<title>").nth(1).and_then(|rest| rest.split("</title>").next()).unwrap_or_default()
}

/// Markup that runs or loads in every way that a page has.
fn hostile(trap: &str) -> String {
    format!(
        "</pre></details></style></title><script>document.title='taken'</script>\
         <script src=\"http://{trap}/a.js\"></script><img src=\"http://{trap}/b.png\" onerror=\"document.title='taken'\">\
         <iframe src=\"http://{trap}/c\"></iframe><link rel=\"stylesheet\" href=\"http://{trap}/d.css\">\
         <style>body {{ background: url(http://{trap}/e.png) }}</style><svg onload=\"document.title='taken'\"></svg>"
    )
}

#[test]
fn a_sandboxs_commits_run_nothing_and_load_nothing_in_a_browser() {
    let trap = Trap::new();
    let attack = hostile(&trap.address);
    let home = Home::new();
    // The same markup where nothing stops it: the browser runs it, and the trap sees who comes.
    let control = home.path().join("control.html");
    fs::write(&control, format!("<!DOCTYPE html><html><head><title>x</title></head><body><pre>{attack}</body></html>"))
        .unwrap();
    assert_eq!(title(&opened(&control)), "taken");
    let before = trap.visits();
    assert!(before >= 4, "the trap saw {:?}", trap.asked.lock().unwrap());

    let project = Project::new(&home, "page", "image: agent\ncommand: [bash, -l]\n");
    let empty = home.sandbox().args(["up", project.name(), "--", "true"]).output().unwrap();
    assert!(empty.status.success(), "{}", text(&empty.stderr));
    let page = home.path().join("review.html");
    let review = || {
        let shown = home.sandbox().args(["review", project.name(), "--output"]).arg(&page).output().unwrap();
        assert!(shown.status.success(), "{}{}", text(&shown.stdout), text(&shown.stderr));
        text(&shown.stdout)
    };
    assert!(review().starts_with("no new commit of "));
    let document = opened(&page);
    assert!(document.contains("There is no new commit.") && document.contains("checks of the confinement passed"));

    let script = r#"
        set -e
        mkdir "<script>document.title='taken'<"
        printf '%s\n' "$0" > "<script>document.title='taken'</script>.txt"
        printf '%s\n' "$0" > '<img src=x onerror="document.title=1">.html'
        printf '%s\n' "$0" > $'two\nlines \e[31m\u202e.md'
        git add .
        git -c user.name='Ada&lt;b onclick="x"&gt; &#60;script' commit -qm "$0

A second paragraph: $0
<meta http-equiv=\"refresh\" content=\"0\">

the last line"
    "#;
    let up = home.sandbox().args(["up", project.name(), "--", "bash", "-c", script, &attack]).output().unwrap();
    assert!(up.status.success(), "{}", text(&up.stderr));
    let told = review();
    assert!(told.starts_with("1 commit and 3 changed files"), "{told}");
    assert!(!told.contains('\u{1b}') && !told.contains('\u{202e}'), "{told}");

    let document = opened(&page);
    assert_eq!(title(&document), format!("Review of {} (main)", project.name()));
    assert_eq!(trap.visits(), before, "the page asked for {:?}", trap.asked.lock().unwrap());
    let body = document.split("<body>").nth(1).unwrap();
    for tag in ["<script", "<img", "<iframe", "<link", "<style", "<svg", "<meta", "<b ", "<base", "<a "] {
        assert!(!body.contains(tag), "{tag} is in the page: {body}");
    }
    // As text it is all there: as the file's name, its content, the author, and the message to its end.
    for shown in [
        "&lt;script&gt;document.title='taken'&lt;/script&gt;.txt",
        "&lt;img src=x onerror=",
        // git takes angle brackets out of a name, and leaves what a page could make them of again.
        "Ada&amp;lt;b onclick=\"x\"&amp;gt; &amp;#60;script",
        "A second paragraph: &lt;/pre&gt;",
        "the last line",
        &format!(
            "+&lt;/pre&gt;&lt;/details&gt;&lt;/style&gt;&lt;/title&gt;&lt;script&gt;document.title='taken'&lt;/script&gt;&lt;script src=\"http://{}/a.js\"",
            trap.address
        ),
    ] {
        assert!(body.contains(shown), "{shown} is not in the page: {body}");
    }
}
