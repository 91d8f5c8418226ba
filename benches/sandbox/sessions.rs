//! Starting and joining sandboxes, what their programs keep in memory, and many at once.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::measure::{Aim, Quantity, Table, in_turn, median_time, time};
use crate::succeed;
use crate::support::{Home, Project, docker};

/// Sandboxes at one time.
const MANY: usize = 20;

/// What one of the three programs may keep for itself when it has nothing to do.
const MEMORY: Quantity = Quantity::Bytes(10e6);

const MANIFEST: &str = "image: agent\ncommand: [sleep, infinity]\n";

/// A sandbox that runs until it is dropped.
pub(crate) struct Running<'a> {
    home: &'a Home,
    project: Project<'a>,
}

impl<'a> Running<'a> {
    pub(crate) fn start(home: &'a Home, manifest: &str) -> Self {
        let project = Project::new(home, "bench", manifest);
        succeed(home.command().args(["up", project.name(), "--detach"]));
        Self { home, project }
    }

    pub(crate) fn project(&self) -> &str {
        self.project.name()
    }

    pub(crate) fn container(&self, role: &str) -> String {
        format!("sandbox-{}.main-{role}", self.project.name())
    }

    /// The id of the agent's image: the peers run the same.
    pub(crate) fn image(&self) -> String {
        inspect(&self.container("agent"), "{{.Image}}")
    }

    pub(crate) fn exec(&self) -> Command {
        let mut command = self.home.command();
        command.args(["exec", self.project.name(), "--"]);
        command
    }
}

