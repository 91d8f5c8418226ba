//! A host beside the sandbox: a container on a network of the test's own, which the sandbox's gateway is connected to.

use std::fs;
use std::time::Duration;

use super::{Home, docker, eventually, text};

/// A network of the engine with one container of two names, in which the servers run.
pub(crate) struct Neighbour {
    pub(crate) name: String,
    pub(crate) subnet: String,
    /// What the sandbox has to trust, in PEM.
    pub(crate) certificate: String,
    key: String,
    hosts: Vec<String>,
}

impl Neighbour {
    /// Makes the network; the container has these host names, and a certificate for the first.
    pub(crate) fn network(home: &Home, hosts: &[&str]) -> Self {
        Self::certified(home, hosts, &hosts[..1])
    }

    /// The same with an address that is no private one, as hosts of the internet have.
    pub(crate) fn public(home: &Home, hosts: &[&str]) -> Self {
        // Nobody else's: a bridge of this machine alone has it, for as long as the test runs.
        let process = std::process::id();
        let subnet = format!("44.{}.{}.0/24", 128 + process / 250 % 64, process % 250);
        Self::made(home, hosts, &hosts[..1], &["--subnet", &subnet])
    }

    /// The same with a certificate for some of its names.
    pub(crate) fn certified(home: &Home, hosts: &[&str], certified: &[&str]) -> Self {
        Self::made(home, hosts, certified, &[])
    }

    fn made(home: &Home, hosts: &[&str], certified: &[&str], options: &[&str]) -> Self {
        let unique = home.path().file_name().unwrap().to_string_lossy().replace('.', "");
        let certified: Vec<String> = certified.iter().map(|host| (*host).to_owned()).collect();
        let signed = rcgen::generate_simple_self_signed(certified).unwrap();

        let name = format!("test-{unique}");
        done(&[&["network", "create"], options, &[&name]].concat());
        let subnet = docker(&["network", "inspect", "--format", "{{(index .IPAM.Config 0).Subnet}}", &name]);
        Self {
            subnet: text(&subnet.stdout).trim().to_owned(),
            name,
            certificate: signed.cert.pem(),
            key: signed.signing_key.serialize_pem(),
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
        }
    }

    /// Starts the servers, in an image that has Python, and lets a gateway reach them.
    pub(crate) fn serve(&self, image: &str, gateway: &str, servers: &str) {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("certificate.pem"), &self.certificate).unwrap();
        fs::write(folder.path().join("key.pem"), &self.key).unwrap();
        let program = ["--user", "0", "--entrypoint", "python3", image, "-u", "-c", servers];
        let names: Vec<&str> = self.hosts.iter().flat_map(|host| ["--network-alias", host]).collect();
        let create = ["create", "--name", &self.name, "--network", &self.name];
        done(&[&create[..], &names[..], &program[..]].concat());
        done(&["cp", folder.path().to_str().unwrap(), &format!("{}:/tls", self.name)]);
        done(&["start", &self.name]);
        eventually("the servers' start", Duration::from_secs(20), || {
            text(&docker(&["logs", &self.name]).stdout).contains("serving")
        });
        done(&["network", "connect", &self.name, gateway]);
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        docker(&["rm", "--force", "--volumes", &self.name]);
        docker(&["network", "rm", &self.name]);
    }
}

fn done(arguments: &[&str]) {
    let output = docker(arguments);
    assert!(output.status.success(), "docker {arguments:?}: {}", text(&output.stderr));
}
