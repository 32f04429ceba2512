//! `demo`: what it shows, and that it leaves nothing behind.

use crate::harness::{BINARY, PATIENCE, wait_until};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use tempfile::TempDir;

const NOBODY: u32 = 65534;

/// The demo, with a place of its own for temporary files.
fn demo(place: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.arg("demo").args(words).env("TMPDIR", place).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[track_caller]
fn expect_nothing_left(place: &TempDir) {
    let left: Vec<_> = fs::read_dir(place.path()).expect("a folder").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[track_caller]
fn output(mut child: Child) -> Output {
    wait_until("the demo ends", PATIENCE, || child.try_wait().expect("a child").is_some());
    child.wait_with_output().expect("its output")
}

#[test]
fn once_it_fetches_its_own_page_and_ends() {
    for (words, url) in [(&["--once"][..], "http://127.0.0.1:"), (&["--tls", "--once"], "https://127.0.0.1:")] {
        let place = TempDir::new().expect("a temporary folder");
        let Output { status, stdout, stderr } = output(demo(place.path(), words).spawn().expect("the binary"));
        let (said, complaints) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        assert_eq!(status.code(), Some(0), "{said}{complaints}");
        assert!(said.contains(&format!("This came back from {url}")), "{said}");
        assert!(said.contains("<h1>It works</h1>"), "{said}");
        assert_eq!(complaints, "");
        expect_nothing_left(&place);
    }
}

/// As by sudo, which may keep the caller's TMPDIR.
#[test]
fn root_may_try_it_in_another_users_folder() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can give a folder away");
        return;
    }
    let place = TempDir::new().expect("a temporary folder");
    chown(place.path(), Some(NOBODY), Some(NOBODY)).expect("root may");
    let Output { status, stderr, .. } = output(demo(place.path(), &["--tls", "--once"]).spawn().expect("the binary"));
    assert_eq!((status.code(), String::from_utf8_lossy(&stderr).as_ref()), (Some(0), ""));
    expect_nothing_left(&place);
}

#[test]
fn its_curl_lines_work_until_ctrl_c() {
    let place = TempDir::new().expect("a temporary folder");
    let mut child = demo(place.path(), &["--tls"]).spawn().expect("the binary");
    let mut said = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut curls = Vec::new();
    loop {
        let line = said.next().expect("it goes on talking").expect("UTF-8");
        if line.starts_with("Ctrl-C") {
            break;
        }
        curls.extend(line.strip_prefix("  curl ").map(|options| format!("curl -sS --max-time 10 {options}")));
    }
    let expected = ["<h1>It works</h1>", "\"status\":\"running\"", "\"status\":\"ok\""];
    assert_eq!(curls.len(), expected.len(), "{curls:?}");
    for (curl, expected) in curls.iter().zip(expected) {
        let Output { stdout, stderr, .. } = Command::new("sh").args(["-c", curl]).output().expect("a shell and curl");
        let answer = String::from_utf8_lossy(&stdout);
        assert!(answer.contains(expected), "{curl}: {answer}{}", String::from_utf8_lossy(&stderr));
    }
    // SAFETY: plain system call; the process is a child that was not waited for, so its id is its own.
    assert_eq!(unsafe { libc::kill(child.id() as i32, libc::SIGINT) }, 0);
    assert_eq!(output(child).status.code(), Some(0));
    expect_nothing_left(&place);
}
