//! The programs that agents use, each with its own way to certificate authorities and proxies, at a host whose TLS the
//! gateway terminates: from Debian's packages and npm in an image that the launcher builds, and a Java as this machine has it.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is wrong")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::neighbour::Neighbour;
use support::{Home, Project, docker, text};

const PACKAGES: &str = "cargo, gh, golang-go, python3-pip, python3-venv";

/// A host with what each program asks for: a page, a registry of npm, an index of PyPI, crates, modules of Go and an API
/// as that of a GitHub Enterprise Server.
const SERVER: &str = r#"
import base64, gzip, hashlib, http.server, io, json, ssl, tarfile, zipfile
def packed(files, write):
    out = io.BytesIO(); write(out, files); return out.getvalue()
def tar(out, files):
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name); entry.size = len(text); archive.addfile(entry, io.BytesIO(text.encode()))
def zipped(out, files):
    with zipfile.ZipFile(out, "w") as archive:
        for name, text in files.items(): archive.writestr(name, text)
host = "https://shop.example.test"
npm = packed({"package/package.json": json.dumps({"name": "tiny", "version": "1.0.0"})}, tar)
wheel = packed({"tiny.py": "WORD = 'tiny'\n", "tiny-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
    "tiny-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "tiny-1.0.dist-info/RECORD": "tiny.py,,\ntiny-1.0.dist-info/METADATA,,\ntiny-1.0.dist-info/WHEEL,,\ntiny-1.0.dist-info/RECORD,,\n"}, zipped)
crate = packed({"tiny-1.0.0/Cargo.toml": "[package]\nname = \"tiny\"\nversion = \"1.0.0\"\n", "tiny-1.0.0/src/lib.rs": ""}, tar)
module = packed({"shop.example.test/tiny@v1.0.0/go.mod": "module shop.example.test/tiny\n",
    "shop.example.test/tiny@v1.0.0/tiny.go": "package tiny\n"}, zipped)
pages = {
    "/open/page": b"page\n",
    "/npm/tiny": json.dumps({"name": "tiny", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": {"name": "tiny",
        "version": "1.0.0", "dist": {"tarball": host + "/npm/tiny.tgz",
        "integrity": "sha512-" + base64.b64encode(hashlib.sha512(npm).digest()).decode()}}}}).encode(),
    "/npm/tiny.tgz": npm,
    "/pypi/tiny/": b"<a href='/pypi/tiny-1.0-py3-none-any.whl'>tiny-1.0-py3-none-any.whl</a>",
    "/pypi/tiny-1.0-py3-none-any.whl": wheel,
    "/crates/tiny/1.0.0/download": crate,
    "/crates/digest": hashlib.sha256(crate).hexdigest().encode(),
    "/go/shop.example.test/tiny/@v/v1.0.0.info": b'{"Version":"v1.0.0","Time":"2026-01-01T00:00:00Z"}',
    "/go/shop.example.test/tiny/@v/v1.0.0.mod": b"module shop.example.test/tiny\n",
    "/go/shop.example.test/tiny/@v/v1.0.0.zip": module,
    "/api/v3/user": b'{"login":"ada"}',
}
class Page(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = pages.get(self.path.split("?")[0])
        self.send_response(200 if body else 404)
        kind = "text/html" if self.path.endswith("/tiny/") else "application/json"
        self.send_header("Content-Type", kind); self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers(); self.wfile.write(body or b"")
    def log_message(self, *words): pass
server = http.server.ThreadingHTTPServer(("", 443), Page)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/tls/certificate.pem", "/tls/key.pem")
server.socket = context.wrap_socket(server.socket, server_side=True)
print("serving", flush=True)
server.serve_forever()
"#;

const ASK: &str = r#"
url=https://shop.example.test
tell() { name=$1; shift; printf '%s: %s\n' "$name" "$("$@" 2>&1 | tail -n 1)"; }
mkdir -p /tmp/w && cd /tmp/w
direct='env -u http_proxy -u https_proxy -u HTTP_PROXY -u HTTPS_PROXY'

tell 'git by ssh' git ls-remote git@shop.example.test:open/e.git
tell 'git by a url of ssh' git ls-remote ssh://git@shop.example.test/open/f.git
tell 'requests' python3 -c "from pip._vendor import requests; print(requests.get('$url/open/page').text.strip())"
tell 'urllib' python3 -c "import urllib.request as r; print(r.urlopen('$url/open/page').read().decode().strip())"
tell 'urllib without a proxy' $direct python3 -c "import urllib.request as r; print(r.urlopen('$url/open/page').read().decode().strip())"

mkdir n && cd n && echo '{}' > package.json
npm install --no-audit --no-fund --no-update-notifier --registry $url/npm tiny >/tmp/npm.log 2>&1
tell 'npm' node -p "require('./node_modules/tiny/package.json').version"
cd ..

python3 -m venv v
v/bin/pip install --disable-pip-version-check --quiet --index-url $url/pypi tiny >/tmp/pip.log 2>&1
tell 'pip' v/bin/python -c 'import tiny; print(tiny.WORD)'

git init --quiet index && cd index && mkdir -p ti/ny
echo "{\"dl\":\"$url/crates\"}" > config.json
printf '{"name":"tiny","vers":"1.0.0","deps":[],"features":{},"yanked":false,"cksum":"%s"}\n' "$(curl -sS $url/crates/digest)" > ti/ny/tiny
git add . && git -c user.name=a -c user.email=a@example.com commit --quiet -m index && cd ..
mkdir -p c/src c/.cargo && cd c && touch src/lib.rs
printf '[package]\nname="c"\nversion="0.1.0"\n[dependencies]\ntiny={version="1",registry="own"}\n' > Cargo.toml
printf '[registries.own]\nindex="file:///tmp/w/index"\n' > .cargo/config.toml
CARGO_HOME=/tmp/w/cargo cargo fetch >/tmp/cargo.log 2>&1
tell 'cargo' sh -c 'ls -d /tmp/w/cargo/registry/src/*/tiny-1.0.0 | grep -c tiny'
cd ..

tell 'java' sh -c "~/java/bin/java -cp ~/java-classes Ask $url/open/page 2>/tmp/java.log"

mkdir g && cd g && cat > main.go <<'END'
package main
import ("fmt"; "io"; "net/http"; "os")
func main() {
    answer, err := http.Get(os.Args[1])
    if err != nil { fmt.Println(err); return }
    body, _ := io.ReadAll(answer.Body)
    fmt.Print(string(body))
}
END
export GOCACHE=/tmp/w/gocache GOPATH=/tmp/w/gopath GOFLAGS=-mod=mod GONOSUMDB='*' GONOSUMCHECK=1 GOPROXY=$url/go
tell 'go' go run main.go $url/open/page
printf 'module x\n' > go.mod
go mod download shop.example.test/tiny@v1.0.0 >/tmp/go.log 2>&1
tell 'go modules' sh -c 'ls -d /tmp/w/gopath/pkg/mod/shop.example.test/tiny@v1.0.0 | grep -c tiny'
cd ..

tell 'gh' env GH_HOST=shop.example.test GH_ENTERPRISE_TOKEN=none gh api user --jq .login
tell 'gh elsewhere' sh -c 'GH_HOST=shop.example.test GH_ENTERPRISE_TOKEN=none gh api repos/a/b 2>&1 | grep -c "no rule allows GET /api/v3/repos/a/b"'
"#;

const EXPECTED: &str = "git by ssh: fatal: repository 'https://shop.example.test/open/e.git/' not found\n\
                        git by a url of ssh: fatal: repository 'https://shop.example.test/open/f.git/' not found\n\
                        requests: page\nurllib: page\nurllib without a proxy: page\nnpm: 1.0.0\npip: tiny\ncargo: 1\n\
                        java: page\ngo: page\ngo modules: 1\ngh: ada\ngh elsewhere: 1\n";

/// Asks by Java's own client, which knows no proxy variables: the name's address in the sandbox is enough for it.
const ASK_JAVA: &str = r#"
import java.net.URI; import java.net.http.*;
public class Ask {
    public static void main(String[] words) throws Exception {
        HttpRequest request = HttpRequest.newBuilder(URI.create(words[0])).build();
        System.out.print(HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString()).body());
    }
}
"#;

