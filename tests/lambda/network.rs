//! A network that can be cut: a namespace of its own, joined to ours by a virtual cable.
//!
//! Source: <https://man7.org/linux/man-pages/man4/veth.4.html>

use crate::support::{absent, on_path, run, running_as_root};
use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::process::Command;

/// A namespace that ends with the test, and everything in it.
pub struct Network {
    name: String,
    here: Ipv4Addr,
}

impl Network {
    /// `None`, said loudly, without the rights or the program that it takes.
    pub fn new() -> Option<Self> {
        let may = running_as_root()
            || Command::new("sudo").args(["-n", "true"]).status().is_ok_and(|done| done.success());
        if !may || !(on_path("ip") || std::path::Path::new("/usr/sbin/ip").exists()) {
            absent("a network that can be cut (iproute2, and root or sudo)");
            return None;
        }
        let id = std::process::id();
        let name = format!("pgweir-{id}");
        // From the range for measurements between networks, RFC 2544: four addresses for each process.
        let first = 0xC612_0000 + (id % 0x4000) * 4;
        let (here, there) = (Ipv4Addr::from(first + 1), Ipv4Addr::from(first + 2));
        let (near, far) = (format!("pw{id}a"), format!("pw{id}b"));
        ip(&format!("netns add {name}"));
        let network = Self { name, here };
        ip(&format!("link add {near} type veth peer name {far} netns {}", network.name));
        ip(&format!("address add {here}/30 dev {near}"));
        ip(&format!("link set {near} up"));
        network.inside(&format!("address add {there}/30 dev {far}"));
        network.inside(&format!("link set {far} up"));
        Some(network)
    }

    /// Our address on the cable.
    pub fn address(&self) -> Ipv4Addr {
        self.here
    }

    /// The same command, run inside.
    pub fn enter(&self, command: &Command) -> Command {
        let mut entered = as_root("ip");
        entered.args(["netns", "exec", &self.name, "env"]);
        for (name, value) in command.get_envs() {
            let value = value.unwrap_or(OsStr::new(""));
            entered.arg([name, OsStr::new("="), value].into_iter().collect::<std::ffi::OsString>());
        }
        entered.arg(command.get_program()).args(command.get_args());
        entered
    }

    /// Cuts the cable: from now on nothing that one side sends reaches the other.
    pub fn cut(&self) {
        self.inside(&format!("link set pw{}b down", std::process::id()));
    }

    fn inside(&self, arguments: &str) {
        ip(&format!("-n {} {arguments}", self.name));
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // The namespace stays for as long as there is a connection that it has not given up.
        let near = format!("pw{}a", std::process::id());
        let _ = as_root("ip").args(["link", "delete", &near]).status();
        let _ = as_root("ip").args(["netns", "delete", &self.name]).status();
    }
}

fn ip(arguments: &str) {
    run(as_root("ip").args(arguments.split(' ')));
}

fn as_root(program: &str) -> Command {
    if running_as_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.args(["-n", program]);
    command
}
