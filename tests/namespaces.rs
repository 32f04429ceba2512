//! What needs a network of its own: NAT, and a router that drops packets. Scripts in network namespaces.
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
        .arg("bash")
        .arg(root.join("tests/namespaces").join(script))
        .args(words)
        .current_dir(root)
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