fn done(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().expect(program);
    assert!(output.status.success(), "{program} {arguments:?}: {}", text(&output.stderr));
}

/// A small Java and a program for it, made with this machine's.
fn java(folder: &Path) -> (PathBuf, PathBuf) {
    let (runtime, classes, source) = (folder.join("java"), folder.join("classes"), folder.join("Ask.java"));
    fs::write(&source, ASK_JAVA).unwrap();
    let options =
        ["--strip-debug", "--no-header-files", "--no-man-pages", "--add-modules", "java.net.http,jdk.crypto.ec"];
    let linked = folder.join("linked");
    done("jlink", &[&options[..], &["--output", linked.to_str().unwrap()]].concat());
    // `sandbox cp` takes no links, of which there are some among the licences.
    done("cp", &["-rL", linked.to_str().unwrap(), runtime.to_str().unwrap()]);
    done("javac", &["--release", "17", "-d", classes.to_str().unwrap(), source.to_str().unwrap()]);
    (runtime, classes)
}

#[test]
#[ignore = "fetches 300 MB; `make test-full` runs it"]
fn every_program_trusts_the_sessions_authority_and_obeys_the_rules() {
    let home = Home::new();
    let neighbour = Neighbour::network(&home, &["shop.example.test"]);
    let authorities = home.path().join("company.pem");
    fs::write(&authorities, &neighbour.certificate).unwrap();
    let configuration = home.path().join("config/sandbox/config.yaml");
    fs::create_dir_all(configuration.parent().unwrap()).unwrap();
    fs::write(configuration, format!("network: {{ authorities: {} }}\n", authorities.display())).unwrap();
    let rules = "[GET /open/**, GET /npm/**, GET /pypi/**, GET /crates/**, GET /go/**, GET /api/v3/user]";
    let manifest = format!(
        "image: tools\nresources: {{ memory: 6GiB }}\nnetwork:\n  allow:\n    \
         - {{ host: shop.example.test, allow_private: {}, rules: {rules} }}\n",
        neighbour.subnet
    );
    let project = Project::new(&home, "clients", &manifest);
    let image = project.path().join("images/tools");
    fs::create_dir_all(&image).unwrap();
    let definition = format!(
        "version: 1\nbase: agent\ndebian: {{ suite: bookworm, packages: [{PACKAGES}] }}\n\
         npm: [{{ package: npm, version: 10.9.4, bin: {{ npm: bin/npm-cli.js }} }}]\n"
    );
    fs::write(image.join("image.yaml"), definition).unwrap();
    let run = |words: &[&str]| {
        let output = home.sandbox().args(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
    };
    let folder = project.path().to_str().unwrap();
    run(&["image", "lock", "tools", "--project", folder]);
    run(&["trust", "--yes", folder]);
    run(&["up", project.name(), "--detach", "--", "sleep", "1200"]);
    let container = |role: &str| format!("sandbox-{}.main-{role}", project.name());
    let built = text(&docker(&["inspect", "--format", "{{.Image}}", &container("agent")]).stdout);
    neighbour.serve(built.trim(), &container("gateway"), SERVER);
    let (runtime, classes) = java(home.path());
    for (from, to) in [(&runtime, "java"), (&classes, "java-classes")] {
        run(&["cp", from.to_str().unwrap(), &format!("{}:/home/agent/{to}", project.name())]);
    }
    let ran = home.sandbox().args(["exec", project.name(), "--", "bash", "-c", ASK]).output().unwrap();
    let logs = "head -n 30 /tmp/java.log; tail -n 20 /tmp/npm.log /tmp/pip.log /tmp/cargo.log /tmp/go.log";
    let logs = home.sandbox().args(["exec", project.name(), "--", "sh", "-c", logs]).output().unwrap();
    assert_eq!(text(&ran.stdout), EXPECTED, "{}{}", text(&ran.stderr), text(&logs.stdout));
    drop(project);
    docker(&["image", "rm", built.trim()]);
}
