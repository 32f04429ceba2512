//! Started as root: another user, and no more rights than a port below 1024 needs.

use crate::harness::{BINARY, Mode, PATIENCE, Setup, command, wait_until};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Of Debian's nobody, and of most others'.
const NOBODY: u32 = 65534;
/// Of nobody; other tests stop whatever runs as their users.
const OTHER: u32 = 61_234;
/// CAP_NET_BIND_SERVICE in the kernel's hexadecimal notation.
const BIND_SERVICE: &str = "0000000000000400";

#[test]
fn root_becomes_the_user_and_keeps_one_capability() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can become another user");
        return;
    }
    let mut daemon =
        Setup::new(Mode::Tls).set("logfile", "connector.log").argument("--user").argument("nobody").prepare();
    fs::set_permissions(daemon.folder(), fs::Permissions::from_mode(0o755)).expect("a folder of ours");
    for file in ["", "server-cert.pem", "server-key.pem"] {
        chown(daemon.path(file), Some(NOBODY), Some(NOBODY)).expect("root may");
    }
    daemon.start();
    let tasks = fs::read_dir(format!("/proc/{}/task", daemon.pid())).expect("it runs");
    for task in tasks.map(|task| task.expect("a thread").path()) {
        let status = fs::read_to_string(task.join("status")).expect("it runs");
        let field =
            |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel tells").trim();
        assert_eq!(field("Uid:"), [NOBODY.to_string().as_str(); 4].join("\t"), "{status}");
        for set in ["CapEff:", "CapPrm:", "CapBnd:"] {
            // In a container even that may be missing.
            assert!([BIND_SERVICE, "0000000000000000"].contains(&field(set)), "{status}");
        }
        assert_eq!(field("NoNewPrivs:"), "1", "{status}");
    }
    // What it could do as root at its start it can do again.
    let mapping = daemon.add_public(1);
    daemon.pair(&mapping);
    fs::rename(daemon.path("connector.log"), daemon.path("connector.log.1")).expect("a log");
    daemon.signal(libc::SIGUSR1);
    wait_until("there is a new log", PATIENCE, || daemon.path("connector.log").exists());
    daemon.signal(libc::SIGHUP);
    let log = || fs::read_to_string(daemon.path("connector.log")).unwrap_or_default();
    wait_until("it has reloaded", PATIENCE, || log().contains("Reloaded"));
    assert_eq!(daemon.command(&["stop"]).status, 0);
    assert_eq!(daemon.wait().code(), Some(0));
    assert!(!daemon.path("connector.conf.pid").exists());
}

/// What a command comes to that this user runs, none of whom owns anything of the daemon's.
fn as_another_user(binary: &Path, user: u32, words: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(binary);
    let done = command.args(words).uid(user).gid(user).stdin(Stdio::null()).output().expect("the binary");
    (done.status.code(), String::from_utf8_lossy(&done.stderr).into_owned())
}

#[test]
fn with_the_token_of_the_state_folder_another_user_cannot_stop_the_daemon() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can become another user");
        return;
    }
    let daemon = Setup::new(Mode::Plain).set("controllers", vec!["127.0.0.1"]).argument("--user").argument("nobody");
    let daemon = daemon.set("apitoken", "state/apitoken").prepare();
    let (settings, state) = (daemon.path("connector.conf"), daemon.path("state"));
    fs::create_dir(&state).expect("a folder of ours");
    chown(&state, Some(NOBODY), Some(NOBODY)).expect("root may");
    fs::set_permissions(daemon.folder(), fs::Permissions::from_mode(0o755)).expect("a folder of ours");
    fs::set_permissions(&settings, fs::Permissions::from_mode(0o644)).expect("a file of ours");
    fs::write(daemon.path("connector.conf.pid"), "").expect("a file");
    // The build's folder may be closed to others.
    let program = daemon.path("program");
    fs::copy(BINARY, &program).expect("a copy");
    let [settings, state] = [&settings, &state].map(|path| path.to_str().expect("UTF-8").to_owned());
    let of_daemon = ["--config", &settings, "--state", &state];

    // As the packages do before the first start. A second time nothing is made.
    let completed = || command(&[&["cert", "--complete", "--name", "localhost"][..], &of_daemon].concat());
    assert!(completed().out.contains("state/apitoken: a new token"));
    let token = daemon.path("state/apitoken");
    let made = fs::metadata(&token).expect("it was made");
    assert_eq!((made.uid(), made.permissions().mode() & 0o777), (NOBODY, 0o640));
    let text = fs::read_to_string(&token).expect("a token");
    assert!(text.trim().len() == 64 && completed().out.is_empty());
    assert_eq!(fs::read_to_string(&token).expect("a token"), text);

    let mut child = Command::new(BINARY);
    let child = child.args(["start", "--user", "nobody"]).args(of_daemon).stderr(Stdio::null()).spawn();
    let mut child = child.expect("the binary");
    wait_until("root is told that it runs", PATIENCE, || command(&[&["status"][..], &of_daemon].concat()).status == 0);
    for words in [&["stop"][..], &["mapping", "add"], &["mapping", "list"]] {
        let (status, said) = as_another_user(&program, OTHER, &[words, &of_daemon].concat());
        assert_eq!(status, Some(77), "{words:?}: {said}");
        assert!(said.contains("apitoken") || said.contains("not permitted"), "{words:?}: {said}");
    }
    assert_eq!(command(&[&["mapping", "add"][..], &of_daemon].concat()).status, 0);
    assert_eq!(command(&[&["stop"][..], &of_daemon].concat()).status, 0);
    assert!(child.wait().expect("its end").success());
}
