//! Which wheels a definition gets: the reader of `pylock.toml` (PEP 751), and `uv` that writes one where there is none.
//!
//! Only wheels are taken, since anything else would have to be run to be built. A file is one of a single platform: what
//! has markers is refused, as a resolution for this platform alone has none.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use pep440_rs::{Version, VersionSpecifiers};
use serde::Deserialize;
use tokio::io::AsyncWriteExt as _;

use super::definition::Pypi;
use super::error::{ImageError, PylockProblem, at};
use super::lock::{Lock, PypiWheel};
use super::reference::Digest;

/// Bytes of a `pylock.toml`.
const LIMIT: u64 = 16 << 20;
/// Packages in one.
const PACKAGES: usize = 2_000;
/// Bytes of one wheel.
const WHEEL: u64 = 1 << 30;
/// How long `uv` may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// How well a wheel fits: whether it is for any platform, the place of its interpreter, and how old its C library is.
type Rank = (u64, u64, u64);

/// The Python of an image, as the packages of Debian in it give it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interpreter {
    /// Such as 3.11.2.
    pub version: Version,
    /// Minor version of the C library 2.
    pub glibc: u64,
    /// Such as `x86_64`.
    pub machine: &'static str,
}

impl Interpreter {
    /// Finds it among the packages of a chain of locks.
    ///
    /// # Errors
    /// When they have no Python 3, or a machine that Python's platform tags do not know.
    pub fn of<'a>(locks: impl IntoIterator<Item = &'a Lock>) -> Result<Self, PylockProblem> {
        let (mut python, mut glibc, mut machine) = (None, None, None);
        for lock in locks {
            machine = match lock.architecture.as_str() {
                "amd64" => Some("x86_64"),
                "arm64" => Some("aarch64"),
                _ => None,
            };
            for package in &lock.packages {
                let upstream = package.version.rsplit_once('-').map_or(package.version.as_str(), |(first, _)| first);
                match package.name.as_str() {
                    "python3" => python = release(upstream).filter(|release| release.len() >= 2 && release[0] == 3),
                    "libc6" => glibc = release(upstream).filter(|release| release.len() >= 2 && release[0] == 2),
                    _ => {}
                }
            }
        }
        match (python, glibc, machine) {
            (Some(python), Some(glibc), Some(machine)) => {
                Ok(Self { version: Version::new(python), glibc: glibc[1], machine })
            }
            _ => Err(PylockProblem::NoPython),
        }
    }

    /// Major and minor version, with a dot.
    pub fn short(&self) -> String {
        format!("{}.{}", self.version.release()[0], self.version.release()[1])
    }

    /// How well a wheel's tags (PyPA, platform compatibility tags) fit; less is better, and the order is that of pip.
    fn rank(&self, file: &str) -> Option<Rank> {
        let mut parts = file.strip_suffix(".whl")?.rsplit('-');
        let (platforms, abis, pythons) = (parts.next()?, parts.next()?, parts.next()?);
        let minor = self.version.release()[1];
        let interpreter = |python: &str, abi: &str| -> Option<u64> {
            let older = |prefix: &str| {
                python
                    .strip_prefix(prefix)?
                    .parse::<u64>()
                    .ok()
                    .filter(|&older| older <= minor)
                    .map(|older| minor - older)
            };
            match (older("cp3"), older("py3"), abi) {
                (Some(0), _, abi) if abi == format!("cp3{minor}") => Some(0),
                (Some(0), _, "abi3") => Some(1),
                (Some(0), _, "none") => Some(2),
                (Some(age), _, "abi3") if minor - age >= 2 => Some(2 + age),
                (_, Some(0), "none") => Some(100),
                (_, Some(age), "none") => Some(101 + age),
                _ if python == "py3" && abi == "none" => Some(101),
                _ => None,
            }
        };
        let platform = |platform: &str| -> Option<(u64, u64)> {
            let tag = platform.strip_suffix(self.machine).and_then(|tag| tag.strip_suffix('_'));
            let needs = match (platform, tag) {
                ("any", _) => return Some((1, 0)),
                (_, Some("linux")) => return Some((0, 900)),
                // PEP 600 gives the older names their C library.
                (_, Some("manylinux1")) => 5,
                (_, Some("manylinux2010")) => 12,
                (_, Some("manylinux2014")) => 17,
                (_, tag) => tag?.strip_prefix("manylinux_2_")?.parse().ok()?,
            };
            (needs <= self.glibc).then(|| (0, self.glibc - needs))
        };
        let mut best = None;
        for python in pythons.split('.').take(16) {
            for abi in abis.split('.').take(16) {
                for name in platforms.split('.').take(16) {
                    let Some(interpreter) = interpreter(python, abi) else { continue };
                    let Some((any, age)) = platform(name) else { continue };
                    let rank = (any, interpreter, age);
                    best = Some(best.map_or(rank, |best: Rank| best.min(rank)));
                }
            }
        }
        best
    }
}