fn inspect(container: &str, format: &str) -> String {
    let output = docker(&["inspect", "--format", format, container]);
    assert!(output.status.success(), "{container}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// One run of a command that prints a line: when the line came, and when the command had ended.
pub(crate) struct Run {
    line: Duration,
    pub(crate) end: Duration,
    /// How long each step took that the launcher told of on standard error.
    pub(crate) steps: Vec<(String, Duration)>,
}

pub(crate) fn watch(command: &mut Command) -> Run {
    let begun = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let errors = BufReader::new(child.stderr.take().unwrap());
    let steps = std::thread::spawn(move || {
        let (mut told, mut said) = (Vec::new(), String::new());
        for text in errors.lines().map_while(Result::ok) {
            if let Some((_, step)) = text.split_once("step=") {
                told.push((step.trim_matches('"').to_owned(), begun.elapsed()));
            }
            said.push_str(&text);
            said.push('\n');
        }
        (told, said)
    });
    let mut output = child.stdout.take().unwrap();
    let mut first = [0];
    let came = output.read(&mut first).unwrap();
    let line = begun.elapsed();
    output.read_to_end(&mut Vec::new()).unwrap();
    let status = child.wait().unwrap();
    let end = begun.elapsed();
    let (told, said) = steps.join().unwrap();
    assert!(status.success() && came == 1, "{command:?}: {said}");
    // A step lasts until the next begins, the last until the command prints.
    let ends = told.iter().skip(1).map(|(_, begun)| *begun).chain([line]);
    let before = told.first().map(|(_, begun)| ("before the first step".to_owned(), *begun));
    let lasting = told.iter().zip(ends).map(|((step, begun), end)| (step.clone(), end.saturating_sub(*begun)));
    Run { line, end, steps: before.into_iter().chain(lasting).collect() }
}

/// From nothing to a command in a sandbox, against a bare container of the same image.
pub(crate) fn up(table: &Table) {
    let home = Home::new();
    // The first start builds and loads the images, which is not what is measured.
    let (project, image) = {
        let running = Running::start(&home, MANIFEST);
        let image = running.image();
        (running.project, image)
    };
    let down = || drop(succeed(home.command().args(["down", "--discard", project.name()])));
    down();
    let ours = || {
        let mut command = home.command();
        command.args(["up", project.name(), "--", "echo", "runs"]).env("SANDBOX_LOG", "info").env("NO_COLOR", "1");
        let run = watch(&mut command);
        down();
        run
    };
    let bare = || watch(Command::new("docker").args(["run", "--rm", &image, "echo", "runs"]));
    let runs: Vec<(Run, Run)> = (0..table.runs).map(|_| (ours(), bare())).collect();
    let of = |pick: fn(&(Run, Run)) -> Duration| median_time(&runs.iter().map(pick).collect::<Vec<_>>());
    let aim = Aim::AtMostTimes(2.0);
    table.compare(
        "up -- CMD, cold, to its end",
        of(|(ours, _)| ours.end),
        "docker run --rm",
        of(|(_, bare)| bare.end),
        aim,
    );
    let lines = [of(|(ours, _)| ours.line), of(|(_, bare)| bare.line)];
    table.compare("up -- CMD, cold, until CMD prints", lines[0], "docker run --rm", lines[1], aim);
    let mut steps: BTreeMap<(usize, &str), Vec<Duration>> = BTreeMap::new();
    for (run, _) in &runs {
        for (index, (step, lasted)) in run.steps.iter().enumerate() {
            steps.entry((index, step)).or_default().push(*lasted);
        }
    }
    for ((_, step), lasted) in steps {
        table.remark(&format!("{:<42} {:>10}", step, median_time(&lasted)));
    }
    let ending: Vec<Duration> = runs.iter().map(|(run, _)| run.end - run.line).collect();
    table.remark(&format!("{:<42} {:>10}", "revoking and stopping", median_time(&ending)));
}

/// Joining a sandbox that runs, against `docker exec` into the same container.
pub(crate) fn exec(table: &Table) {
    let home = Home::new();
    let running = Running::start(&home, MANIFEST);
    let agent = running.container("agent");
    let ours = || time(|| drop(succeed(running.exec().arg("true"))));
    let bare = || time(|| drop(succeed(Command::new("docker").args(["exec", &agent, "true"]))));
    // It is short, so it can be done more often.
    let [ours, bare] = in_turn(3 * table.runs, ours, bare);
    table.compare("exec -- true", ours, "docker exec", bare, Aim::AtMostTimes(1.1));
}

/// What the programs beside the agent keep for themselves (`RssAnon`, proc_pid_status(5)) with nothing to do.
pub(crate) fn memory(table: &Table) {
    let home = Home::new();
    let running = Running::start(&home, MANIFEST);
    // What starting took is given back in a while, if it is.
    std::thread::sleep(Duration::from_secs(2));
    let project = running.project.path().file_name().unwrap().to_string_lossy().into_owned();
    let processes = [
        ("relay", inspect(&running.container("relay"), "{{.State.Pid}}").parse().ok()),
        ("gateway", inspect(&running.container("gateway"), "{{.State.Pid}}").parse().ok()),
        ("supervisor", supervisor(&project)),
        ("helper beside the agent", inspect(&running.container("agent"), "{{.State.Pid}}").parse().ok()),
    ];
    for (name, process) in processes {
        let aim = if name.contains(' ') { Aim::None } else { Aim::AtMost(MEMORY) };
        match process.and_then(anonymous) {
            Some(bytes) => table.single(&format!("memory of the {name}, idle"), Quantity::Bytes(bytes), aim),
            None => table.remark(&format!("memory of the {name}: its process is not to be seen on this machine")),
        }
    }
}

/// The supervisor of the project in this folder.
fn supervisor(folder: &str) -> Option<u32> {
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(|process: &u32| {
        let line = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        let words: Vec<_> = line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
        words.get(1).is_some_and(|verb| verb == "supervise") && words.iter().any(|word| word.ends_with(folder))
    })
}

fn anonymous(process: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok().map(|kibibytes| kibibytes * 1024.0)
}

/// Many sandboxes of one project started at once, against as many bare containers.
pub(crate) fn parallel(table: &Table) {
    let home = Home::new();
    let image = Running::start(&home, MANIFEST).image();
    let project = Project::new(&home, "bench", MANIFEST);
    let names: Vec<String> = (0..MANY).map(|number| format!("many{number}")).collect();
    let at_once = |command: &dyn Fn(&str) -> Command| {
        let started: Vec<_> = names
            .iter()
            .map(|name| {
                let mut command = command(name);
                command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
                command.spawn().unwrap()
            })
            .collect();
        for child in started {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    };
    let ours = time(|| {
        at_once(&|name| {
            let mut command = home.command();
            command.args(["up", project.name(), "--name", name, "--detach"]);
            command
        });
    });
    for name in &names {
        succeed(home.command().args(["down", "--discard", "--name", name, project.name()]));
    }
    let bare_name = |name: &str| format!("{}-{name}", project.name());
    let bare = time(|| {
        at_once(&|name| {
            let mut command = Command::new("docker");
            command.args(["run", "--detach", "--name", &bare_name(name), &image, "sleep", "infinity"]);
            command
        });
    });
    let bare_names: Vec<String> = names.iter().map(|name| bare_name(name)).collect();
    succeed(Command::new("docker").args(["rm", "--force"]).args(&bare_names));
    let what = format!("{MANY} × up --detach at once, all running");
    table.compare(&what, ours.into(), &format!("{MANY} × docker run --detach"), bare.into(), Aim::None);
    table.remark("each sandbox is three containers; measured once");
}
