//! A state folder of its own: what the daemon writes, apart from what the operator writes.

use crate::harness::{BINARY, Daemon, Mode, PATIENCE, Setup, command, for_both_modes, wait_until};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

const NOBODY: u32 = 65534;

/// Takes away what the harness has put beside the settings.
fn remove_pair(daemon: &Daemon) {
    for name in ["server-cert.pem", "server-key.pem"] {
        fs::remove_file(daemon.path(name)).expect("it was written");
    }
}

#[test]
fn mappings_are_kept_in_the_state_folder_and_nothing_beside_the_settings() {
    for_both_modes(|mode| {
        let state = tempfile::tempdir().expect("a temporary folder");
        let path = state.path().to_str().expect("UTF-8");
        let mut daemon = Setup::new(mode).argument("--state").argument(path).start();
        let mapping = daemon.add_public(1);
        daemon.pair(&mapping);
        assert!(state.path().join("configs.json").exists());
        assert!(!daemon.path("configs.json").exists());
        let said = daemon.command(&["check", "--state", path]);
        assert!(said.out.contains(" 1 mapping\n") && said.status == 0, "{said:?}");
        assert_eq!(daemon.terminate().code(), Some(0));
        daemon.start();
        daemon.pair(&mapping);
    });
}

#[test]
fn the_pair_beside_the_settings_comes_first_and_that_of_the_state_folder_second() {
    let state = tempfile::tempdir().expect("a temporary folder");
    let path = state.path().to_str().expect("UTF-8");
    let mut daemon = Setup::new(Mode::Tls).argument("--state").argument(path).prepare();
    let files = ["server-cert.pem", "server-key.pem"];
    remove_pair(&daemon);
    let make = ["cert", "--complete", "--state", path, "--name", "localhost"];
    assert_eq!(daemon.command(&make).status, 0);
    assert!(files.iter().all(|name| state.path().join(name).exists() && !daemon.path(name).exists()));
    daemon.spawn();
    wait_until("it runs", PATIENCE, || daemon.command(&["status", "--state", path]).status == 0);

    // The operator's own. The daemon has it after a reload, and is found by it.
    assert_eq!(daemon.command(&["cert", "--name", "relay.example.org"]).status, 0);
    assert!(files.iter().all(|name| daemon.path(name).exists()));
    assert_eq!(daemon.command(&["status", "--state", path]).status, 1);
    assert_eq!(daemon.command(&["reload", "--state", path]).status, 0);
    wait_until("it has reloaded", PATIENCE, || daemon.command(&["status", "--state", path]).status == 0);
    // Where there is one, no other is made.
    let before = files.map(|name| fs::read(state.path().join(name)).expect("it is there"));
    assert_eq!(daemon.command(&make).status, 0);
    assert_eq!(files.map(|name| fs::read(state.path().join(name)).expect("it is there")), before);
}

#[test]
fn a_daemon_writes_nothing_where_only_root_may() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can become another user");
        return;
    }
    let state = tempfile::tempdir().expect("a temporary folder");
    chown(state.path(), Some(NOBODY), Some(NOBODY)).expect("root may");
    let path = state.path().to_str().expect("UTF-8");
    let mut daemon =
        Setup::new(Mode::Tls).argument("--state").argument(path).argument("--user").argument("nobody").prepare();
    fs::set_permissions(daemon.folder(), Permissions::from_mode(0o755)).expect("a folder of ours");
    // Made by root in a folder of root's that belongs to the daemon's group: that group may read the key.
    chown(daemon.folder(), Some(0), Some(NOBODY)).expect("root may");
    remove_pair(&daemon);
    assert_eq!(daemon.command(&["cert", "--name", "localhost"]).status, 0);
    let key = fs::metadata(daemon.path("server-key.pem")).expect("it was made");
    assert_eq!((key.uid(), key.gid(), key.mode() & 0o777), (0, NOBODY, 0o640));

    daemon.spawn();
    wait_until("it runs", PATIENCE, || daemon.command(&["status", "--state", path]).status == 0);
    assert_eq!(daemon.command(&["mapping", "add", "--state", path]).status, 0);
    let mappings = fs::metadata(state.path().join("configs.json")).expect("it was written");
    assert_eq!((mappings.uid(), mappings.mode() & 0o777), (NOBODY, 0o600));
    assert_eq!(daemon.command(&["stop", "--state", path]).status, 0);
    assert_eq!(daemon.wait().code(), Some(0));
}