/// The numbers that a version of Debian begins with.
fn release(version: &str) -> Option<Vec<u64>> {
    let end = version.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(version.len());
    let numbers: Result<Vec<u64>, _> = version[..end].trim_end_matches('.').split('.').map(str::parse).collect();
    numbers.ok().filter(|numbers| numbers.len() <= 8)
}

/// Whether two versions are one, such as 1.0 and 1.0.0 (PyPA, version specifiers). What is no version is only itself.
pub fn same_version(one: &str, other: &str) -> bool {
    match (one.parse::<Version>(), other.parse::<Version>()) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other,
    }
}

/// A name as the index writes it (PyPA, name normalization).
pub fn normal(name: &str) -> String {
    let mut normal = String::new();
    for c in name.chars() {
        match c {
            '-' | '_' | '.' if normal.ends_with('-') => {}
            '-' | '_' | '.' => normal.push('-'),
            other => normal.push(other.to_ascii_lowercase()),
        }
    }
    normal
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Document {
    lock_version: String,
    #[serde(default)]
    requires_python: String,
    #[serde(default)]
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    version: Option<String>,
    marker: Option<String>,
    #[serde(default)]
    wheels: Vec<Wheel>,
}

#[derive(Debug, Deserialize)]
struct Wheel {
    name: Option<String>,
    url: Option<String>,
    size: Option<u64>,
    #[serde(default)]
    hashes: BTreeMap<String, String>,
}

/// Reads a `pylock.toml` and takes of each package the wheel that fits best. Sorted by name.
///
/// # Errors
/// When it is no such file, lacks what is wanted, or needs more than wheels.
pub fn read(text: &str, wanted: &[Pypi], python: &Interpreter) -> Result<Vec<PypiWheel>, PylockProblem> {
    if text.len() as u64 > LIMIT {
        return Err(PylockProblem::Size);
    }
    let document: Document = toml_edit::de::from_str(text)?;
    if document.lock_version != "1" && !document.lock_version.starts_with("1.") {
        return Err(PylockProblem::Version(short(&document.lock_version)));
    }
    let allowed = document.requires_python.parse::<VersionSpecifiers>();
    if !allowed.is_ok_and(|allowed| allowed.contains(&python.version)) {
        return Err(PylockProblem::Python(short(&document.requires_python), python.short()));
    }
    if document.packages.len() > PACKAGES {
        return Err(PylockProblem::Size);
    }
    let mut wheels = BTreeMap::new();
    for package in &document.packages {
        let wheel = choose(package, python)?;
        if wheels.insert(wheel.package.clone(), wheel).is_some() {
            return Err(PylockProblem::Twice(short(&package.name)));
        }
    }
    for wanted in wanted {
        let found = wheels.get(&normal(&wanted.package));
        if !found.is_some_and(|wheel| same_version(&wheel.version, &wanted.version)) {
            return Err(PylockProblem::Absent(wanted.package.clone(), wanted.version.clone()));
        }
    }
    Ok(wheels.into_values().collect())
}

fn choose(package: &Package, python: &Interpreter) -> Result<PypiWheel, PylockProblem> {
    let name = || short(&package.name);
    let word = |text: &str| {
        !text.is_empty() && text.len() <= 200 && text.chars().all(|c| c.is_ascii_alphanumeric() || "-._+!".contains(c))
    };
    if package.marker.is_some() {
        return Err(PylockProblem::Marker(name()));
    }
    let version = package.version.as_deref().filter(|version| word(version));
    let (Some(version), true) = (version, word(&package.name)) else { return Err(PylockProblem::Entry(name())) };
    let mut best: Option<(Rank, &str, &str, &Wheel)> = None;
    for wheel in &package.wheels {
        let url = wheel.url.as_deref().unwrap_or_default();
        let file = wheel.name.as_deref().or(url.rsplit('/').next()).unwrap_or_default();
        if let Some(rank) = python.rank(file) {
            let better = best.is_none_or(|(known, other, ..)| (rank, file) < (known, other));
            if better {
                best = Some((rank, file, url, wheel));
            }
        }
    }
    let (_, file, url, wheel) = best.ok_or_else(|| PylockProblem::NoWheel(name()))?;
    // Anything may stand here. It is fetched only as what its digest says, but nothing is said to a plain connection.
    let address = reqwest::Url::parse(url).ok().filter(|url| {
        url.scheme() == "https" && url.username().is_empty() && url.password().is_none() && url.as_str().len() < 2_000
    });
    let sha256 = wheel.hashes.get("sha256").and_then(|sum| format!("sha256:{sum}").parse::<Digest>().ok());
    let (Some(address), Some(sha256)) = (address, sha256) else { return Err(PylockProblem::Entry(name())) };
    if wheel.size.is_some_and(|size| size > WHEEL) {
        return Err(PylockProblem::Size);
    }
    Ok(PypiWheel {
        package: normal(&package.name),
        version: version.to_owned(),
        file: file.to_owned(),
        url: address.to_string(),
        sha256,
        size: wheel.size.unwrap_or(WHEEL),
    })
}

fn short(text: &str) -> String {
    text.chars().take(100).collect::<String>().escape_debug().to_string()
}

/// Has `uv` choose versions and write a `pylock.toml`. It resolves only: with wheels alone there is nothing to build, and
/// nothing is installed.
///
/// # Errors
/// When `uv` is not there or does not find a solution.
pub async fn resolve(wanted: &[Pypi], python: &Interpreter) -> Result<String, ImageError> {
    // An empty folder: a `uv.toml` or `pyproject.toml` of the project would have a say otherwise.
    let folder = tempfile::tempdir().map_err(at(&std::env::temp_dir()))?;
    let path = folder.path().join("pylock.toml");
    let platform = format!("{}-manylinux_2_{}", python.machine, python.glibc);
    let failed = |problem| ImageError::Pylock { problem };
    let mut child = tokio::process::Command::new("uv")
        .args(["pip", "compile", "-", "--quiet", "--no-header", "--format", "pylock.toml", "--only-binary", ":all:"])
        .args(["--no-python-downloads", "--python-version", &python.short(), "--python-platform", &platform])
        .arg("--output-file")
        .arg(&path)
        .current_dir(folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| failed(PylockProblem::NoUv(source)))?;
    let lines: String = wanted.iter().map(|pypi| format!("{}=={}\n", pypi.package, pypi.version)).collect();
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(lines.as_bytes()).await;
    }
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
    let output = output.map_err(|_| failed(PylockProblem::Patience))?;
    let output = output.map_err(|source| failed(PylockProblem::NoUv(source)))?;
    if !output.status.success() {
        let said: String = String::from_utf8_lossy(&output.stderr).chars().take(2_000).collect();
        let said = said.lines().map(|line| line.escape_debug().to_string()).collect::<Vec<_>>().join("\n");
        return Err(failed(PylockProblem::Uv(said)));
    }
    if path.metadata().map_err(at(&path))?.len() > LIMIT {
        return Err(failed(PylockProblem::Size));
    }
    std::fs::read_to_string(&path).map_err(at(&path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn python() -> Interpreter {
        Interpreter { version: Version::new([3, 11, 2]), glibc: 36, machine: "x86_64" }
    }

    fn wanted(version: &str) -> Vec<Pypi> {
        vec![Pypi { package: "Some.Tool".into(), version: version.into(), bin: Vec::new() }]
    }

    fn document(package: &str) -> String {
        format!("lock-version = \"1.0\"\nrequires-python = \">=3.11\"\n[[packages]]\nname = \"some-tool\"\n{package}")
    }

    fn wheel(address: &str) -> String {
        format!("wheels = [{{ url = \"{address}\", hashes = {{ sha256 = \"{}\" }} }}]\n", "a1".repeat(32))
    }

    #[test]
    fn takes_the_wheel_that_pip_would_take() {
        // From best to worst, as `pip debug --verbose` lists the tags.
        let order = [
            "a-1-cp311-cp311-manylinux_2_36_x86_64.whl",
            "a-1-cp311-cp311-manylinux_2_28_x86_64.whl",
            "a-1-cp311-cp311-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
            "a-1-cp311-cp311-linux_x86_64.whl",
            "a-1-cp311-abi3-manylinux_2_28_x86_64.whl",
            "a-1-cp311-none-manylinux_2_28_x86_64.whl",
            "a-1-cp39-abi3-manylinux1_x86_64.whl",
            "a-1-py3-none-manylinux_2_28_x86_64.whl",
            "a-1-py3-none-any.whl",
            "a-1-py37-none-any.whl",
        ];
        let ranks: Vec<_> = order.iter().map(|file| python().rank(file).unwrap()).collect();
        assert!(ranks.is_sorted() && ranks.windows(2).all(|pair| pair[0] != pair[1]), "{ranks:?}");
        assert_eq!(python().rank("a-1-py2.py3-none-any.whl"), python().rank("a-1-py3-none-any.whl"));
        for other in [
            "a-1-cp312-cp312-manylinux_2_17_x86_64.whl",
            "a-1-cp311-cp311-manylinux_2_39_x86_64.whl",
            "a-1-cp311-cp311-manylinux_2_17_aarch64.whl",
            "a-1-cp311-cp311-musllinux_1_2_x86_64.whl",
            "a-1-cp311-cp311-macosx_11_0_arm64.whl",
            "a-1-py2-none-any.whl",
            "a-1-py312-none-any.whl",
            "a-1.tar.gz",
            ".whl",
        ] {
            assert_eq!(python().rank(other), None, "{other}");
        }
    }

    #[test]
    fn takes_versions_of_python_for_what_they_say() {
        for (specifiers, allowed) in [
            (">=3.10,<3.13", true),
            (">=3.11", true),
            (">=3.12", false),
            (">3.11.2", false),
            (">3.11", true),
            ("<=3.11", false),
            ("==3.11.*", true),
            ("!=3.11.*", false),
            ("~=3.10", true),
            ("~=3.10.0", false),
            (">=3.11rc1", true),
            ("", true),
            ("what", false),
            (">=3.11, what", false),
        ] {
            let text = document(&format!("version = \"1\"\n{}", wheel("https://h/t-1-py3-none-any.whl")));
            let text = text.replace(">=3.11", specifiers);
            let found = read(&text, &wanted("1"), &python());
            assert_eq!(found.is_ok(), allowed, "{specifiers}: {found:?}");
            assert!(allowed || matches!(found, Err(PylockProblem::Python(..))), "{specifiers}: {found:?}");
        }
    }

    #[test]
    fn knows_a_version_however_it_is_written() {
        assert!(same_version("1.0", "1.0.0") && same_version("1.0rc1", "1.0.RC.1") && same_version("v1", "1"));
        assert!(!same_version("1.0", "1.0+local") && !same_version("1.0", "1.0.post1"));
        assert!(same_version("two", "two") && !same_version("two", "2"));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_a_version_or_none(any in ".{0,40}", close in "[v0-9.a-z+!=<>~*, -]{0,24}") {
            for text in [any, close] {
                assert!(same_version(&text, &text), "{text}");
                let _ = text.parse::<VersionSpecifiers>().map(|specifiers| specifiers.contains(&python().version));
            }
        }
    }

    #[test]
    fn reads_names_as_the_index_writes_them() {
        let text = document(&format!("version = \"1.2\"\n{}", wheel("https://h/some_tool-1.2-py3-none-any.whl")));
        let wheels = read(&text, &wanted("1.2"), &python()).unwrap();
        assert_eq!(
            (wheels[0].package.as_str(), wheels[0].file.as_str()),
            ("some-tool", "some_tool-1.2-py3-none-any.whl")
        );
        assert_eq!(normal("A__b-.C"), "a-b-c");
    }

    #[test]
    fn refuses_what_is_no_wheel_of_this_platform_with_a_digest_over_https() {
        let good = wheel("https://h/t-1-py3-none-any.whl");
        let problem = |package: &str, version: &str| read(&document(package), &wanted(version), &python()).unwrap_err();
        let case = |rest: &str| problem(&format!("version = \"1\"\n{rest}"), "1");
        assert!(matches!(case(""), PylockProblem::NoWheel(_)));
        assert!(matches!(case(&wheel("https://h/t-1-cp312-cp312-any.whl")), PylockProblem::NoWheel(_)));
        assert!(matches!(case(&format!("{good}marker = \"os_name == 'nt'\"\n")), PylockProblem::Marker(_)));
        for address in ["http://h/t-1-py3-none-any.whl", "https://u:p@h/t-1-py3-none-any.whl", "t-1-py3-none-any.whl"] {
            assert!(matches!(case(&wheel(address)), PylockProblem::Entry(_)), "{address}");
        }
        assert!(matches!(case(&good.replace("sha256", "md5")), PylockProblem::Entry(_)));
        assert!(matches!(case(&good.replace("a1a1", "")), PylockProblem::Entry(_)));
        assert!(matches!(
            case(&format!("{good}\n[[packages]]\nname = \"Some_Tool\"\nversion = \"1\"\n{good}")),
            PylockProblem::Twice(_)
        ));
        assert!(matches!(problem(&good, "1"), PylockProblem::Entry(_)));
        assert!(matches!(problem(&format!("version = \"2\"\n{good}"), "1"), PylockProblem::Absent(..)));
        let later = document(&format!("version = \"1\"\n{good}")).replace(">=3.11", ">=3.12");
        assert!(matches!(read(&later, &wanted("1"), &python()), Err(PylockProblem::Python(..))));
        let newer = document(&format!("version = \"1\"\n{good}")).replace("\"1.0\"", "\"2.0\"");
        assert!(matches!(read(&newer, &wanted("1"), &python()), Err(PylockProblem::Version(_))));
        assert!(matches!(read("lock-version = 1", &wanted("1"), &python()), Err(PylockProblem::Form(_))));
    }
}
