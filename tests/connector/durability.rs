//! A disk that is full, read-only or gone: a change that cannot be kept is refused with the reason, and nothing of
//! it remains, neither in the files nor on the network.

use crate::harness::{Daemon, Mapping, Mode, PATIENCE, Setup, form, join, public_mapping, wait_until};
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// In a mount namespace of its own: the settings file's folder is put on a file system of 64 KiB.
const SMALL_DISK: &str = r#"
    exec unshare --map-root-user --mount sh -c '
        content=$(cat "$FOLDER/connector.conf")
        mount -t tmpfs -o size=64k tmpfs "$FOLDER"
        printf %s "$content" > "$FOLDER/connector.conf"
        exec "$0" "$@"
    ' "$0" "$@"
"#;

/// A daemon whose disk is small and its own, with one mapping; `None` where that is not permitted.
struct OnSmallDisk {
    daemon: Daemon,
    mapping: Mapping,
    _pid_file: TempDir,
}

impl OnSmallDisk {
    fn start() -> Option<Self> {
        let mount = ["--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"];
        if !Command::new("unshare").args(mount).output().is_ok_and(|output| output.status.success()) {
            eprintln!("skipped: a mount namespace of one's own is not permitted here");
            return None;
        }
        let folder = TempDir::new().expect("a temporary folder");
        // Elsewhere: a file that is open for writing keeps its file system from becoming read-only.
        let pid_file = folder.path().join("pid").display().to_string();
        let daemon =
            Setup::new(Mode::Plain).argument("--pid-file").argument(pid_file).wrapped(SMALL_DISK.to_owned()).start();
        let mapping = daemon.add_public(2);
        Some(Self { daemon, mapping, _pid_file: folder })
    }

    /// A file beside the settings, as the daemon sees it.
    fn path(&self, name: &str) -> PathBuf {
        let inside = self.daemon.path(name);
        Path::new(&format!("/proc/{}/root", self.daemon.pid())).join(inside.strip_prefix("/").expect("absolute"))
    }

    fn remount(&self, options: &str) {
        let folder = self.daemon.folder().to_str().expect("UTF-8");
        let target = format!("--target={}", self.daemon.pid());
        let namespace = ["--user", "--mount", "--preserve-credentials"];
        let status = Command::new("nsenter")
            .arg(target)
            .args(namespace)
            .args(["mount", "-o", &format!("remount,{options}"), folder])
            .status();
        assert!(status.is_ok_and(|status| status.success()), "{options}");
    }
}

/// Adding and removing must both be refused with `reason`, and change nothing; `list` lists the settings' folder.
fn refuses_all_changes(daemon: &Daemon, mapping: &Mapping, reason: &str, list: impl Fn() -> Vec<(PathBuf, Vec<u8>)>) {
    let numbers = |status: Value| ["mappings", "availablePorts", "inactive"].map(|key| status[key].clone());
    let (files, status) = (list(), numbers(daemon.controller().status("all")));
    // A session that is there already, to be left alone.
    let (agent, user) = daemon.pair(mapping);
    let before = daemon.descriptors();
    let add = form("mapping", &public_mapping(1, 0).to_string());
    let remove = form("mappingid", &mapping.id);
    for (path, form) in [("add", &add), ("remove", &remove), ("add", &add)] {
        let answer = daemon.controller().post(&format!("/api/v2/mapping/{path}"), form);
        assert_eq!(answer.status, 500, "{answer:?}");
        let json = answer.json();
        assert_eq!(json["status"], "failed", "{json}");
        assert!(json["errormessage"].as_str().is_some_and(|message| message.contains(reason)), "{json}");
    }
    wait_until("what was opened is closed", PATIENCE, || daemon.descriptors() <= before);
    assert_eq!(numbers(daemon.controller().status("all")), status);
    assert_eq!(list(), files);
    assert_eq!(daemon.controller().status(&mapping.id)["public"], "Active");
    agent.send(b"still here");
    user.expect(b"still here");
    join(&daemon.agent(mapping), &daemon.user(mapping));
}

/// Every file of a folder with its content, but for the one that fills the disk.
fn list(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(folder).expect("a folder");
    let files = entries.map(|entry| entry.expect("an entry").path()).filter(|path| !path.ends_with("filler"));
    let mut files: Vec<_> = files.map(|path| (path.clone(), fs::read(path).expect("a file"))).collect();
    files.sort();
    files
}

/// Once the disk is well again, everything works as ever, and outlives a restart.
fn works_again(daemon: &Daemon, mapping: &Mapping, configs: &Path) {
    let added = daemon.add_public(1);
    daemon.pair(&added);
    daemon.controller().remove(mapping);
    let stored = fs::read_to_string(configs).expect("a file");
    assert!(stored.contains(&added.id) && !stored.contains(&mapping.id), "{stored}");
}

#[test]
fn on_a_full_disk() {
    let Some(disk) = OnSmallDisk::start() else { return };
    let mut filler = fs::File::create(disk.path("filler")).expect("a file");
    while filler.write(&[0; 512]).is_ok_and(|count| count > 0) {}
    drop(filler);
    refuses_all_changes(&disk.daemon, &disk.mapping, "No space left on device", || list(&disk.path("")));
    fs::remove_file(disk.path("filler")).expect("it was made above");
    works_again(&disk.daemon, &disk.mapping, &disk.path("configs.json"));
}

#[test]
fn on_a_read_only_disk() {
    let Some(disk) = OnSmallDisk::start() else { return };
    disk.remount("ro");
    refuses_all_changes(&disk.daemon, &disk.mapping, "Read-only file system", || list(&disk.path("")));
    disk.remount("rw");
    works_again(&disk.daemon, &disk.mapping, &disk.path("configs.json"));
}

#[test]
fn in_a_folder_that_vanished() {
    let daemon = Setup::new(Mode::Plain).start();
    let mapping = daemon.add_public(2);
    let parked = daemon.folder().with_extension("parked");
    // The folder's own log grows meanwhile.
    let configs = || vec![(PathBuf::new(), fs::read(parked.join("configs.json")).expect("a file"))];
    fs::rename(daemon.folder(), &parked).expect("a folder");
    refuses_all_changes(&daemon, &mapping, "No such file or directory", configs);
    fs::rename(&parked, daemon.folder()).expect("a folder");
    works_again(&daemon, &mapping, &daemon.path("configs.json"));
}

#[test]
fn what_a_crash_left_behind_is_cleaned_at_start() {
    let mut daemon = Setup::new(Mode::Plain).prepare();
    fs::write(daemon.path("configs.json.new"), "{\"mappings\":[{\"id\":\"half").expect("a file");
    daemon.start();
    assert!(!daemon.path("configs.json.new").exists());
    assert_eq!(daemon.controller().status("all")["mappings"], 0);
    daemon.pair(&daemon.add_public(1));
}