#[test]
fn what_a_power_cut_left_of_a_pair_is_mended() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let [certificate, key] = ["server-cert.pem", "server-key.pem"].map(|name| folder.path().join(name));
    let state = folder.path().to_str().expect("UTF-8");
    let complete = || {
        let said = command(&["cert", "--complete", "--config", "/nonexistent/x.conf", "--state", state, "--name", "x"]);
        assert_eq!(said.status, 0, "{said:?}");
        said.err
    };
    assert_eq!(complete(), "");
    let first = fs::read(&key).expect("it was made");
    // A key alone is kept: the certificate that follows is its own.
    fs::remove_file(&certificate).expect("it was made");
    assert!(complete().contains("server-key.pem: its certificate is missing"));
    assert_eq!(fs::read(&key).expect("it is there"), first);
    let mut daemon = Setup::new(Mode::Tls).argument("--state").argument(state).prepare();
    remove_pair(&daemon);
    daemon.spawn();
    wait_until("it runs", PATIENCE, || daemon.command(&["status", "--state", state]).status == 0);
    daemon.terminate();
    // Half a key is none, and a certificate without its key is of no use.
    fs::remove_file(&certificate).expect("it was made");
    fs::write(&key, &first[..first.len() / 2]).expect("a file");
    assert!(complete().contains("server-key.pem.unusable"));
    fs::remove_file(&key).expect("it was made");
    assert!(complete().contains("server-cert.pem.unusable"));
    assert!(certificate.exists() && key.exists());
    assert_eq!(complete(), "");
}

#[test]
fn the_umask_takes_no_right_away() {
    let mut daemon = Setup::new(Mode::Tls).wrapped("umask 077 && exec \"$0\" \"$@\"".to_owned()).prepare();
    let mode = |name: &str| fs::metadata(daemon.path(name)).expect("it was made").permissions().mode() & 0o777;
    remove_pair(&daemon);
    let script = "umask 077 && exec \"$0\" cert --name localhost --config $FOLDER/connector.conf";
    let made =
        std::process::Command::new("sh").args(["-c", script]).arg(BINARY).env("FOLDER", daemon.folder()).output();
    assert!(made.expect("a shell").status.success());
    assert_eq!((mode("server-cert.pem"), mode("server-key.pem")), (0o644, 0o600));
    daemon.spawn();
    wait_until("it runs", PATIENCE, || daemon.command(&["status"]).status == 0);
    let pid_file = fs::metadata(daemon.path("connector.conf.pid")).expect("it runs");
    assert_eq!(pid_file.permissions().mode() & 0o777, 0o644);
}

#[test]
fn the_lock_alone_tells_whether_a_daemon_runs() {
    let mut daemon = Setup::new(Mode::Plain).start();
    assert_eq!(daemon.command(&["status", "--lock"]).status, 0);
    fs::write(daemon.path("connector.conf"), "broken").expect("a file");
    assert_eq!(daemon.command(&["status", "--lock"]).status, 0);
    daemon.signal(libc::SIGSTOP);
    let said = daemon.command(&["status", "--lock"]);
    assert_eq!((said.status, said.out.as_str(), said.err.as_str()), (0, "", ""), "{said:?}");
    // One that does not end is killed, if that is asked for.
    let said = daemon.command(&["stop", "--timeout", "1", "--kill"]);
    assert_eq!(said.status, 0, "{said:?}");
    assert!(said.err.contains("is killed"), "{said:?}");
    assert_eq!(daemon.wait().code(), None);
    assert_eq!(daemon.command(&["status", "--lock"]).status, 3);
    assert_eq!(daemon.command(&["reload"]).status, 3);
}
