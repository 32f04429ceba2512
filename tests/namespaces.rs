//! What needs a network of its own: NAT, bad networks, crowds from a thousand addresses. Scripts in network namespaces.
//!
//! Skipped, saying so, where user namespaces are not permitted or ip, nft, curl or python3 are not to be had.

use std::path::Path;
use std::process::{Command, Stdio};
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_iofog-connector");
/// Fresh namespaces, in which the script is root, and an end for all its processes when it ends.
const UNSHARE: [&str; 4] = ["--user", "--map-root-user", "--net", "--mount"];
const PROCESSES: [&str; 4] = ["--pid", "--fork", "--kill-child", "--mount-proc"];

/// What is missing for these tests, if anything.
fn missing(needed: &[(&str, &str)], probe: &str) -> Option<String> {
    let works = |program: &str, words: &[&str]| {
        let mut command = Command::new(program);
        command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let absent = needed.iter().find(|(program, word)| !works(program, &[word]));
    if let Some((program, _)) = absent {
        return Some(format!("there is no {program}"));
    }
    let words: Vec<&str> = UNSHARE.into_iter().chain(PROCESSES).chain(["sh", "-c", probe]).collect();
    (!works("unshare", &words)).then(|| format!("in namespaces of their own nobody may do `{probe}`"))
}

/// What the scripts need that source network.sh.
fn missing_for_nat() -> Option<String> {
    let programs = [("ip", "-V"), ("nft", "--version"), ("curl", "--version"), ("python3", "--version")];
    missing(&programs, "nft add table ip t && nft 'add chain ip t c { type nat hook postrouting priority 100; }'")
}

/// Runs a script of tests/namespaces in namespaces of its own.
fn run(script: &str, words: &[&str], missing: Option<String>) {
    if let Some(missing) = missing {
        eprintln!("skipped: {missing}");
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = TempDir::new().expect("a temporary folder");
    let binaries = Path::new(BINARY).parent().expect("a file is in a folder");
    let path = std::env::var("PATH").unwrap_or_default();
    let words: Vec<String> =
        words.iter().map(|word| word.replace("FOLDER", &folder.path().display().to_string())).collect();
    let output = Command::new("unshare")
        .args(UNSHARE)
        .args(PROCESSES)
        .arg(if script.ends_with(".py") { "python3" } else { "bash" })
        .arg(root.join("tests/namespaces").join(script))
        .args(words)
        .current_dir(root)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PATH", format!("{}:{path}:/usr/sbin:/sbin", binaries.display()))
        .stdin(Stdio::null())
        .output()
        .expect("unshare");
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", said(&output.stdout), said(&output.stderr));
    eprintln!("{}", said(&output.stdout).trim_end());
}

#[test]
fn the_page_about_nat_works_as_written() {
    run("behind-nat.sh", &["docs/behind-nat.md", "FOLDER"], missing_for_nat());
}

#[test]
fn a_network_that_drops_packets_silently_is_noticed_and_recovered_from() {
    run("silence.sh", &["FOLDER", "dev"], missing_for_nat());
}

#[test]
fn a_peer_that_dies_with_a_closed_window_is_found_and_a_slow_one_is_not_taken_for_it() {
    let missing = missing(&[("ip", "-V"), ("python3", "--version")], "ip link add name here type veth peer name there");
    run("closed-window.sh", &["FOLDER"], missing);
}

#[test]
fn the_same_over_tls() {
    run("silence.sh", &["FOLDER", "tls"], missing_for_nat());
}

#[test]
fn a_dead_ipv6_address_keeps_nobody_waiting() {
    let missing = missing(&[("ip", "-V"), ("python3", "--version")], "ip link add name here type veth peer name there");
    run("dead-ipv6.sh", &["FOLDER"], missing);
}

/// What the scripts need that are Python altogether.
fn missing_for_python() -> Option<String> {
    missing(&[("ip", "-V"), ("python3", "--version")], "ip tuntap add dev there mode tun")
}

/// With the words in the environment's `variable`, or those of the short form.
fn run_long_or_short(script: &str, first: &[&str], variable: &str, short: &str) {
    let rest = std::env::var(variable).unwrap_or_else(|_| short.to_owned());
    let words: Vec<&str> = ["FOLDER"].iter().chain(first).copied().chain(rest.split_whitespace()).collect();
    run(script, &words, missing_for_python());
}

/// What the short form of the bad networks has: the others take minutes.
const NETWORKS: &str = "delay loss reordering duplicates rate mtu all --scale 0.2 --sessions 2";

#[test]
fn sessions_survive_bad_networks() {
    run_long_or_short("networks.py", &["dev"], "NETWORKS", NETWORKS);
}

#[test]
fn sessions_survive_bad_networks_over_tls() {
    run_long_or_short("networks.py", &["tls"], "NETWORKS", NETWORKS);
}

#[test]
fn when_an_agents_address_changes_both_sides_know_in_time() {
    run_long_or_short("networks.py", &["tls"], "NETWORKS", "address --sessions 2");
}

#[test]
fn crowds_take_nothing_from_those_who_behave() {
    run_long_or_short("crowds.py", &["dev"], "CROWDS", "--sockets 400 --seconds 0.5");
}

#[test]
fn crowds_with_tls_take_nothing_either() {
    run_long_or_short("crowds.py", &["tls"], "CROWDS", "--sockets 400 --with-tls 60 --seconds 0.5");
}

#[test]
fn mixed_traffic_leaves_nothing_behind() {
    run_long_or_short("soak.py", &[], "SOAK", "--seconds 8");
}
