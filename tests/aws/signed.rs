//! Requests to AWS that the gateway signs: boto3 in the agent's container signs with a stand-in, and moto, which looks at
//! signatures and policies, takes what arrives.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::support::neighbour::Neighbour;
use crate::support::{Home, Project, assert_no_canary, docker, eventually, text};
use crate::{Moto, programs};

const TABLES: &str = "dynamodb.eu-central-1.amazonaws.com";
const FILES: &str = "s3.eu-central-1.amazonaws.com";

/// Ends TLS in front of moto, and notes who signed each request.
const FRONT: &str = r#"
import itertools, re, socket, ssl, threading
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/tls/certificate.pem", "/tls/key.pem")
listener = socket.create_server(("", 443))
def pump(number, source, target, noted):
    try:
        while data := source.recv(65536):
            if noted:
                with open("/dev/shm/seen", "a") as seen:
                    for name in re.findall(rb"Credential=([^/]+)/", data):
                        seen.write("%d %s\n" % (number, name.decode()))
                    if b"sandbox-brokered" in data:
                        seen.write("%d stand-in\n" % number)
            target.sendall(data)
    except OSError:
        pass
    for end in (source, target):
        try: end.shutdown(socket.SHUT_RDWR)
        except OSError: pass
def serve(number, client):
    try:
        client = context.wrap_socket(client, server_side=True)
    except OSError:
        return
    moto = socket.create_connection(("HOST", PORT))
    threading.Thread(target=pump, args=(number, client, moto, True)).start()
    pump(number, moto, client, False)
print("serving", flush=True)
for number in itertools.count():
    threading.Thread(target=serve, args=(number, listener.accept()[0])).start()
"#;

const LIBRARY: &str = "import io, os, sys, time, urllib.request\nsys.path.insert(0, '/home/agent/aws')\nimport boto3\nfrom botocore.config import Config\n";

/// Calls with bodies of every kind: whole in JSON, in chunks with a checksum behind them, signed whole, and none; and a
/// signed URL.
const CALLS: &str = r#"
tables = boto3.client("dynamodb")
tables.create_table(TableName="t", KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}], BillingMode="PAY_PER_REQUEST",
                    AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}])
tables.put_item(TableName="t", Item={"id": {"S": "one"}})
print("item", tables.get_item(TableName="t", Key={"id": {"S": "one"}})["Item"]["id"]["S"])
def files(**options):
    return boto3.client("s3", config=Config(s3={"addressing_style": "path", **options}))
