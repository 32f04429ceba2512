//! Started as root: another user, and no more rights than a port below 1024 needs.

use crate::harness::{Mode, PATIENCE, Setup, wait_until};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};

/// Of Debian's nobody, and of most others'.
const NOBODY: u32 = 65534;
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