plain = files()
plain.create_bucket(Bucket="files", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
plain.put_object(Bucket="files", Key="a b/c+d.txt", Body=io.BytesIO(b"in chunks"))
files(payload_signing_enabled=True).put_object(Bucket="files", Key="whole", Body=b"signed whole")
print("read", plain.get_object(Bucket="files", Key="a b/c+d.txt")["Body"].read())
print("listed", [found["Key"] for found in plain.list_objects_v2(Bucket="files", Prefix="a b/")["Contents"]])
url = plain.generate_presigned_url("get_object", Params={"Bucket": "files", "Key": "whole"})
print("by url", urllib.request.urlopen(url).read())
print("known", boto3.Session().get_credentials().access_key, os.environ["AWS_REGION"])
"#;

/// Reads an item again and again, never a second time when that fails, until it is told to stop.
const READ_ON: &str = r#"
tables = boto3.client("dynamodb", config=Config(retries={"total_max_attempts": 1}))
read = 0
while not os.path.exists("/tmp/stop"):
    tables.get_item(TableName="t", Key={"id": {"S": "one"}})["Item"]
    read += 1
    if read == 3: open("/tmp/reading", "w").close()
    time.sleep(0.1)
print("went on", read > 5)
"#;

/// boto3 and what it needs of the folder beside what cargo builds, for three services alone.
fn boto3(target: &Path) {
    let packages = fs::read_dir(programs().join("../lib")).unwrap().flatten();
    let packages = packages.map(|entry| entry.path().join("site-packages")).find(|path| path.is_dir()).unwrap();
    let copy = |name: &str, options: &[&str]| {
        let mut tar = std::process::Command::new("tar");
        tar.arg("-C").arg(&packages).arg("-c").args(options).arg(name).stdout(Stdio::piped());
        let mut tar = tar.spawn().unwrap();
        let mut into = std::process::Command::new("tar");
        into.arg("-C").arg(target).arg("-x").stdin(tar.stdout.take().unwrap());
        assert!(into.status().unwrap().success() && tar.wait().unwrap().success(), "{name}");
    };
    for name in ["boto3", "s3transfer", "jmespath", "dateutil", "six.py", "urllib3"] {
        copy(name, &["--exclude=__pycache__"]);
    }
    copy("botocore", &["--exclude=__pycache__", "--exclude=botocore/data/*/*"]);
    for service in ["dynamodb", "s3", "sts"] {
        copy(&format!("botocore/data/{service}"), &[]);
    }
}

#[test]
fn boto3_works_with_a_stand_in_and_goes_on_through_a_rotation() {
    let home = Home::new();
    let moto = Moto::start_for_all();
    let neighbour = Neighbour::certified(&home, &[TABLES, FILES], &[TABLES, FILES]);
    let authorities = home.path().join("company.pem");
    fs::write(&authorities, &neighbour.certificate).unwrap();
    let configuration = home.path().join("config/sandbox/config.yaml");
    fs::create_dir_all(configuration.parent().unwrap()).unwrap();
    fs::write(configuration, format!("network: {{ authorities: {} }}\n", authorities.display())).unwrap();
    let entry = |host: &str| format!("    - {{ host: {host}, allow_private: {} }}\n", neighbour.subnet);
    let credential = |name: &str, host: &str, service: &str| {
        format!(
            "  {name}:\n    provider: aws-sts\n    address: {}\n    role: arn:aws:iam::123456789012:role/agents\n    \
             region: eu-central-1\n    \
             deliver: {{ broker: {host}, sigv4: {{ service: {service}, region: eu-central-1 }} }}\n",
            moto.address
        )
    };
    let manifest = format!(
        "image: agent\nnetwork:\n  allow:\n{}{}credentials:\n{}{}",
        entry(TABLES),
        entry(FILES),
        credential("tables", TABLES, "dynamodb"),
        credential("files", FILES, "s3")
    );
    let project = Project::new(&home, "signed", &manifest);
    let run = |words: &[&str]| {
        let mut command = home.sandbox();
        command.args(words).env("AWS_ACCESS_KEY_ID", &moto.id).env("AWS_SECRET_ACCESS_KEY", &moto.secret);
        command.env_remove("AWS_SESSION_TOKEN");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{words:?}: {}{}", text(&output.stderr), text(&output.stdout));
        text(&output.stdout)
    };
    let plan = run(&["plan", project.name()]);
    assert!(plan.contains("AWS signature for dynamodb in eu-central-1"), "{plan}");
    run(&["up", project.name(), "--detach", "--", "sleep", "600"]);
    let container = |role: &str| format!("sandbox-{}.main-{role}", project.name());
    let image = text(&docker(&["inspect", "--format", "{{.Image}}", &container("agent")]).stdout);
    let host = docker(&["network", "inspect", "--format", "{{(index .IPAM.Config 0).Gateway}}", &neighbour.name]);
    let port = moto.address.rsplit(':').next().unwrap();
    let front = FRONT.replace("HOST", text(&host.stdout).trim()).replace("PORT", port);
    neighbour.serve(image.trim(), &container("gateway"), &front);
    let library = tempfile::tempdir().unwrap();
    boto3(library.path());
    run(&["cp", library.path().to_str().unwrap(), &format!("{}:/home/agent/aws", project.name())]);

    let python = |script: &str| {
        let script = format!("{LIBRARY}{script}");
        let mut command = home.sandbox();
        let output = command.args(["exec", project.name(), "--", "python3", "-c", &script]).output().unwrap();
        text(&output.stdout) + &text(&output.stderr)
    };
    let expected = "item one\nread b'in chunks'\nlisted ['a b/c+d.txt']\nby url b'signed whole'\n\
                    known sandbox-brokered eu-central-1\n";
    assert_eq!(python(CALLS), expected);

    let reading = format!("{LIBRARY}{READ_ON}");
    let words = ["exec", project.name(), "--", "python3", "-c", &reading];
    let reader = home.command().args(words).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let exec = |script: &str| home.sandbox().args(["exec", project.name(), "--", "sh", "-c", script]).output().unwrap();
    eventually("the first reads", Duration::from_secs(30), || exec("test -e /tmp/reading").status.success());
    let seen = || text(&docker(&["exec", &neighbour.name, "cat", "/dev/shm/seen"]).stdout);
    // moto closes a connection after each answer, so that each request has one of its own.
    let signers = |seen: &str| {
        let ids = seen.lines().filter_map(|line| line.split_once(' '));
        ids.map(|(_, id)| id.to_owned()).collect::<BTreeSet<_>>()
    };
    assert_eq!(signers(&seen()).len(), 2, "one for each credential");
    run(&["credential", "rotate", "tables", project.name()]);
    eventually("the new keys' use", Duration::from_secs(20), || signers(&seen()).len() == 3);
    assert!(exec("touch /tmp/stop").status.success());
    let read = reader.wait_with_output().unwrap();
    assert_eq!(text(&read.stdout), "went on True\n");

    let seen = seen();
    let ids = signers(&seen);
    assert!(ids.len() == 3 && ids.iter().all(|id| id.starts_with("ASIA")), "{ids:?}");
    assert!(!ids.contains(&moto.id));
    assert_no_canary(&home, project.name(), &ids.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn keys_that_cannot_sign_and_a_persons_own_end_the_launch() {
    let home = Home::new();
    let manifest = format!(
        "image: agent\nnetwork: {{ allow: [{FILES}] }}\ncredentials:\n  files:\n    provider: store\n    \
         deliver: {{ broker: {FILES}, sigv4: {{ service: s3, region: eu-central-1 }} }}\n"
    );
    let project = Project::new(&home, "unsigned", &manifest);
    let up = |value: &str| {
        let mut set = home.sandbox();
        let set = set.args(["credential", "set", "files", project.name()]).write_stdin(value).output().unwrap();
        let up = home.sandbox().args(["up", project.name(), "--detach", "--", "true"]).output().unwrap();
        assert!(!up.status.success(), "{}", text(&up.stdout));
        let said = text(&set.stderr) + &text(&up.stderr);
        assert!(!said.contains("canary"), "{said}");
        said
    };
    let said = up("a plain canary word");
    assert!(said.contains("no JSON with AccessKeyId and SecretAccessKey") && said.contains("aws-sts"), "{said}");
    let said = up(r#"{"Version":1,"AccessKeyId":"AKIA0123456789ABCDEF","SecretAccessKey":"canary-canary-canary"}"#);
    assert!(said.contains("a long-term AWS key"), "{said}");
}
